"""Texts of drbd.conf for tests: as people write them, wrong ones, generated ones."""

from __future__ import annotations

from hypothesis import strategies as st

from relevo.config.drbd.options import KEYWORDS, OPTIONS, Option, Takes

HOST_1 = "on nodo1 { device /dev/drbd0; disk /dev/sda6; address 192.168.0.27:7793; meta-disk internal; }"
HOST_2 = "on nodo2 { device /dev/drbd0; disk /dev/sda6; address 192.168.0.28:7793; meta-disk internal; }"


def resource(more: str = "", name: str = "r0") -> str:
    """A resource on two hosts that says `more`."""
    return f"resource {name} {{ {HOST_1} {HOST_2} {more} }}\n"


DOCUMENTED = """\
# two nodes, options in common, volumes with numbers
global { usage-count yes; minor-count 64; dialog-refresh 5; disable-ip-verification; }
common {
    protocol C;
    handlers {
        split-brain "/usr/lib/drbd/notify-split-brain.sh root";
        out-of-sync "/usr/lib/drbd/notify-out-of-sync.sh root";
        before-resync-target "/usr/lib/drbd/snapshot-resync-target-lvm.sh -p 15 -- -c 16k";
        after-resync-target /usr/lib/drbd/unsnapshot-resync-target-lvm.sh;
    }
    startup { wfc-timeout 120; degr-wfc-timeout 120; outdated-wfc-timeout 60; wait-after-sb; become-primary-on alice; }
    options { cpu-mask 3; on-no-data-accessible suspend-io; }
    disk { on-io-error detach; fencing resource-only; resync-rate 30M; al-extents 1801; c-plan-ahead 0; }
    net { max-epoch-size 8000; verify-alg sha1; csums-alg md5; use-rle yes; }
}
resource data {
    disk { resync-rate 40M; }
    net { cram-hmac-alg sha256; shared-secret "FooFunFactory, the \\"second\\""; protocol B; }
    on alice {
        volume 0 { device minor 1; disk /dev/vg/data; meta-disk internal; }
        volume 1 { device /dev/drbd7 minor 7; disk /dev/vg/logs; meta-disk /dev/vg/meta [3]; disk { resync-rate 1M; } }
        address 10.1.1.31:7789;
    }
    on bob {
        volume 1 { device /dev/drbd7 minor 7; disk /dev/vg/logs; flexible-meta-disk /dev/vg/meta; }
        volume 0 { device minor 1; disk /dev/vg/data; meta-disk internal; }
        address 10.1.1.32:7789;
    }
}
"""
ACCEPTED = {
    "documented": DOCUMENTED,
    "nothing": "# nothing at all\n",
    "plain": resource(),
    "8.3": resource(
        "protocol C; syncer { rate 100M; al-extents 257; verify-alg crc32c; csums-alg sha1; use-rle; cpu-mask 1; "
        "c-plan-ahead 20; c-fill-target 50k; c-delay-target 10; c-max-rate 100M; c-min-rate 4M; after r0; } "
        "disk { no-disk-barrier; no-disk-flushes; no-md-flushes; on-io-error pass_on; } net { no-tcp-cork; } "
        "handlers { outdate-peer /sbin/drbd-peer-outdater; } startup { become-primary-on nodo1; }"
    ),
    "inherited from above": "resource r1 { protocol C; device minor 2; disk /dev/sda7; meta-disk internal; "
    "on nodo1 { address 10.1.1.31:7802; } on nodo2 { address 10.1.1.32:7802; disk /dev/sdb; } }",
    "floating": "resource r2 { device minor 2; disk /dev/sda7; meta-disk internal; floating 10.1.1.31:7802; "
    "floating ipv4 10.1.1.32:7802 { disk /dev/sdb; meta-disk /dev/sdc8; } }",
    "IPv6": "resource r0 { device /dev/drbd3; disk /dev/sda7; meta-disk internal; "
    "on nodo1 { address ipv6 [fd01:2345:6789:abcd::1]:7800; } on nodo2 { address ipv6 [fe80::1%eth0]:7800; } }",
    "other families": "resource r0 { device /dev/drbd3; disk /dev/sda7; meta-disk internal; "
    "on nodo1 { address sdp 10.0.0.1:7800; } on nodo2 { address sci 10.0.0.2:7800; } }",
    "three hosts": f"resource r0 {{ {HOST_1} {HOST_2} on nodo3 {{ device /dev/drbd0; disk /dev/sda6; "
    "address 192.168.0.30:7793; meta-disk internal; } }",
    "two names": "resource r0 { device minor 1; meta-disk internal; on nodo1 alice { address 10.2.2.100:7801; "
    "disk /dev/mapper/some-san; } on nodo2 { address 10.2.2.101:7801; disk /dev/mapper/other-san; } }",
    "not this host": "resource r0 { device minor 1; meta-disk internal; disk /dev/sda1; "
    "on alice { address 10.2.2.100:7801; } on bob { address 10.2.2.101:7801; } }",
    "skip": f'skip {{ resource x {{ }} "}}" $ = }}\nskip text {{ {{ }} }} {resource()}',
    "the end of the file ends a resource": f"resource r0 {{ {HOST_1} {HOST_2}",
    "twice the same option": resource("net { timeout 60; timeout 70; }"),
    "volume 0 of the resource": "resource r0 { volume 0 { device minor 1; disk /dev/sda1; meta-disk internal; "
    "disk { al-extents 67; c-max-rate 10M; } } disk { al-extents 127; } "
    "on nodo1 { address 10.2.2.100:7801; } "
    "on nodo2 { address 10.2.2.101:7801; volume 0 { disk { c-max-rate 1M; } } } }",
    "discard a node": resource("net { after-sb-0pri discard-node-nodo2; }"),
    "both primary": resource("net { allow-two-primaries; } startup { become-primary-on both; }"),
    "proxy": resource("proxy { memlimit 100M; rate 10M; plugin { zlib level 9; lzma; } }"),
    "proxy of the hosts": "resource r0 { device minor 1; disk /dev/sda1; meta-disk internal; "
    "on nodo1 { address 127.0.0.1:7789; proxy on nodo1 { inside 127.0.0.1:7788; outside 10.0.0.1:7788; "
    "options { memlimit 50M; } } } "
    "on nodo2 { address 127.0.0.1:7789; proxy on nodo2 alice { inside 127.0.0.1:7788; outside 10.0.0.2:7788; } } }",
    "old options": resource("disk { throttle-threshold 10; hold-off-threshold 5; }"),
    "resync-after nothing": resource("disk { resync-after nowhere; }"),
    "no volumes": "resource r0 { on nodo1 { address 10.0.0.1:1; } on nodo2 { address 10.0.0.2:1; } }",
    "numbers with 9 digits are words": resource("handlers { pri-lost 123456789; split-brain 12; }"),
    "on as a value": resource("net { verify-alg on; }").replace("verify-alg on", "shared-secret on"),
    "comments": resource('# \\ " } ; \n net { # net\n timeout#\n60#\n;}\n'),
    "quotes and backslashes": resource('handlers { pri-lost "\\\\ \\" \\n $HOME \' ; } {"; }'),
    "device names": "resource r0 { disk /dev/sda1; meta-disk internal; on nodo1 { device drbd4; address 10.0.0.1:1; } "
    "on nodo2 { device /dev/drbd_data minor 4; address 10.0.0.2:1; } }",
    "ignore-on": f"resource r0 {{ ignore-on nodo9; {HOST_1} {HOST_2} }}",
    "options of a host": resource().replace("on nodo2 {", "on nodo2 { options { cpu-mask 2; }"),
    "common behind": resource("net { timeout 50; }") + "common { protocol A; net { ping-int 3; } }",
    "the longest text": resource(
        'net { shared-secret "' + "x" * 60 + '"; } handlers { pri-lost "' + "y" * 255 + '"; }'
    ),
    "the longest word": resource(f"handlers {{ pri-lost {'z' * 128}; }}"),
    "the same address in another resource of loopback": resource()
    .replace("192.168.0.27", "127.0.0.1")
    .replace("192.168.0.28", "127.0.0.1"),
}
REFUSED = {
    "an unknown word": resource("net { timeuot 60; }"),
    "an unknown section": resource("nets { timeout 60; }"),
    "no semicolon": resource("net { timeout 60 }"),
    "a number that is too high": resource("net { timeout 601; }"),
    "a protocol that is none": resource("protocol D;"),
    "protocol twice": resource("protocol C; protocol C;"),
    "net twice": resource("net { } net { }"),
    "no address": resource().replace("address 192.168.0.27:7793;", ""),
    "no device": resource().replace("device /dev/drbd0;", ""),
    "no disk": resource().replace("disk /dev/sda6;", ""),
    "no meta-disk": resource().replace("meta-disk internal;", ""),
    "the resource twice": resource() + resource().replace("0.27", "0.37").replace("0.28", "0.38"),
    "the address twice": resource() + resource(name="r1").replace("drbd0", "drbd1"),
    "the same minor twice": resource() + resource(name="r1").replace("7793", "7794"),
    "the same host twice": f"resource r0 {{ {HOST_1} {HOST_1} }}",
    "global twice": "global { } global { }",
    "common twice": "common { } common { }",
    "hosts in common": f"common {{ {HOST_1} }}",
    "volumes behind the hosts": "resource r0 { on nodo1 { address 10.0.0.1:1; disk /dev/a; } "
    "on nodo2 { address 10.0.0.2:1; disk /dev/b; } device minor 0; meta-disk internal; }",
    "volumes on one host only": resource().replace(
        "device /dev/drbd0; disk /dev/sda6; address 192.168.0.28:7793; meta-disk internal;",
        "address 192.168.0.28:7793; volume 1 { device minor 5; disk /dev/x; meta-disk internal; }",
    ),
    "numbered beside unnumbered": resource().replace(
        "on nodo1 {", "on nodo1 { volume 1 { device minor 5; disk /dev/x; meta-disk internal; }"
    ),
    "a keyword as a value": resource("net { cram-hmac-alg net; }"),
    "a host name that is a keyword": "resource r0 { on disk { } }",
    "a device of another kind": resource().replace("/dev/drbd0", "/dev/sda"),
    "a device without a minor": resource().replace("/dev/drbd0", "/dev/drbd_x"),
    "a minor that differs": resource().replace("/dev/drbd0", "/dev/drbd0 minor 1"),
    "a quoted text of two lines": resource('handlers { pri-lost "a\nb"; }'),
    "a quoted text without end": resource('handlers { pri-lost "a; }'),
    "a quoted text that is too long": resource('handlers { pri-lost "' + "y" * 256 + '"; }'),
    "a word that is too long": resource(f"handlers {{ pri-lost {'z' * 129}; }}"),
    "IPv6 without a family": resource().replace("192.168.0.27:7793", "[fd00::1]:7793"),
    "a port that is none": resource().replace(":7793", ":70000"),
    "a missing file": 'include "no-such-file.res";',
    "a stray brace": resource() + "}",
    "syncer with an option of disk": resource("syncer { on-io-error detach; }"),
    "syncer with 8.4's spelling": resource("syncer { resync-rate 10M; }"),
    "both without two primaries": resource("startup { become-primary-on both; }"),
    "primary on nobody": resource("startup { become-primary-on alice; }"),
    "a proxy on one side": resource().replace(
        "on nodo1 {", "on nodo1 { proxy on nodo1 { inside 127.0.0.1:7788; outside 10.0.0.1:7788; }"
    ),
    "drbd 9's mesh": resource("connection-mesh { hosts nodo1 nodo2; }"),
    "skip with a keyword": f"skip {resource()}",
    "a number as a name": f"resource 10 {{ {HOST_1} {HOST_2} }}",
    "a sign that has no meaning": resource("net { timeout = 60; }"),
}
KEYWORD_NAME = 'resource "net" { ' + HOST_1 + HOST_2 + ' handlers { pri-lost "disk"; } }'
OF_8_3 = {
    "plain": resource("protocol C;"),
    "8.3": "",
    "old options in syncer": resource("protocol B; syncer { rate 10M; throttle-threshold 3; hold-off-threshold 4; }"),
    "common": "common { protocol C; syncer { rate 33M; al-extents 511; } net { timeout 50; } handlers { pri-lost x; } }"
    + resource("syncer { rate 5M; }"),
    "inherited": "common { protocol A; startup { wfc-timeout 30; } disk { no-disk-flushes; } }" + resource(),
}
"""Files of 8.3."""
MILDER = {
    "forgotten options in syncer": resource("syncer { rate 10M; throttle-threshold 3; }"),
    "the section disk beside the disk": resource().replace(
        "disk /dev/sda6;", "disk /dev/sda6; disk { al-extents 67; }"
    ),
}
STRICTER = {
    "discard a node that is none": resource("net { after-sb-0pri discard-node-nodo3; }"),
    "a policy that is none": resource("net { after-sb-0pri discard-everything; }"),
    "a number that is none": resource("net { ping-timeout soon; }"),
    "an address that is none": resource().replace("192.168.0.27", "192.168.0.300"),
    "the same disk twice": resource() + resource(name="r1").replace("7793", "7794").replace("drbd0", "drbd1"),
    "a volume twice": "resource r0 { on nodo1 { address 10.0.0.1:1; volume 0 { device minor 1; disk /dev/a; "
    "meta-disk internal; } volume 0 { device minor 2; disk /dev/b; meta-disk internal; } } "
    "on nodo2 { address 10.0.0.2:1; volume 0 { device minor 1; disk /dev/a; meta-disk internal; } "
    "volume 0 { device minor 2; disk /dev/b; meta-disk internal; } } }",
}

