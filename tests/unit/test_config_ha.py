"""Heartbeat's ha.cf and haresources: what they say, what is wrong with them, the relevo.toml that means the same."""

from __future__ import annotations

import pathlib
import shutil
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relevo.cli.main import app
from relevo.config.ha.convert import Converted, Sources, convert
from relevo.config.ha.ha_cf import read_ha_cf
from relevo.config.ha.haresources import read_haresources
from relevo.config.ha.tree import Group, HaCf, Word
from relevo.config.load import load
from relevo.config.model import AddressResource, FilesystemResource, LsbResource, MirrorResource

HISTORIC = pathlib.Path(__file__).parent.parent / "data" / "historic"
SMALL = "bcast eth0\nnode nodo1 nodo2\n"


def read(tmp_path: pathlib.Path, text: str) -> HaCf:
    path = tmp_path / "ha.cf"
    path.write_text(text)
    return read_ha_cf(path)


def sentence(found: HaCf) -> str:
    (mistake,) = found.mistakes
    return str(mistake)


def test_the_historic_ha_cf() -> None:
    found = read_ha_cf(HISTORIC / "ha.d" / "ha.cf")
    assert not found.mistakes
    assert not found.warnings
    assert found.nodes == ["nodo1", "nodo2"]
    times = (found.keepalive_ms, found.warntime_ms, found.deadtime_ms, found.initdead_ms)
    assert times == (2000, 10_000, 30_000, 120_000)
    assert [(m.kind, m.interface, m.address, m.port) for m in found.media] == [
        ("bcast", "eth0", "", 694),
        ("ucast", "eth0", "192.168.0.28", 694),
    ]
    assert found.failback == "on"
    assert (found.logfile, found.debugfile, found.logfacility) == ("/var/log/ha-log", "/var/log/ha-debug", "local0")


@pytest.mark.parametrize(
    ("dead", "initdead_ms"), [("3", 12_000), ("6", 12_000), ("8", 16_000), ("10", 20_000), ("11", 11_000)]
)
def test_defaults_are_heartbeats(tmp_path: pathlib.Path, dead: str, initdead_ms: int) -> None:
    found = read(tmp_path, f"{SMALL}deadtime {dead}\n")
    assert (found.keepalive_ms, found.warntime_ms) == (1000, int(dead) * 500)
    assert found.initdead_ms == initdead_ms
    assert (found.failback, found.udpport, found.deadping_ms) == ("legacy", 694, int(dead) * 1000)


@pytest.mark.parametrize(
    ("written", "ms"), [("2", 2000), ("1500ms", 1500), ("500us", 1), ("2s", 2000), ("1min", 60_000), ("0.5", 500)]
)
def test_times_have_units(tmp_path: pathlib.Path, written: str, ms: int) -> None:
    assert read(tmp_path, f"{SMALL}keepalive {written}\ndeadtime 1h\n").keepalive_ms == ms


def test_everything_else_that_counts(tmp_path: pathlib.Path) -> None:
    text = (
        "udpport 695\nbcast eth0 eth1 # two cards\nmcast eth2 225.0.0.1 696 4 0\nnode a\tb\nauto_failback OFF\n"
        "ping 10.0.0.1 10.0.0.2\nping_group routers 10.0.0.3 10.0.0.4\nstonith_host * external/ssh a\n"
        "watchdog /dev/watchdog\n"
    )
    found = read(tmp_path, text)
    assert not found.mistakes
    assert [(m.kind, m.interface, m.port, m.ttl) for m in found.media] == [
        ("bcast", "eth0", 695, 1),
        ("bcast", "eth1", 695, 1),
        ("mcast", "eth2", 696, 4),
    ]
    assert (found.failback, found.pings) == ("off", ["10.0.0.1", "10.0.0.2"])
    assert found.ping_groups == {"routers": ("10.0.0.3", "10.0.0.4")}
    assert found.stonith == [("stonith_host", "*", "external/ssh", "a")]
    assert found.watchdog == "/dev/watchdog"


