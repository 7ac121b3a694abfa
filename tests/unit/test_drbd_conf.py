"""drbd.conf: places and remedies of mistakes, includes, inheritance, and what a resource means to a mirror."""

from __future__ import annotations

import contextlib
import pathlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import drbd_conf_files as files
import drbd_conf_table
from relevo.config.drbd import load
from relevo.config.drbd.dump import dump, quote
from relevo.config.drbd.lexer import Kind, Lexed
from relevo.config.drbd.load import read
from relevo.config.drbd.options import KEYWORDS, OPTIONS, NotANumber, number
from relevo.config.drbd.places import MAX_MISTAKES
from relevo.config.drbd.site import site_of, two_sides
from relevo.config.drbd_options import DrbdOptions
from relevo.config.errors import ConfigErrors
from relevo.config.meta_disk import MetaDisk
from relevo.config.model import Mirror, MirrorSite

HISTORIC = pathlib.Path(__file__).parent.parent / "data" / "historic"


def written(folder: pathlib.Path, text: str, name: str = "drbd.conf") -> pathlib.Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mistakes(path: pathlib.Path) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        read(path, "nodo1")
    return [str(error) for error in caught.value.errors]


def notes(path: pathlib.Path) -> list[str]:
    return [str(note) for note in read(path, "nodo1").found.notes]


def site(path: pathlib.Path, me: str = "nodo1", name: str = "r0") -> MirrorSite:
    conf = read(path, me)
    resource = conf.resource(name)
    assert resource is not None
    found = site_of(conf, resource, me, lambda _host: False)
    assert found is not None
    return found


# ---- the historic files --------------------------------------------------------------------------------------------


def test_the_historic_resource_means_what_it_says() -> None:
    found = site(HISTORIC / "drbd.conf", "nodo2")
    assert found.own.pair == ("192.168.0.28", 7793)
    assert found.other.pair == ("192.168.0.27", 7793)
    assert (found.me, found.peer) == ("nodo2", "nodo1")
    assert (found.disk, found.device, found.minor) == (pathlib.Path("/dev/sda6"), pathlib.Path("/dev/drbd0"), 0)
    assert found.meta.kind == "internal"
    assert found.source == HISTORIC / "drbd.conf"
    halt = "echo o > /proc/sysrq-trigger ; halt -f"
    assert found.mirror == Mirror(
        name="r0",
        link="",
        port=7793,
        secret="123",
        hmac="sha1",
        alone="risk",
        timeout_ms=6000,
        ping_interval_ms=12_000,
        ping_timeout_ms=900,
        connect_interval_ms=12_000,
        al_extents=257,
        resync_rate_bytes=100 << 20,
        options=DrbdOptions(
            protocol="C",
            sndbuf_bytes=512 << 10,
            max_buffers=20_480,
            ko_count=7,
            after_sb_0pri="discard-older-primary",
            after_sb_1pri="violently-as0p",
            after_sb_2pri="disconnect",
            rr_conflict="disconnect",
            on_io_error="detach",
            c_max_rate_bytes=100 << 20,
            rs_discard_granularity_bytes=0,
            degr_wfc_timeout_ms=60_000,
            handlers={
                "pri-on-incon-degr": halt,
                "pri-lost-after-sb": halt,
                "local-io-error": halt,
                "pri-lost": 'echo primary DRBD lost | mail -s "DRBD Alert" adm@example.org',
            },
        ),
    )


def test_the_historic_quotation_marks_are_named_with_how_to_write_them() -> None:
    path = HISTORIC / "r0-as-it-stands.res"
    (said,) = mistakes(path)
    where, what, remedy = said.partition(
        ": This quotation mark ends the text that begins before it, but the text goes on. "
    )
    assert (where, bool(what)) == (f"{path}:8:46", True)
    meant = r'"echo primary DRBD lost | mail -s \"DRBD Alert\" adm@example.org"'
    assert remedy == f'Inside of a text write \\" instead of ": {meant}'


# ---- mistakes ------------------------------------------------------------------------------------------------------


