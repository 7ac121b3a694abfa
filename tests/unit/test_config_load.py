"""The configuration: what is right is understood, and every mistake is one sentence with file, line and remedy."""

from __future__ import annotations

import pathlib
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec
import pytest

from relevo.config.errors import ConfigErrors, UnknownNode
from relevo.config.load import hash_of, load, warnings, whoami
from relevo.config.model import (
    AddressResource,
    FilesResource,
    FilesystemResource,
    HeartbeatTimings,
    MirrorResource,
    SmbResource,
    Witness,
)
from relevo.config.window import Window
from relevo.lab.scene import Options, configuration, new_secrets

RIGHT = """\
[cluster]
name = "oficina"

[heartbeat]
keepalive = "200 ms"
warntime = "1 s"
deadtime = "2 s"
initdead = "10 s"

[links.users]
interface = "eth0"
network = "192.168.0.0/24"
[links.cross]
interface = "eth1"
network = "10.27.0.0/24"

[nodes.nodo1]
addresses = { users = "192.168.0.27", cross = "10.27.0.1" }
disks = { r0 = "/dev/relevo/r0" }
[nodes.nodo2]
addresses = { users = "192.168.0.28", cross = "10.27.0.2" }
disks = { r0 = "/dev/relevo/r0" }

[mirrors.r0]
link = "cross"
port = 7788
alone = "risk"

[services.web]
prefer = "nodo1"
[[services.web.resources]]
type = "mirror"
mirror = "r0"
[[services.web.resources]]
type = "filesystem"
mirror = "r0"
mountpoint = "/srv/relevo"
[[services.web.resources]]
type = "files"
root = "/srv/relevo"
mirror = "r0"
stop_timeout = "5 s"
[[services.web.resources]]
type = "address"
address = "192.168.0.29/24"
link = "users"
"""
WITNESS = '[witness]\naddress = "192.168.0.30"\n'
SECRETS = '[mirror]\nr0 = "not a word"\n'
AUTHKEYS = "# comment\nauth 1\n1 sha1 HI!\n2 crc\n"