OF_8_3["8.3"] = ACCEPTED["8.3"]

# ---- generated -----------------------------------------------------------------------------------------------------

_BLANKS = st.sampled_from([" ", "\n", "\t", ' # } ; "\n', "\r\n  "])
_WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFXYZ0123456789/._-", min_size=1, max_size=20).filter(
    lambda word: word not in KEYWORDS and not word[0].isdigit()
)
_TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).filter(
    lambda text: text not in KEYWORDS
)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_STRINGS = st.one_of(_WORDS, _TEXTS.map(_quoted))


@st.composite
def _numbers(draw: st.DrawFn, option: Option) -> str:
    low, high, shift = option.low, option.high, option.scale.shift
    value = draw(st.integers(low, high))
    suffix = draw(st.sampled_from(["", "K", "k", "M", "s"]))
    if not suffix:
        return str(value)
    width = {"s": 9, "k": 10, "m": 20}[suffix.lower()]
    scaled = (value << shift) >> width
    back = -(-(scaled << width) >> shift)
    return f"{scaled}{suffix}" if low <= back <= high else str(value)


@st.composite
def _statement(draw: st.DrawFn, option: Option, *, syncer: bool = False) -> str:
    blank = draw(_BLANKS)
    name = option.old_name if syncer and option.old_name else option.name
    if option.name == "resync-after":
        return f"{name}{blank}r0;"
    if option.takes is Takes.FLAG:
        return draw(st.sampled_from([f"{name};", f"{name} yes;", f"{name}{blank}no;"]))
    if option.takes is Takes.NUMBER:
        value = draw(_numbers(option))
    elif option.takes is Takes.CHOICE:
        value = draw(st.sampled_from(option.choices))
    else:
        value = draw(_STRINGS)
    return f"{name}{blank}{value}{draw(_BLANKS)};"