@pytest.mark.parametrize(
    "line", ["serial /dev/ttyS0", "baud 19200", "respawn hacluster x", "apiauth x uid=y", "crm on"]
)
def test_what_means_nothing_any_more_is_said_by_name(tmp_path: pathlib.Path, line: str) -> None:
    found = read(tmp_path, f"{SMALL}{line}\n")
    assert not found.mistakes
    (warning,) = found.warnings
    assert f"ha.cf:3: {line.partition(' ')[0]} has no effect" in warning


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("keepalife 2", (":3:", "'keepalife' is no directive", "'keepalive'")),
        ("keepalive soon", (":3:", "'soon' is no time")),
        ("keepalive 2 parsecs", ("'2parsecs' is no time",)),
        ("keepalive 0", ("keepalive is zero",)),
        ("keepalive", ("has no value",)),
        ("keepalive 20", ("too short for a keepalive of 20000 ms",)),
        ("initdead 10", ("initdead 10000 ms is shorter than deadtime",)),
        ("udpport 694", ("no effect on the media above",)),
        ("ucast eth0", ("ucast takes",)),
        ("ucast eth0 192.168.0.300", ("is no address",)),
        ("ucast eth0 225.0.0.1", ("not one machine's",)),
        ("mcast eth0 192.168.0.1 694 1 0", ("not a group",)),
        ("mcast eth0 225.0.0.1 694 0 0", ("ttl",)),
        ("auto_failback maybe", ("cannot be 'maybe'",)),
        ("node nodo1", ("there twice",)),
        ("node -x", ("no node's name",)),
        ("ping 1.2.3", ("is no address",)),
        ("ping_group x", ("ping_group takes",)),
        ("stonith_host *", ("too few words",)),
    ],
)
def test_mistakes_are_sentences_with_their_line(tmp_path: pathlib.Path, line: str, parts: tuple[str, ...]) -> None:
    said = sentence(read(tmp_path, f"{SMALL}{line}\n"))
    for part in parts:
        assert part in said


def test_a_file_that_is_none(tmp_path: pathlib.Path) -> None:
    assert "cannot be read" in sentence(read_ha_cf(tmp_path / "none"))
    (tmp_path / "ha.cf").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in sentence(read_ha_cf(tmp_path / "ha.cf"))
    assert len(read(tmp_path, "").mistakes) == 2


@given(st.text(max_size=300))
def test_no_text_breaks_the_readers(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "any"
        path.write_text(text, encoding="utf-8", errors="surrogateescape" if "\ud800" in text else "replace")
        read_ha_cf(path)
        read_haresources(path, ["nodo1"])


# ---------------------------------------------------------------- haresources


def test_the_historic_haresources() -> None:
    (group,), mistakes = read_haresources(HISTORIC / "ha.d" / "haresources", ["nodo1", "nodo2"])
    assert not mistakes
    assert (group.node, group.line) == ("nodo1", 1)
    assert group.words == (
        Word("IPaddr2", ("192.168.0.29/24/eth0",)),
        Word("drbddisk", ("r0",)),
        Word("Filesystem", ("/dev/drbd0", "/home/jorge/datos", "ext4")),
        Word("apache2", ()),
    )


def test_lines_go_on_and_addresses_stand_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "haresources"
    path.write_text("# a comment\nnodo1 10.0.0.9/24 \\\n  a::b # and one\n\nnodo2 c\nnodo3 d\nnodo1\n")
    groups, mistakes = read_haresources(path, ["nodo1", "nodo2"])
    assert [(group.line, [str(word) for word in group.words]) for group in groups] == [
        (2, ["IPaddr::10.0.0.9/24", "a::b"]),
        (5, ["c"]),
    ]
    assert ["'nodo3' is no node of ha.cf" in str(mistakes[0]), "nodo1 has no resource" in str(mistakes[1])] == [
        True
    ] * 2


# ---------------------------------------------------------------- relevo.toml


@pytest.fixture
def site(tmp_path: pathlib.Path) -> pathlib.Path:
    """The historic files, as they lie below /etc."""
    shutil.copytree(HISTORIC, tmp_path / "etc")
    for path in (tmp_path / "etc").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    keys = tmp_path / "etc" / "ha.d" / "authkeys"
    keys.write_text("auth 2\n2 sha1 HI!\n")
    keys.chmod(0o600)
    return tmp_path / "etc"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["--node", "nodo1", "import", *map(str, words)])