def written(folder: pathlib.Path, toml: str = RIGHT, secrets: str = SECRETS, authkeys: str = AUTHKEYS) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    for name, text in (("relevo.toml", toml), ("secrets.toml", secrets), ("authkeys", authkeys)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return folder / "relevo.toml"


def mistakes(path: pathlib.Path) -> list[tuple[str, int | None, str, str]]:
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    return [(error.file.name, error.line, error.mistake, error.remedy) for error in caught.value.errors]


def line_of(toml: str, part: str) -> int:
    return toml[: toml.index(part)].count("\n") + 1


def test_everything_is_understood(tmp_path: pathlib.Path) -> None:
    config = load(written(tmp_path))
    assert config.cluster == "oficina"
    assert config.heartbeat == HeartbeatTimings(
        keepalive_ms=200, warntime_ms=1000, deadtime_ms=2000, initdead_ms=10_000
    )
    assert config.links["cross"].network == IPv4Network("10.27.0.0/24")
    assert config.links["users"].port == 694
    assert config.nodes["nodo2"].addresses["users"] == IPv4Address("192.168.0.28")
    assert config.nodes["nodo1"].disks == {"r0": pathlib.Path("/dev/relevo/r0")}
    assert config.mirrors["r0"].secret == "not a word"
    assert config.mirrors["r0"].alone == "risk"
    assert config.authkeys.signing.method == "sha1"
    assert config.authkeys.signing.secret == "HI!"
    assert sorted(config.authkeys.accepted) == [1, 2]
    mirror, filesystem, files, address = config.services["web"].resources
    assert isinstance(mirror, MirrorResource)
    assert isinstance(filesystem, FilesystemResource)
    assert isinstance(files, FilesResource)
    assert isinstance(address, AddressResource)
    assert files.operation.stop_timeout_ms == 5000
    assert [resource.id for resource in config.services["web"].resources] == [
        "mirror",
        "filesystem",
        "files",
        "address",
    ]
    assert address.address == IPv4Interface("192.168.0.29/24")
    assert config.peers_of("nodo1") == (config.nodes["nodo2"],)


def test_when_a_service_goes_back(tmp_path: pathlib.Path) -> None:
    options = 'prefer = "nodo1"\nfailback_delay = "10 min"\nfailback_window = "22:00-5:30"'
    service = load(written(tmp_path, RIGHT.replace('prefer = "nodo1"', options))).services["web"]
    assert service.failback_delay_ms == 600_000
    assert service.failback_window == Window(begin=22 * 60, end=5 * 60 + 30)
    assert service.failback_window.text == "22:00-05:30"


def test_profiles(tmp_path: pathlib.Path) -> None:
    bare = RIGHT[: RIGHT.index("[heartbeat]")] + RIGHT[RIGHT.index("[links.users]") :]
    assert load(written(tmp_path, bare)).heartbeat == HeartbeatTimings()
    fast = load(written(tmp_path, bare.replace('"oficina"', '"oficina"\nprofile = "fast"'))).heartbeat
    assert (fast.keepalive_ms, fast.warntime_ms, fast.deadtime_ms, fast.initdead_ms) == (200, 600, 1200, 10_000)
    slow = load(
        written(tmp_path, bare.replace("[links.users]", '[heartbeat]\ndeadtime = "30 s"\n[links.users]'))
    ).heartbeat
    assert (slow.warntime_ms, slow.deadtime_ms, slow.initdead_ms) == (15_000, 30_000, 60_000)


def test_hash_is_of_the_meaning(tmp_path: pathlib.Path) -> None:
    first = load(written(tmp_path / "a"))
    assert len(first.hash) == 64
    respelled = RIGHT.replace('"2 s"', '"2000 ms"').replace("[mirrors.r0]", "# a comment\n[mirrors.r0]")
    moved = respelled[: respelled.index("[links.users]")] + respelled[respelled.index("[links.cross]") :]
    moved += '[links.users]\nnetwork = "192.168.0.0/24"\ninterface = "eth0"\n'
    assert load(written(tmp_path / "b", moved)).hash == first.hash
    for changes in (
        {"toml": RIGHT.replace('"2 s"', '"3 s"')},
        {"secrets": SECRETS.replace("word", "text")},
        {"authkeys": AUTHKEYS.replace("HI!", "HO!")},
        {"toml": RIGHT.replace("/dev/relevo/r0", "/dev/relevo/r1", 1)},
    ):
        assert load(written(tmp_path / "c", **changes)).hash != first.hash
    assert hash_of(first) == first.hash
    assert hash_of(msgspec.structs.replace(first, cluster="other")) != first.hash


def test_hash_knows_nothing_of_options_that_only_the_next_version_has(tmp_path: pathlib.Path) -> None:
    """So that two servers of different versions, with one configuration, do not say that theirs differ."""
    config = load(written(tmp_path))
    timings = config.heartbeat
    later = msgspec.defstruct("Later", [("patience_ms", int, 70)], bases=(HeartbeatTimings,), frozen=True, kw_only=True)
    fields = msgspec.structs.asdict(timings)
    assert hash_of(msgspec.structs.replace(config, heartbeat=later(**fields))) == config.hash
    assert hash_of(msgspec.structs.replace(config, heartbeat=later(**fields, patience_ms=71))) != config.hash


def test_who_am_i(tmp_path: pathlib.Path) -> None:
    config = load(written(tmp_path))
    assert whoami(config, "nodo1") is config.nodes["nodo1"]
    with pytest.raises(UnknownNode, match=r"'host'.*nodo1, nodo2.*--node"):
        whoami(config, "host")


def test_smb_stands_before_the_address_and_knows_its_files(tmp_path: pathlib.Path) -> None:
    toml = RIGHT.replace('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = { durable = "write", encrypt = true }')
    parts = load(written(tmp_path, toml)).services["web"].resources
    smb = parts[3]
    assert [part.id for part in parts] == ["mirror", "filesystem", "files", "smb", "address"]
    assert isinstance(smb, SmbResource)
    assert (smb.files, smb.root, smb.port, smb.durable) == ("files", pathlib.Path("/srv/relevo"), 445, "write")
    without = RIGHT.replace('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = false')
    assert load(written(tmp_path, without)).hash == load(written(tmp_path)).hash
    wrong = toml.replace("192.168.0.29/24", "192.168.0.29/16")  # what stands behind it is told with its own line
    assert {error[1] for error in mistakes(written(tmp_path, wrong))} == {
        toml[: toml.index("192.168.0.29")].count("\n") + 1
    }
    bare = toml[: toml.index('[[services.web.resources]]\ntype = "files"')]
    assert any("nothing to share" in error[2] for error in mistakes(written(tmp_path, bare)))


def test_what_is_weak_is_named(tmp_path: pathlib.Path) -> None:
    def named(**changes: str) -> str:
        return "\n".join(warnings(load(written(tmp_path, **changes))))

    assert 'alone = "risk"' in named()
    assert "signed with sha1" in named()
    assert "forge heartbeats" in named(authkeys="auth 2\n2 crc\n")
    asking = RIGHT.replace('alone = "risk"', 'alone = "ask"')
    assert "until a person decides" in named(toml=asking)
    strong = asking + WITNESS
    key = SECRETS + '[witness]\nkey = "k"\n'
    assert "has no say in mirror 'r0'" in named(toml=RIGHT + WITNESS, secrets=key)
    assert named(toml=strong, secrets=key, authkeys="auth 1\n1 sha256 word\n") == ""
    assert "hmac" in named(toml=asking.replace("port = 7788", 'hmac = "md5"'), authkeys="auth 1\n1 sha256 word\n")


# Each: what is replaced in the right file, by what, the part where the mistake has to be placed, a part of the sentence
# and a part of the remedy.
WRONG = {
    "unknown key": ("keepalive =", "keepalife =", "keepalife", "no key 'keepalife'", "'keepalive'"),
    "unknown section": ("[mirrors.r0]", "[mirors.r0]", "[mirors.r0]", "no key 'mirors'", "'mirrors'"),
    "missing unit": ('"200 ms"', "200", "keepalive", "no unit: 200", '"200 ms"'),
    "missing unit in text": ('"200 ms"', '"200"', "keepalive", "'200' is not a duration", "ms"),
    "wrong unit": ('"200 ms"', '"200 MiB"', "keepalive", "'200 MiB' is not a duration", "ms"),
    "zero": ('"200 ms"', '"0 ms"', "keepalive", "is zero", "another"),
    "too long": ('"200 ms"', '"99999999999999999999 d"', "keepalive", "is too large", "another"),
    "wrong type": ("port = 7788", 'port = "7788"', "port", "a whole number", "port = 7788"),
    "true is no number": ("port = 7788", "port = true", "port", "a whole number", "port = 7788"),
    "port out of range": ("port = 7788", "port = 77880", "port", "is 77880", "from 1 to 65535"),
    "wrong choice": ('"risk"', '"riks"', "alone", "cannot be 'riks'", "'risk'"),
    "no name": ('name = "oficina"', "", "[cluster]", "cluster.name is missing", "Add name"),
    "empty name": ('"oficina"', '""', "name", "is empty", "Write name"),
    "bad name": ('"oficina"', '"of/icina"', "name", "is not a name", "letters"),
    "duplicate address": ('"192.168.0.28"', '"192.168.0.27"', 'users = "192.168.0.27", cross = "10.27.0.2"',
                          "already belongs to node 'nodo1'", "own address"),
    "address outside": ('"10.27.0.2"', '"10.28.0.2"', '"10.28.0.2"', "outside 10.27.0.0/24", "10.27.0.0/24"),
    "broadcast address": ('"10.27.0.2"', '"10.27.0.255"', '"10.27.0.255"', "the broadcast address", "host"),
    "no address": ('"10.27.0.2"', '"10.27.0.256"', '"10.27.0.256"', "not an IPv4 address", "192.168.0.27"),
    "link without address": (', cross = "10.27.0.2"', "", 'addresses = { users = "192.168.0.28"',
                             "no address on link 'cross'", "Add cross"),
    "unknown link of a node": (', cross = "10.27.0.2"', ', cros = "10.27.0.2"', "cros =", "no link 'cros'", "'cross'"),
    "overlapping networks": ('"10.27.0.0/24"', '"192.168.0.0/16"', 'network = "192.168.0.0/16"', "overlaps", "own"),
    "network with host": ('"10.27.0.0/24"', '"10.27.0.1/24"', 'network = "10.27.0.1/24"', "not an IPv4 network",
                          "10.27.0.0/24"),
    "network without prefix": ('"10.27.0.0/24"', '"10.27.0.0"', 'network = "10.27.0.0"', "not an IPv4 network",
                               "10.27.0.0/24"),
    "silent link": ('interface = "eth1"', 'interface = "eth1"\nbroadcast = false\nunicast = false', "[links.cross]",
                    "neither broadcast, unicast nor multicast", "Leave"),
    "no multicast group": ('interface = "eth1"', 'interface = "eth1"\nmulticast = "10.27.0.3"', "multicast =",
                           "not a group", "239.255.0.1"),
    "virtual address of a node": ("192.168.0.29/24", "192.168.0.27/24", "address = ", "already belongs to node", "own"),
    "virtual address outside": ("192.168.0.29/24", "192.168.1.29/24", "address = ", "outside 192.168.0.0/24", "Write"),
    "virtual address without prefix": ("192.168.0.29/24", "192.168.0.29", "address = ", "no prefix length", "29/24"),
    "virtual address with other prefix": ("192.168.0.29/24", "192.168.0.29/16", "address = ", "another prefix",
                                          "29/24"),
    "unknown node": ('prefer = "nodo1"', 'prefer = "nodo3"', "prefer", "no node 'nodo3'", "'nodo2'"),
    "unknown mirror": ('type = "mirror"\nmirror = "r0"', 'type = "mirror"\nmirror = "r1"', 'mirror = "r1"',
                       "no mirror 'r1'", "r0"),
    "mirror on one node": ('cross = "10.27.0.2" }\ndisks = { r0 = "/dev/relevo/r0" }', 'cross = "10.27.0.2" }',
                           "[mirrors.r0]", "a disk on 1 nodes (nodo1)", "exactly 2|disks ="),
    "relative disk": ('"/dev/relevo/r0"', '"relevo/r0"', '"relevo/r0"', "not an absolute path", "/dev"),
    "disk of no mirror": ('r0 = "/dev/relevo/r0"', 'r0 = "/dev/relevo/r0", r7 = "/dev/x"', "r7",
                          "no mirror 'r7'", "r0"),
    "disk twice": ('disks = { r0 = "/dev/relevo/r0" }\n[nodes.nodo2]',
                   'disks = { r0 = "/dev/relevo/r0", r7 = "/dev/relevo/r0" }\n[nodes.nodo2]', "r7",
                   "already the disk of mirror 'r0'|no mirror 'r7'", "own|r0"),
    "keepalive too short": ('keepalive = "200 ms"', 'keepalive = "1 ms"', "keepalive", "too short", "10 ms"),
    "deadtime too short": ('deadtime = "2 s"', 'deadtime = "300 ms"', "deadtime",
                           "shorter than twice keepalive", "longer"),
    "warntime too long": ('warntime = "1 s"', 'warntime = "2 s"', "warntime", "not shorter than deadtime", "shorter"),
    "warntime too short": ('warntime = "1 s"', 'warntime = "200 ms"', "warntime",
                           "not longer than keepalive", "longer"),
    "initdead too short": ('initdead = "10 s"', 'initdead = "1 s"', "initdead", "shorter than deadtime", "deadtime"),
    "port twice": ("port = 7788", "port = 80", "port = 80", "already used|7788", "another"),
    "unknown type": ('type = "files"', 'type = "filesytem"', 'type = "filesytem"', "cannot be 'filesytem'",
                     "'filesystem'"),
    "root elsewhere": ('root = "/srv/relevo"', 'root = "/srv/relevo2"', "root", "lies on no file system", "inside"),
    "mountpoint is root": ('mountpoint = "/srv/relevo"', 'mountpoint = "/"', "mountpoint",
                           "cannot be a mountpoint", "folder"),
    "read-only": ('mountpoint = "/srv/relevo"', 'mountpoint = "/srv/relevo"\noptions = "noatime,ro"', "options",
                  "read-only", "Leave out ro"),
    "no resources": ("[[services.web.resources]]", "[[services.other.resources]]", "[services.web]",
                     "resources is missing", "Add resources"),
    "duplicate id": ('stop_timeout = "5 s"', 'id = "mirror"', 'id = "mirror"', "already a resource 'mirror'", "id ="),
    "interface": ('"eth1"', '"a-very-long-interface"', "interface", "no network card", "ip link"),
    "no window": ('prefer = "nodo1"', 'prefer = "nodo1"\nfailback_window = "22:00-24:00"', "failback_window",
                  "no part of a day", '"22:00-05:00"'),
    "window without failback": ('prefer = "nodo1"', 'prefer = "nodo1"\nauto_failback = false\nfailback_delay = "5 min"',
                                "auto_failback", "has no effect", "Remove"),
    "unknown company": ('prefer = "nodo1"', 'prefer = "nodo1"\nafter = ["webb"]', "after", "service 'webb'", "'web'?"),
    "mirror in no table": ("[mirrors.r0]", "[mirror.r0]", "disks", "There is no mirror 'r0'", "[mirrors.r0]"),
    "open secret": ("[mirrors.r0]", '[mirrors.r0]\nsecret = "x"', "secret = ", "secret is not said", "secrets.toml"),
    "own company": ('prefer = "nodo1"', 'prefer = "nodo1"\nalong_with = "web"', "along_with", "names itself", "Remove"),
    "smb is no number": ('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = 1', "smb", "must be true, false or a table",
                         "smb = true"),
    "smb of nothing": ('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = { files = "fils" }', "smb",
                       "names no files resource", "'files'"),
    "unknown key of smb": ('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = { encrypted = true }', "smb",
                           "no key 'encrypted'", "'encrypt'"),
    "workgroup": ('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = { workgroup = "our group" }', "smb", "is no workgroup",
                  "letters"),
    "port of smb": ('prefer = "nodo1"', 'prefer = "nodo1"\nsmb = { port = 80 }', "smb", "already used", "another"),
    "nfs for nobody": ('prefer = "nodo1"', 'prefer = "nodo1"\nnfs = true', "nfs", "hosts that are named", "exports"),
    "nfs host": ('prefer = "nodo1"', 'prefer = "nodo1"\nnfs.exports = [{ share = "docs", clients = ["nodo7"] }]', "nfs",
                 "neither an IPv4 address nor a network: 'nodo7'", "192.168.0.0/24"),
    "nfs twice": ('prefer = "nodo1"', ('prefer = "nodo1"\nnfs.exports = [{ share = "a", clients = ["10.0.0.1"] }, '
                  '{ share = "a", clients = ["10.0.0.2"] }]'), "nfs", "exported twice", "one table"),
    "nfs grace": ('prefer = "nodo1"', ('prefer = "nodo1"\nnfs = { grace = "1 s", exports = '
                  '[{ share = "a", clients = ["10.0.0.1"] }] }'), "nfs", "clients can keep", "5 s"),
    "upper case key": ("[links.cross]", '[links."cr oss"]', '[links."cr oss"]', "is not a name", "letters"),
}  # fmt: skip

# The place is that of the second user of the same thing.
PLACED_ELSEWHERE = {"port twice", "duplicate address"}


def test_a_service_may_name_another_one(tmp_path: pathlib.Path) -> None:
    head = '\n[services.mail]\nprefer = "nodo1"\nafter = ["web"]\nalong_with = "web"\n'
    part = '[[services.mail.resources]]\ntype = "lsb"\nscript = "/etc/init.d/mail"\nid = "mail"\n'
    config = load(written(tmp_path, RIGHT + head + part))
    assert (config.services["mail"].after, config.services["mail"].along_with) == (("web",), "web")


@pytest.mark.parametrize("case", WRONG)
def test_one_mistake_one_sentence(tmp_path: pathlib.Path, case: str) -> None:
    old, new, place, sentence, remedy = WRONG[case]
    everywhere = case in {"relative disk", "no resources"}
    assert old in RIGHT
    toml = RIGHT.replace(old, new) if everywhere else RIGHT.replace(old, new, 1)
    found = mistakes(written(tmp_path, toml))
    start = toml.index(new) if new else 0
    line = toml[: toml.index(place, start) if place in toml[start:] else toml.index(place)].count("\n") + 1
    fitting = [
        error
        for error in found
        if error[0] == "relevo.toml"
        and any(part in error[2] for part in sentence.split("|"))
        and any(part in error[3] for part in remedy.split("|"))
    ]
    assert fitting, found
    assert line in {error[1] for error in fitting} or case in PLACED_ELSEWHERE, (line, found)
    for _, _, what, cure in found:
        assert what.endswith(".")
        assert cure.endswith((".", "?"))


def swapped(first: str, second: str) -> str:
    """The right file with the resources of two types in each other's place."""
    head, *blocks = RIGHT.split("[[services.web.resources]]\n")
    index = {block.split('"')[1]: number for number, block in enumerate(blocks)}
    a, b = index[first], index[second]
    blocks[a], blocks[b] = blocks[b], blocks[a]
    return "[[services.web.resources]]\n".join([head, *blocks])


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("mirror", "filesystem", "stands before its mirror"),
        ("filesystem", "files", "lies on no file system that stands before"),
        ("files", "address", "comes after an address"),
    ],
)
def test_order_of_resources(tmp_path: pathlib.Path, first: str, second: str, sentence: str) -> None:
    toml = swapped(first, second)
    found = mistakes(written(tmp_path, toml))
    assert any(sentence in what for _, _, what, _ in found), found