SEVERAL = r"""1:10: The section global has no option 'usage-cont'. Did you mean 'usage-count'?
3:12: protocol does not know 'D'. Known here: A, B, C.
4:9: The section net has no option 'timeuot'. Did you mean 'timeout'?
4:30: ping-int is 500 s, outside of 1 to 120 s. Write 1 to 120 s.
5:19: after-sb-0pri does not know 'discard-oldest'. Did you mean 'discard-remote'?
5:46: A value of verify-alg is expected here, not 'disk'. {keyword}
5:71: This quoted text does not end on its line. {texts}
7:15: resync-rate needs a number, not '10X'. {suffixes}
7:20: The section disk has no option 'ping-int'. It belongs into the section net.
8:3: 'nett' has no place in a resource. Did you mean 'net'?
9:3: connection is of drbd 9, this is read as drbd 8.4 reads it. {mesh}
10:21: '/dev/sda' is no name of a drbd device. Write such as /dev/drbd0.
10:67: ':' is expected here, not ';'. Write ':'.
11:33: 'adress' has no place in a host section. Did you mean 'address'?
11:78: ';' is expected here, not '['. Write ';'.
12:14: The section handlers has no option 'pri-los'. Did you mean 'pri-lost'?
14:1: This }} closes nothing. Remove it, or find the section above that ends too early.
15:9: There is no file 'nothing.res' in {folder}. Create it, or remove this line."""


def test_several_mistakes_in_one_run_each_with_its_place_and_remedy(tmp_path: pathlib.Path) -> None:
    text = """\
global { usage-cont no; }
resource r0 {
  protocol D;
  net { timeuot 60; ping-int 500;
    after-sb-0pri discard-oldest; verify-alg disk; data-integrity-alg "sha1;
  }
  disk { rate 10X; ping-int 3; }
  nett { timeout 6; }
  connection { host a; path { x y; } }
  on nodo1 { device /dev/sda; disk /dev/sda6; address 192.168.0.27; meta-disk internal; }
  on nodo2 { device /dev/drbd0; adress 192.168.0.28:7793; meta-disk internal [0]; }
  handlers { pri-los "x"; }
}
}
include "nothing.res";
"""
    path = written(tmp_path, text)
    said = "\n".join(sentence.removeprefix(f"{path}:") for sentence in mistakes(path))
    assert said == SEVERAL.format(
        folder=tmp_path,
        keyword='disk is a keyword: as a value it stands in quotation marks ("disk").',
        texts=r"Quoted texts stand on one line, with \" and \\ for the two characters; comments begin with #.",
        suffixes="Write 1 to 4194304 KiB/s; K, M and G stand for 2^10, 2^20 and 2^30, s for 512.",
        mesh="Write the address of each host in its own section: on NAME { address …; }.",
    )


@pytest.mark.parametrize("text", [*files.REFUSED.values(), *files.STRICTER.values()])
def test_every_refusal_names_a_place_and_a_remedy(text: str, tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigErrors) as caught:
        read(path, "nodo1")
    for error in caught.value.errors:
        assert error.file == path
        assert error.line is not None
        assert error.column is not None
        assert error.mistake.endswith(".")
        assert error.remedy


def test_mistakes_have_a_bound(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, files.resource("net { " + "foo 1; " * 500 + "}"))
    assert len(mistakes(path)) == MAX_MISTAKES


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ("net { allow-two-primaries; }", "allow-two-primaries has no effect: two Primaries are never allowed here."),
        ("disk { resync-after r0; }", "resync-after has no effect"),
        ("startup { become-primary-on nodo1; }", "become-primary-on has no effect"),
        ("options { cpu-mask 3; }", "cpu-mask has no effect: systemd's CPUAffinity= does this."),
        ("disk { throttle-threshold 3; }", "throttle-threshold means nothing since drbd 8.3."),
        ("node-id 3;", "node-id is of drbd 9 and has no effect: there are two nodes."),
        (
            "net { ping-timeout 400; }",
            "ping-timeout is 400 tenths of a second, outside of 1 to 300 tenths of a second: the nearest",
        ),
        ("net { timeout 60; timeout 70; }", "timeout is set twice in one section: this one counts."),
        ("ignore-on nodo3;", "ignore-on has had no effect since drbd 8.3."),
    ],
)
def test_what_has_no_effect_is_warned_of_by_name(more: str, warned: str, tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, files.resource(more))
    assert any(warned in note for note in notes(path))
    assert all(note.startswith(f"{path}:1:") for note in notes(path))