def test_the_historic_site_becomes_a_configuration_that_loads(site: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run(site / "ha.d", site / "drbd.d", "--into", tmp_path / "relevo")
    assert done.exit_code == 0, done.output
    config = load(tmp_path / "relevo" / "relevo.toml")
    assert {name: node.addresses for name, node in config.nodes.items()} == {
        "nodo1": {"eth0": IPv4Address("192.168.0.27")},
        "nodo2": {"eth0": IPv4Address("192.168.0.28")},
    }
    link = config.links["eth0"]
    assert (link.network, link.broadcast, link.unicast) == (IPv4Network("192.168.0.0/24"), True, True)
    beat = config.heartbeat
    assert (beat.keepalive_ms, beat.warntime_ms, beat.deadtime_ms, beat.initdead_ms) == (2000, 10_000, 30_000, 120_000)
    assert config.authkeys.signing.secret == "HI!"
    assert config.mirrors["r0"].port == 7793
    (service,) = config.services.values()
    assert (service.prefer, service.auto_failback) == ("nodo1", True)
    mirror, filesystem, apache, address = service.resources
    assert isinstance(mirror, MirrorResource)
    assert isinstance(filesystem, FilesystemResource)
    assert (filesystem.mirror, str(filesystem.mountpoint), filesystem.fstype) == ("r0", "/home/jorge/datos", "ext4")
    assert isinstance(apache, LsbResource)
    assert (apache.id, str(apache.script)) == ("apache2", "/etc/init.d/apache2")
    assert isinstance(address, AddressResource)
    assert address.address == IPv4Interface("192.168.0.29/24")
    again = run(site / "ha.d", site / "drbd.d", "--into", tmp_path / "relevo")
    assert "exists" in str(again.exception or again.output)


def test_each_line_says_where_it_comes_from(site: pathlib.Path) -> None:
    done = run(site / "ha.d", site / "drbd.conf")
    assert done.exit_code == 0
    for line in ('deadtime = "30 s"  # ha.cf:5 deadtime', "[links.eth0]  # ha.cf:9 bcast, ha.cf:10 ucast"):
        assert line in done.output
    assert '# [[services.service.resources]]\n# type = "files"\n# root = "/home/jorge/datos"' in done.output


def test_heartbeats_own_scripts_come_before_init_scripts_with_their_arguments(site: pathlib.Path) -> None:
    (site / "ha.d" / "resource.d").mkdir()
    (site / "ha.d" / "resource.d" / "MailTo").touch()
    (site / "ha.d" / "haresources").write_text('nodo1 MailTo::root@x::a"b nginx nginx\n')
    done = run(site / "ha.d", site / "drbd.conf")
    assert done.exit_code == 0
    assert f'script = "{site}/ha.d/resource.d/MailTo"\narguments = ["root@x", "a\\"b"]' in done.output
    assert 'id = "nginx"\nscript = "/etc/init.d/nginx"' in done.output
    assert 'id = "program3"' in done.output


def test_keys_that_others_can_read_are_refused(site: pathlib.Path) -> None:
    (site / "ha.d" / "authkeys").chmod(0o644)
    done = run(site / "ha.d")
    assert done.exit_code
    assert "authkeys" in str(done.exception or done.output)


def sources(**changes: Any) -> Sources:
    ha = HaCf(pathlib.Path("ha.cf"), warntime_ms=15_000, initdead_ms=30_000, nodes=["a", "b"])
    fields: dict[str, Any] = {
        "ha": ha,
        "groups": [],
        "authkeys": pathlib.Path("/etc/ha.d/authkeys"),
        "mirrors": {},
        "drbd": None,
        "me": "a",
        "own": {},
        "given": {},
    }
    return Sources(**(fields | changes))


def converted(tmp_path: pathlib.Path, text: str, **changes: Any) -> Converted:
    return convert(sources(ha=read(tmp_path, text), **changes))


def test_what_no_file_says_is_asked_for_and_can_be_given(tmp_path: pathlib.Path) -> None:
    text = "bcast eth0\nnode a b\n"
    found = converted(tmp_path, text)
    assert any("subnet of eth0 is not known" in sentence for sentence in found.missing)
    given = {"a": {"eth0": (IPv4Interface("10.0.0.1/16"),)}, "b": {"eth0": (IPv4Interface("10.0.0.2/16"),)}}
    found = converted(tmp_path, text, given=given)
    assert not found.missing
    assert 'network = "10.0.0.0/16"' in found.text
    assert "unicast = false" in found.text


def test_this_machines_address_counts_only_where_the_cluster_is(tmp_path: pathlib.Path) -> None:
    text = "ucast eth0 10.0.0.2\nnode a b\n"
    own = {"eth0": (IPv4Interface("172.16.0.9/24"), IPv4Interface("10.0.0.1/16"))}
    assert 'addresses = { eth0 = "10.0.0.1" }' in converted(tmp_path, text, own=own).text
    found = converted(tmp_path, text, own=own, me="elsewhere")
    assert 'network = "10.0.0.0/24"' in found.text
    assert [part for part in found.missing if "address of a on eth0" in part]
    assert "broadcast = false" in found.text


def test_ping_nodes_and_groups_become_targets_and_the_watchdog_stays(
    site: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = site / "ha.d" / "ha.cf"
    path.write_text(
        path.read_text()
        + "watchdog /dev/watchdog\ndeadping 45\nping 192.168.0.1\nping_group outside 192.0.2.1 192.0.2.2\n"
    )
    done = run(site / "ha.d", site / "drbd.d", "--into", tmp_path / "relevo")
    assert done.exit_code == 0, done.output
    config = load(tmp_path / "relevo" / "relevo.toml")
    assert config.watchdog is not None
    assert (str(config.watchdog.device), config.watchdog.timeout_ms) == ("/dev/watchdog", 28_000)
    ping = config.ping
    assert ping.targets == {
        "192.168.0.1": (IPv4Address("192.168.0.1"),),
        "outside": (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")),
    }
    assert (ping.interval_ms, ping.deadping_ms) == (2000, 45_000)
    assert "ping" not in done.output.partition("Left out")[2]


def test_a_multicast_group(tmp_path: pathlib.Path) -> None:
    text = "mcast eth0 225.0.0.1 695 4 0\nmcast eth1 225.0.0.2 694 1 0\nbcast eth1\nnode a b\n"
    given = {"a": {"eth0": (IPv4Interface("10.0.0.1/24"),), "eth1": (IPv4Interface("10.0.1.1/24"),)}}
    made = converted(tmp_path, text, given=given).text
    assert "unicast = false" in made
    assert 'multicast = "225.0.0.1"' in made
    assert "multicast_ttl = 4\nport = 695" in made
    assert made.count("broadcast = false") == 1


def test_a_service_that_would_lack_its_file_system_is_not_written(tmp_path: pathlib.Path) -> None:
    """The programs would start all the same, and work on the disk of whichever server they are on."""
    given = {"a": {"eth0": (IPv4Interface("10.0.0.1/24"),)}}
    text = "deadtime 3\nbcast eth0\nnode a b\nstonith_host * external/ssh a\n"
    groups = [Group("a", (Word("Filesystem", ("/dev/sdb1", "/srv", "ext4")), Word("apache2", ())), 1)]
    found = converted(tmp_path, text, groups=groups, given=given)
    assert any("Filesystem::/dev/sdb1" in sentence for sentence in found.missing)
    assert any("stonith_host" in sentence and "[[nodes.NAME.fencing]]" in sentence for sentence in found.left_out)


def test_what_is_left_out_is_said(tmp_path: pathlib.Path) -> None:
    text = "deadtime 3\nmcast eth0 225.0.0.1 694 1 0\nnode a b\nping fe80::1\nwatchdog /dev/w\nserial /dev/ttyS0\n"
    given = {"a": {"eth0": (IPv4Interface("10.0.0.1/24"),)}}
    left_out = "\n".join(converted(tmp_path, text, given=given).left_out)
    for word in ("ping", "watchdog", "serial"):
        assert word in left_out