def test_all_mistakes_are_told_at_once_and_in_order(tmp_path: pathlib.Path) -> None:
    toml = RIGHT.replace('"200 ms"', "200").replace("alone =", "alon =").replace("192.168.0.29/24", "192.168.9.29/24")
    found = mistakes(written(tmp_path, toml, secrets="[mirror]\n", authkeys="auth 1\n1 sha1\n"))
    assert [(name, line) for name, line, _, _ in found] == [
        ("authkeys", 2),
        ("relevo.toml", line_of(toml, "keepalive")),
        ("relevo.toml", line_of(toml, "alon =")),
        ("relevo.toml", line_of(toml, "address = ")),
        ("secrets.toml", 1),
    ]
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "relevo.toml")
    assert str(caught.value).count("\n") == 4
    assert f"{tmp_path}/relevo.toml:5: heartbeat.keepalive has no unit" in str(caught.value)


def test_one_missing_section_does_not_hide_behind_others(tmp_path: pathlib.Path) -> None:
    found = mistakes(written(tmp_path, RIGHT[RIGHT.index("[heartbeat]") :]))
    assert [what for _, _, what, _ in found] == ["cluster is missing."]
    assert len(mistakes(written(tmp_path, ""))) == 3


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ('[cluster]\nname = "oficina\n', 2),
        ("[cluster]\nname = \n", 2),
        ('[cluster]\nname = "a"\nname = "b"\n', 3),
        ("[cluster", 1),
    ],
)
def test_no_toml(tmp_path: pathlib.Path, toml: str, line: int) -> None:
    ((name, at, what, _),) = mistakes(written(tmp_path, toml))
    assert (name, at) == ("relevo.toml", line)
    assert "This is not TOML" in what