def test_what_is_done_anyway_is_no_warning(tmp_path: pathlib.Path) -> None:
    more = "net { allow-two-primaries no; unplug-watermark 128; } disk { read-balancing prefer-local; }"
    assert notes(written(tmp_path, files.resource(more))) == []


def test_the_document_has_the_same_table() -> None:
    """`python tests/drbd_conf_table.py` writes it anew."""
    assert drbd_conf_table.written(drbd_conf_table.DOCUMENT.read_text()) == drbd_conf_table.tables()


def test_every_option_without_effect_says_why() -> None:
    for option in OPTIONS:
        if not option.honoured:
            assert len(option.without_effect.split()) > 2, option.name


# ---- files ---------------------------------------------------------------------------------------------------------


def test_includes_are_relative_to_their_file_in_order_and_once(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, 'include "d/*.res"; include "d/a.res"; include "d/none*"; include "d/more.conf";')
    written(
        tmp_path,
        files.resource(name="b", more="").replace("drbd0", "drbd1").replace("7793", "7794").replace("sda6", "sda7"),
        "d/b.res",
    )
    written(tmp_path, files.resource(name="a"), "d/a.res")
    written(tmp_path, "resource hidden {", "d/.hidden.res")
    written(tmp_path, 'include "e/x.res"; include "../drbd.conf";', "d/more.conf")
    written(tmp_path, "common { net { timeout 50; } }", "d/e/x.res")
    conf = read(path, "nodo1")
    assert [resource.name for resource in conf.resources] == ["a", "b"]
    assert site(path, name="b").mirror.timeout_ms == 5000
    assert [note.text for note in conf.found.notes] == [
        f"{tmp_path}/d/../drbd.conf includes itself: this does nothing."
    ]
    assert conf.resources[1].place.file == tmp_path / "d/b.res"


def test_includes_have_limits(tmp_path: pathlib.Path) -> None:
    for index in range(load.MAX_DEPTH + 1):
        written(
            tmp_path, f"include {index + 1}.conf;".replace("include ", 'include "').replace(";", '";'), f"{index}.conf"
        )
    (said,) = mistakes(tmp_path / "0.conf")
    assert f"includes deeper than {load.MAX_DEPTH}" in said
    written(tmp_path, "#" + "x" * load.MAX_FILE_BYTES)
    (said,) = mistakes(tmp_path / "drbd.conf")
    assert "too large" in said