@st.composite
def _section(draw: st.DrawFn, name: str) -> str:
    syncer = name == "syncer"
    known = [
        option
        for option in OPTIONS
        if (option.in_syncer if syncer else option.section == name)
        and option.takes is not Takes.BARE
        and option.name != "become-primary-on"
    ]
    chosen = draw(st.lists(st.sampled_from(known), max_size=8, unique=True))
    statements = [draw(_statement(option, syncer=syncer)) for option in chosen]
    return f"{name} {{{draw(_BLANKS)}{draw(_BLANKS).join(statements)} }}"


@st.composite
def _sections(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(["net", "disk", "startup", "handlers", "options", "syncer"]), unique=True))
    return "\n".join(draw(_section(name)) for name in names)


@st.composite
def _one(draw: st.DrawFn, index: int) -> str:
    minor, port = index * 10, 7700 + index
    meta = draw(
        st.sampled_from(["meta-disk internal;", f"meta-disk /dev/m{index}[2];", f"flexible-meta-disk /dev/m{index};"])
    )
    body = f"device /dev/drbd{minor}; disk /dev/d{index}; {meta}"
    if draw(st.booleans()):
        body = f"volume 0 {{ {body} }} volume 1 {{ device minor {minor + 1}; disk /dev/e{index}; meta-disk internal; }}"
    above = draw(st.booleans())
    hosts = [
        f"on nodo{side} {{ {'' if above else body} address 10.0.0.{side}:{port}; }}"
        for side in draw(st.permutations([1, 2]))
    ]
    parts = [body if above else "", *hosts, draw(_sections())]
    protocol = draw(st.sampled_from(["", "protocol A;", "protocol b;", "protocol C;"]))
    return f"resource r{index} {{ {protocol} {draw(_BLANKS).join(parts)} }}\n"


@st.composite
def configurations(draw: st.DrawFn) -> str:
    """Files that drbdadm accepts."""
    parts = [draw(_one(index)) for index in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), f"common {{ {draw(_sections())} }}\n")
    if draw(st.booleans()):
        parts.insert(0, f"global {{ usage-count {draw(st.sampled_from(['yes', 'no', 'ask']))}; }}\n")
    return "".join(parts)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Such a file, or a documented one, of which a piece was lost, doubled or put in."""
    text = draw(st.one_of(configurations(), st.sampled_from(list(ACCEPTED.values()))))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, max(0, len(text) - 1)))
        length = draw(st.integers(0, 6))
        new = draw(
            st.sampled_from(
                ["", "{", "}", ";", '"', " ", "#", "\n", "on", "7", "x", ":", "[", "]", "\\", text[at : at + 4]]
            )
        )
        text = text[:at] + new + text[at + length :]
    return text