def test_no_utf_8_and_no_file(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"[cluster]\nname = '\xff'\n")
    assert mistakes(path)[0][1:3] == (2, "This is not UTF-8.")
    path.write_bytes(b"#" * (1 << 21))
    assert "larger" in mistakes(path)[0][2]
    path.unlink()
    assert "no such file" in mistakes(path)[0][2]
    path.mkdir()
    assert "cannot be read" in mistakes(path)[0][2]


@pytest.mark.parametrize("name", ["secrets.toml", "authkeys"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_private_files_of_others_are_refused(tmp_path: pathlib.Path, name: str, mode: int) -> None:
    path = written(tmp_path)
    (tmp_path / name).chmod(mode)
    ((file, line, what, remedy),) = mistakes(path)
    assert (file, line) == (name, None)
    assert f"mode {mode:04o}" in what
    assert "chmod 600" in remedy


@pytest.mark.parametrize("name", ["secrets.toml", "authkeys"])
def test_private_files_missing_or_strange(tmp_path: pathlib.Path, name: str) -> None:
    path = written(tmp_path)
    (tmp_path / name).unlink()
    ((file, _, what, _),) = mistakes(path)
    assert file == name
    assert "is missing" in what
    (tmp_path / name).mkdir()
    assert "not a regular file" in mistakes(path)[0][2]
    (tmp_path / name).rmdir()
    (tmp_path / name).write_bytes(b"#" * (1 << 17))
    (tmp_path / name).chmod(0o600)
    assert "larger" in mistakes(path)[0][2]


@pytest.mark.parametrize(
    ("secrets", "line", "sentence"),
    [
        ("", None, "mirror is missing"),
        ("[mirror]\n", 1, "mirror.r0 is missing"),
        ('[mirror]\nr0 = ""\n', 2, "is empty"),
        ("[mirror]\nr0 = 1234\n", 2, "must be a text"),
        ('[mirror]\nr0 = "a"\nr1 = "b"\n', 3, "no key 'r1'"),
        (f'[mirror]\nr0 = "{"x" * 65}"\n', 2, "longer than 64"),
        ("[mirror\n", 1, "not TOML"),
    ],
)
def test_secrets(tmp_path: pathlib.Path, secrets: str, line: int | None, sentence: str) -> None:
    ((file, at, what, _),) = mistakes(written(tmp_path, secrets=secrets))
    assert (file, at) == ("secrets.toml", line)
    assert sentence in what


@pytest.mark.parametrize(
    ("authkeys", "line", "sentence"),
    [
        ("", None, "which key signs"),
        ("auth 1\n", 1, "no key 1"),
        ("auth\n1 crc\n", 1, "names no key"),
        ("auth 1 2\n1 crc\n", 1, "names no key"),
        ("auth 1\nauth 2\n1 crc\n", 2, "second line auth"),
        ("auth 1\n1 sha1\n", 2, "has no text"),
        ("auth 1\n1 sha9 word\n", 2, "no known method"),
        ("auth 1\n1 sha1 two words\n", 2, "more than one word"),
        ("auth 1\n1 crc\n1 crc\n", 3, "twice"),
        ("auth 1\n\n# comment\nx 1\n1 crc\n", 4, "begins no line"),
        ("auth 1\n99 crc\n1 crc\n", 2, "begins no line"),
    ],
)
def test_authkeys(tmp_path: pathlib.Path, authkeys: str, line: int | None, sentence: str) -> None:
    ((file, at, what, _),) = mistakes(written(tmp_path, authkeys=authkeys))
    assert (file, at) == ("authkeys", line)
    assert sentence in what


def test_authkeys_as_the_original_reads_them(tmp_path: pathlib.Path) -> None:
    text = "  # first\n\n 3 md5\tse#cret # a comment\n2 crc # none\nauth 3 # this one\n"
    keys = load(written(tmp_path, authkeys=text)).authkeys
    assert (keys.signing.number, keys.signing.method, keys.signing.secret) == (3, "md5", "se#cret")
    assert keys.accepted[2].secret == ""


def test_a_service_without_a_mirror_is_guarded_by_nobody_and_that_is_said(tmp_path: pathlib.Path) -> None:
    alone = (
        '[services.ip]\nprefer = "nodo1"\n[[services.ip.resources]]\ntype = "address"\naddress = "192.168.0.77/24"\n'
    )
    said = warnings(load(written(tmp_path, RIGHT + alone + 'link = "users"\n')))
    (sentence,) = (sentence for sentence in said if "has no mirror" in sentence)
    assert sentence.startswith("Service ip has no mirror: a server that sees the other one fall silent starts it")


def test_two_services_may_not_share(tmp_path: pathlib.Path) -> None:
    again = RIGHT[RIGHT.index("[services.web]") :].replace("services.web", "services.web2")
    found = mistakes(written(tmp_path, RIGHT + again))
    text = "\n".join(what for _, _, what, _ in found)
    for sentence in ("mirror 'r0' is already used by", "mountpoint '/srv/relevo' is already", "id 'files' is already",
                     "192.168.0.29 already belongs", "TCP port 80 is already"):  # fmt: skip
        assert sentence in text


def test_no_mirror_needs_no_secrets(tmp_path: pathlib.Path) -> None:
    toml = RIGHT[: RIGHT.index("[mirrors.r0]")].replace('disks = { r0 = "/dev/relevo/r0" }\n', "")
    path = written(tmp_path, toml)
    (tmp_path / "secrets.toml").unlink()
    assert load(path).mirrors == {}


@pytest.mark.parametrize(
    "options", [Options(), Options(profile="fast", heartbeat={}, alone="ask", mirror={"port": 7000})]
)
def test_what_the_lab_writes_is_right(tmp_path: pathlib.Path, options: Options) -> None:
    secrets = new_secrets()
    config = load(written(tmp_path, configuration(options), secrets.secrets_toml, secrets.authkeys))
    assert config.mirrors["r0"].alone == options.alone
    assert config.services["web"].prefer == "nodo1"
    assert config.mirrors["r0"].options.verify_alg, "`relevo mirror verify` can be tried in a lab"


def test_a_witness_and_its_key(tmp_path: pathlib.Path) -> None:
    toml = RIGHT + WITNESS + 'lease = "5 s"\n'
    config = load(written(tmp_path, toml, secrets=SECRETS + '[witness]\nkey = "k"\n'))
    assert config.witness == Witness(address="192.168.0.30", key="k", lease_ms=5000)
    assert load(written(tmp_path)).witness is None


@pytest.mark.parametrize(
    ("lines", "secrets", "mistake"),
    [
        ("", "", "witness is missing"),
        ("", "[witness]\n", "witness.key is missing"),
        ('timeout = "3 s"\n', '[witness]\nkey = "k"\n', "not shorter than lease"),
        ('lease = "2900 ms"\n', '[witness]\nkey = "k"\n', "witness.lease is too short"),
        ('lease = "1 h"\n', '[witness]\nkey = "k"\n', "witness.lease is too long"),
        ("prot = 9\n", '[witness]\nkey = "k"\n', "Did you mean 'port'"),
        ('address = "witness..example.org"\n', '[witness]\nkey = "k"\n', "witness.address is no address or name"),
        (f'address = "{"x" * 64}.org"\n', '[witness]\nkey = "k"\n', "witness.address is no address or name"),
        ('address = "a b"\n', '[witness]\nkey = "k"\n', "witness.address is no address or name"),
    ],
)
def test_mistakes_about_the_witness(tmp_path: pathlib.Path, lines: str, secrets: str, mistake: str) -> None:
    table = "[witness]\n" if lines.startswith("address") else WITNESS
    with pytest.raises(ConfigErrors, match=mistake):
        load(written(tmp_path, RIGHT + table + lines, secrets=SECRETS + secrets))


@pytest.mark.parametrize(
    ("further", "suspend", "mistake"),
    [(WITNESS, "1 s", "before the witness"), ("FENCING", "2 s", "could be fenced"), (WITNESS, "1001 ms", "")],
)
def test_writes_that_wait_do_not_fail_before_a_permission_can_come(
    tmp_path: pathlib.Path, further: str, suspend: str, mistake: str
) -> None:
    toml = RIGHT.replace('alone = "risk"', f'alone = "ask"\nsuspend = "{suspend}"')
    toml += further.replace("FENCING", FENCING)
    secrets = SECRETS + ('[witness]\nkey = "k"\n' if further == WITNESS else "")
    if not mistake:
        assert load(written(tmp_path, toml, secrets=secrets)).mirrors["r0"].suspend_ms == 1001
        return
    with pytest.raises(ConfigErrors, match=mistake):
        load(written(tmp_path, toml, secrets=secrets))


FENCING = """
[fencing]
delay = "3 s"
[[nodes.nodo1.fencing]]
agent = "fence_ipmilan"
parameters = { ip = "10.0.0.9", username = "relevo" }
[[nodes.nodo1.fencing]]
agent = "/usr/local/sbin/fence_bar"
level = 2
action = "off"
timeout = "10 s"
"""


def test_fence_devices_and_their_secrets(tmp_path: pathlib.Path) -> None:
    config = load(written(tmp_path, RIGHT + FENCING, secrets=SECRETS + '[fencing.nodo1]\npassword = "p"\n'))
    first, second = config.nodes["nodo1"].fencing
    assert first.parameters == {"ip": "10.0.0.9", "username": "relevo", "password": "p"}
    assert (second.level, second.action, second.timeout_ms) == (2, "off", 10_000)
    assert config.fencing.delay_ms == 3000
    asking = (RIGHT + FENCING).replace('alone = "risk"', 'alone = "ask"')
    assert "nodo2 cannot be fenced" in "\n".join(warnings(load(written(tmp_path, asking))))


@pytest.mark.parametrize(
    ("toml", "secrets", "mistake"),
    [
        ("[[nodes.nodo1.fencing]]\n", "", r"fencing\[1\].agent is missing"),
        ('[[nodes.nodo1.fencing]]\nagent = "x"\naction = "of"\n', "", "Did you mean 'off'"),
        ('[[nodes.nodo1.fencing]]\nagent = "x"\nparameters = { action = "on" }\n', "", "given by Relevo itself"),
        ("", '[fencing.nodo2]\npassword = "p"\n', "no node with a fence device"),
    ],
)
def test_mistakes_about_fencing(tmp_path: pathlib.Path, toml: str, secrets: str, mistake: str) -> None:
    with pytest.raises(ConfigErrors, match=mistake):
        load(written(tmp_path, RIGHT + toml, secrets=SECRETS + secrets))


PING = """
[ping]
interval = "500 ms"
deadping = "4 s"
settle = "30 s"
[ping.targets]
router = ["192.168.0.1"]
outside = ["192.0.2.1", "192.0.2.2"]
"""


def test_ping_targets_and_what_they_do_not_do(tmp_path: pathlib.Path) -> None:
    config = load(written(tmp_path, RIGHT + PING))
    assert config.ping.targets["outside"] == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
    assert (config.ping.interval_ms, config.ping.deadping_ms, config.ping.settle_ms) == (500, 4000, 30_000)
    assert "(router, outside) take no witness's place" in "\n".join(warnings(config))
    witnessed = load(written(tmp_path, RIGHT + PING + WITNESS, secrets=SECRETS + '[witness]\nkey = "k"\n'))
    assert "witness's place" not in "\n".join(warnings(witnessed))


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ("[ping]\n", "ping.targets is missing"),
        ("[ping.targets]\n", "ping.targets is empty"),
        ('[ping.targets]\nr = ["router"]\n', "'router', which is not an IPv4 address"),
        ("[ping.targets]\nr = []\n", "ping.targets.r names no address"),
        ('[ping.targets]\nr = ["127.0.0.1"]\n', "no other machine's address"),
        ('[ping.targets]\nr = ["192.168.0.28"]\n', "192.168.0.28 of the ping target 'r' belongs to node 'nodo2'"),
        ('[ping.targets]\nr = ["192.168.0.29"]\n', "belongs to service 'web'"),
        ('[ping]\ninterval = "50 ms"\ntargets = { r = ["192.168.0.1"] }\n', "ping.interval is too short"),
        (
            '[ping]\ndeadping = "4 s"\ntargets = { r = ["192.168.0.1"] }\n',
            "ping.deadping is shorter than deadtime and 4 int",
        ),
        ('[ping]\nsettle = "3 s"\ntargets = { r = ["192.168.0.1"] }\n', "ping.settle is shorter than 4 intervals"),
    ],
)
def test_mistakes_about_ping_targets(tmp_path: pathlib.Path, lines: str, mistake: str) -> None:
    with pytest.raises(ConfigErrors, match=mistake):
        load(written(tmp_path, RIGHT + lines))