def test_a_folder_a_pipe_and_a_missing_file_are_sentences(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in mistakes(tmp_path / "folder")[0]
    assert mistakes(tmp_path / "missing")[0].startswith(f"{tmp_path / 'missing'}: There is no such file.")


def test_comments_in_any_encoding_but_texts_in_utf_8(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "drbd.conf"
    path.write_bytes("# configuración\n".encode("latin-1") + files.resource().encode())
    assert site(path).mirror.name == "r0"
    path.write_bytes(files.resource('net { shared-secret "contraseña"; }').encode())
    assert site(path).mirror.secret == "contraseña"
    path.write_bytes(files.resource('net { shared-secret "contraseña"; }').encode("latin-1"))
    assert "not UTF-8" in mistakes(path)[0]


# ---- meaning -------------------------------------------------------------------------------------------------------


def test_what_is_not_said_is_as_in_drbd(tmp_path: pathlib.Path) -> None:
    found = site(written(tmp_path, files.resource())).mirror
    assert found == Mirror(
        name="r0",
        link="",
        port=7793,
        secret="",
        hmac="none",
        alone="risk",
        connect_interval_ms=10_000,
        options=DrbdOptions(c_max_rate_bytes=100 << 20, rs_discard_granularity_bytes=0),
    )


def test_units_are_those_of_each_option(tmp_path: pathlib.Path) -> None:
    more = """
        net { sndbuf-size 1M; congestion-fill 2K; timeout 45; ping-timeout 7; connect-int 3; protocol a; }
        disk { size 1G; resync-rate 10M; c-max-rate 2048; c-min-rate 3s; c-fill-target 1M; c-plan-ahead 15;
               c-delay-target 3; disk-timeout 50; al-extents 20; no-disk-flushes; }
        startup { wfc-timeout 90; }
    """
    found = site(written(tmp_path, files.resource(more))).mirror
    options = found.options
    assert (options.sndbuf_bytes, options.congestion_fill_bytes, options.size_bytes) == (1 << 20, 2 << 10, 1 << 30)
    assert (found.timeout_ms, found.ping_timeout_ms, found.connect_interval_ms) == (4500, 700, 3000)
    assert (found.resync_rate_bytes, options.c_max_rate_bytes, options.c_min_rate_bytes) == (10 << 20, 2 << 20, 2 << 10)
    assert (options.c_fill_target_bytes, options.c_plan_ahead_ms, options.c_delay_target_ms) == (1 << 20, 1500, 300)
    assert (options.disk_timeout_ms, options.wfc_timeout_ms, options.protocol) == (5000, 90_000, "A")
    assert found.al_extents == 67
    assert not options.disk_flushes


@pytest.mark.parametrize(
    ("controller", "rate"), [("", 0), ("c-plan-ahead 0;", 250 << 10), ("resync-rate 5M;", 5 << 20)]
)
def test_the_rate_bounds_when_it_is_said_or_when_the_controller_is_off(
    controller: str, rate: int, tmp_path: pathlib.Path
) -> None:
    assert site(written(tmp_path, files.resource(f"disk {{ {controller} }}"))).mirror.resync_rate_bytes == rate


def test_common_then_the_resource_then_the_volume(tmp_path: pathlib.Path) -> None:
    text = "common { net { timeout 40; ping-int 4; } disk { al-extents 101; c-max-rate 1M; on-io-error pass_on; } }"
    text += files.resource("net { timeout 50; } disk { al-extents 103; }").replace(
        "device /dev/drbd0; disk /dev/sda6;",
        "device /dev/drbd0; disk /dev/sda6; disk { c-max-rate 2M; }",
    )
    found = site(written(tmp_path, text)).mirror
    assert (found.timeout_ms, found.ping_interval_ms, found.al_extents) == (5000, 4000, 103)
    assert (found.options.c_max_rate_bytes, found.options.on_io_error) == (2 << 20, "pass_on")


def test_volume_options_that_lose_against_the_resource_are_named(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, files.ACCEPTED["volume 0 of the resource"])
    assert any("al-extents of volume 0 has no effect" in note for note in notes(path))


def test_suffixes_of_ports_and_indexes_count(tmp_path: pathlib.Path) -> None:
    text = files.resource().replace(":7793", ":7K").replace("meta-disk internal", "meta-disk /dev/m [100]")
    found = site(written(tmp_path, text))
    assert (found.own.port, found.mirror.port, found.meta.index) == (7168, 7168, 100)
    (said,) = mistakes(written(tmp_path, files.resource('handlers { pri-lost "a\0b"; }')))[:1]
    assert "NUL" in said


def test_each_host_has_its_own_disk_options(tmp_path: pathlib.Path) -> None:
    first, second = files.HOST_1, files.HOST_2.replace("disk /dev/sda6;", "disk /dev/sda6; disk { al-extents 301; }")
    path = written(tmp_path, f"resource r0 {{ {first} {second} disk {{ al-extents 201; }} }}")
    assert (site(path, "nodo1").mirror.al_extents, site(path, "nodo2").mirror.al_extents) == (201, 301)
    (resource,) = read(path, "nodo1").resources
    with pytest.raises(ConfigErrors, match="al-extents differs between the hosts"):
        two_sides(resource)


@pytest.mark.parametrize(
    ("meta", "place"),
    [
        ("meta-disk internal;", MetaDisk()),
        ("flexible-meta-disk internal;", MetaDisk()),
        ("meta-disk /dev/sdb1;", MetaDisk(kind="flexible", path=pathlib.Path("/dev/sdb1"))),
        ("flexible-meta-disk /dev/sdb1;", MetaDisk(kind="flexible", path=pathlib.Path("/dev/sdb1"))),
        ("meta-disk /dev/sdb1 [2];", MetaDisk(kind="external", path=pathlib.Path("/dev/sdb1"), index=2)),
    ],
)
def test_places_of_meta_data(meta: str, place: MetaDisk, tmp_path: pathlib.Path) -> None:
    assert site(written(tmp_path, files.resource().replace("meta-disk internal;", meta))).meta == place


def test_discard_node_is_local_on_one_side_and_remote_on_the_other(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, files.resource("net { after-sb-0pri discard-node-nodo2; }"))
    assert site(path, "nodo1").mirror.options.after_sb_0pri == "discard-remote"
    assert site(path, "nodo2").mirror.options.after_sb_0pri == "discard-local"


def test_ipv6_and_floating(tmp_path: pathlib.Path) -> None:
    found = site(written(tmp_path, files.ACCEPTED["IPv6"]))
    assert found.own.address == IPv6Address("fd01:2345:6789:abcd::1")
    assert found.other.address == IPv6Address("fe80::1%eth0")
    path = written(tmp_path, files.ACCEPTED["floating"])
    conf = read(path, "nodo1")
    (resource,) = conf.resources
    here = site_of(conf, resource, "nodo1", lambda host: str(host.address) == "10.1.1.32:7802")
    assert here is not None
    assert (here.own.address, here.disk) == (IPv4Address("10.1.1.32"), pathlib.Path("/dev/sdb"))
    assert site_of(conf, resource, "nodo1", lambda _host: False) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (files.resource("net { cram-hmac-alg sha512; }"), "The hash 'sha512' of cram-hmac-alg is not supported here."),
        (files.resource("net { verify-alg crc8; }"), "The hash 'crc8' of verify-alg is not supported here."),
        (files.resource('net { shared-secret "' + "x" * 65 + '"; }'), "shared-secret is longer than 64 bytes."),
        (
            files.resource("net { protocol C; on-congestion pull-ahead; }"),
            "on-congestion pull-ahead is for protocol A only, as in drbd.",
        ),
        (files.ACCEPTED["three hosts"], "Resource 'r0' has 3 hosts, a mirror has two."),
        (files.ACCEPTED["other families"], "The address family sdp is not supported here."),
        (files.ACCEPTED["documented"].replace("alice", "nodo1"), "nodo1 has 2 volumes, a mirror has one."),
        (files.resource(name="a/b"), "'a/b' cannot be the name of a mirror: it becomes part of file names."),
        (files.resource(name='".."'), "'..' cannot be the name of a mirror: it becomes part of file names."),
        (files.ACCEPTED["no volumes"], "nodo1 has 0 volumes, a mirror has one."),
        (
            files.resource().replace("disk /dev/sda6", "disk sda6"),
            "'sda6' is no whole path of a disk.",
        ),
        (
            files.resource() + "resource r1 { stacked-on-top-of r0 { device /dev/drbd10; address 10.0.0.9:7788; } }",
            "Resource 'r1' is stacked on top of 'r0': a mirror of a mirror is not supported here.",
        ),
    ],
)
def test_what_cannot_be_done_here_is_refused_by_name(text: str, why: str, tmp_path: pathlib.Path) -> None:
    conf = read(written(tmp_path, text), "nodo1")
    said = []
    for resource in conf.resources:
        try:
            site_of(conf, resource, "nodo1", lambda _host: True)
        except ConfigErrors as errors:
            said.extend(error.mistake for error in errors.errors)
    assert why in said