SLOW = RIGHT.replace('deadtime = "2 s"', 'deadtime = "10 s"').replace('initdead = "10 s"', 'initdead = "20 s"')
WATCHDOG = '[watchdog]\ndevice = "/dev/watchdog"\n'


def test_a_watchdog_resets_before_the_other_node_takes_over(tmp_path: pathlib.Path) -> None:
    assert load(written(tmp_path)).watchdog is None
    found = load(written(tmp_path, SLOW + WATCHDOG)).watchdog
    assert found is not None
    assert (str(found.device), found.timeout_ms, found.longest_ms) == ("/dev/watchdog", 9000, 9800)


@pytest.mark.parametrize(
    ("toml", "mistake"),
    [
        (RIGHT + WATCHDOG, r"deadtime less keepalive \(1.8 s\).*needs 3.0 s.*Write deadtime = \"3.2 s\" or longer"),
        (SLOW + WATCHDOG + 'timeout = "10 s"\n', r"longer than deadtime less keepalive \(9.8 s\).*protect nothing"),
        (SLOW + WATCHDOG + 'timeout = "2 s"\n', "so short that a busy server would be reset"),
        (SLOW + WATCHDOG + 'timeout = "4500 ms"\n', "no whole number of seconds"),
        (SLOW + '[watchdog]\ndevice = "watchdog"\n', "not an absolute path"),
    ],
)
def test_mistakes_about_the_watchdog(tmp_path: pathlib.Path, toml: str, mistake: str) -> None:
    with pytest.raises(ConfigErrors, match=mistake):
        load(written(tmp_path, toml))


def test_the_example_of_the_documentation_is_right(tmp_path: pathlib.Path) -> None:
    page = pathlib.Path(__file__).parents[2] / "docs/internals/configuration.md"
    toml, secrets, keys = (
        part.partition("```")[0] for part in re.split(r"```(?:toml)?\n(?=\[|auth)", page.read_text())[1:4]
    )
    config = load(written(tmp_path, toml, secrets=secrets, authkeys=keys))
    assert set(config.nodes) == {"nodo1", "nodo2"}
    assert list(warnings(config)) == [sentence for sentence in warnings(config) if 'alone = "risk"' in sentence]