# ---- the dump ------------------------------------------------------------------------------------------------------


def test_one_resource_is_printed_alone(tmp_path: pathlib.Path) -> None:
    conf = read(written(tmp_path, "common { protocol A; }" + files.resource()), "nodo1")
    text = dump(conf, "nodo1", only="r0")
    assert text.startswith("# resource r0 on nodo1: not ignored, not stacked\n")
    assert "common" not in text
    assert "protocol           A;" in text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=80))
@example('"')
@example("\\")
@example("yes")
def test_quoted_texts_come_back(text: str) -> None:
    token, _ = Lexed(pathlib.Path("x"), quote(text)).tokens
    if token.kind is not Kind.BAD:  # longer than drbdadm takes
        assert token.value == text
        assert token.kind is Kind.TEXT or token.text not in KEYWORDS
    else:
        assert len(text.encode()) > 255


# ---- numbers -------------------------------------------------------------------------------------------------------


@given(st.text(max_size=30), st.sampled_from([option for option in OPTIONS if option.scale.unit]))
@example("99999999999999999999", OPTIONS[1])
@example("18446744073709551615G", OPTIONS[1])
def test_numbers_are_numbers_or_refused(text: str, option: object) -> None:
    scale = option.scale  # type: ignore[attr-defined]
    with contextlib.suppress(NotANumber):
        assert number(text, scale) >= 0
