"""A drbd.conf named by relevo.toml, a drbd.conf without any relevo.toml, and drbd's options in relevo.toml."""

from __future__ import annotations

import pathlib

import msgspec
import pytest
import typer
from test_config_load import RIGHT, SECRETS, mistakes, written
from typer.testing import CliRunner

import drbd_conf_files as files
from relevo.base.paths import Paths
from relevo.cli import mirror_conf
from relevo.cli.check import check
from relevo.cli.context import context
from relevo.config.draft_mirror import OPTION_KEYS
from relevo.config.drbd.options import HANDLERS
from relevo.config.drbd_options import OWN_DEFAULTS, DrbdOptions
from relevo.config.errors import UnknownNode
from relevo.config.load import hash_of, load, warnings
from relevo.config.site import NoDiskHere, NoSuchMirror, configured_by_drbd, find_site, site_of, sites_here

HOSTS = files.resource('net { cram-hmac-alg sha256; shared-secret "of drbd.conf"; timeout 50; }').replace(
    "192.168.0.27", "10.27.0.1"
)
DRBD = HOSTS.replace("192.168.0.28", "10.27.0.2")
NO_DISKS = "".join(line for line in RIGHT.splitlines(keepends=True) if not line.startswith("disks"))
BY_DRBD = NO_DISKS.replace('link = "cross"\nport = 7788\nalone = "risk"\n', 'drbd = "{path}"\nalone = "risk"\n')


def both(folder: pathlib.Path, toml: str = BY_DRBD, drbd: str = DRBD) -> pathlib.Path:
    """A relevo.toml that names a drbd.conf beside it."""
    folder.mkdir(exist_ok=True)
    conf = folder / "drbd.conf"
    conf.write_text(drbd)
    return written(folder, toml.replace("{path}", str(conf)), "[mirror]\n")


# ---- relevo.toml names a drbd.conf ---------------------------------------------------------------------------------


def test_drbd_conf_says_address_port_disk_and_options(tmp_path: pathlib.Path) -> None:
    config = load(both(tmp_path))
    mirror = config.mirrors["r0"]
    assert (mirror.link, mirror.port, mirror.secret, mirror.alone) == ("cross", 7793, "of drbd.conf", "risk")
    assert (mirror.timeout_ms, mirror.options.ko_count) == (5000, 7)
    assert {name: node.disks for name, node in config.nodes.items()} == {
        "nodo1": {"r0": pathlib.Path("/dev/sda6")},
        "nodo2": {"r0": pathlib.Path("/dev/sda6")},
    }
    here = site_of(config, "nodo2", "r0")
    assert (here.own.pair, here.other.pair) == (("10.27.0.2", 7793), ("10.27.0.1", 7793))
    assert (here.device, here.minor, here.source) == (pathlib.Path("/dev/drbd0"), 0, tmp_path / "drbd.conf")
    assert hash_of(config) == config.hash
    assert load(both(tmp_path / "elsewhere")).hash == config.hash, "where the files lie is no difference"
    assert load(both(tmp_path, drbd=DRBD.replace("timeout 50", "timeout 40"))).hash != config.hash


def test_a_secret_that_others_can_read_is_warned_of(tmp_path: pathlib.Path) -> None:
    path = both(tmp_path)
    conf = tmp_path / "drbd.conf"
    for mode, told in ((0o644, 1), (0o640, 1), (0o600, 0)):
        conf.chmod(mode)
        found = [sentence for sentence in warnings(load(path)) if "others than its owner can read" in sentence]
        assert len(found) == told, oct(mode)
    assert load(path).mirrors["r0"].secret == "of drbd.conf"


def test_what_only_relevo_toml_can_say_stays_there(tmp_path: pathlib.Path) -> None:
    more = BY_DRBD.replace('alone = "risk"', 'suspend = "5 s"\nresume = false')
    mirror = load(both(tmp_path, more)).mirrors["r0"]
    assert (mirror.alone, mirror.suspend_ms, mirror.resume) == ("ask", 5000, False)


def test_a_secret_file_is_not_needed(tmp_path: pathlib.Path) -> None:
    path = both(tmp_path)
    (tmp_path / "secrets.toml").unlink()
    assert load(path).mirrors["r0"].secret == "of drbd.conf"


def test_warnings_of_the_drbd_conf_are_among_ours(tmp_path: pathlib.Path) -> None:
    config = load(both(tmp_path, drbd=DRBD.replace("timeout 50;", "timeout 50; allow-two-primaries;")))
    assert any("allow-two-primaries has no effect" in sentence for sentence in warnings(config))


@pytest.mark.parametrize(
    ("change", "drbd", "what"),
    [
        ({'alone = "risk"': "port = 7790"}, {}, "mirrors.r0.port is for {path} to say, which configures this mirror."),
        ({'alone = "risk"': 'protocol = "A"'}, {}, "mirrors.r0.protocol is for {path} to say"),
        ({"[mirrors.r0]": "[mirrors.r1]"}, {}, "{path} has no resource 'r1'."),
        ({}, {"on nodo2": "on nodo3"}, "{path} names the host 'nodo3', which is no node."),
        ({}, {"10.27.0.2": "10.28.0.2"}, "{path} gives nodo2 the address 10.28.0.2; here it has 192.168.0.28 on users"),
        ({}, {"10.27.0.2": "192.168.0.28"}, "The two addresses in {path} are on two links."),
        (
            {"[nodes.nodo2]\n": '[nodes.nodo2]\ndisks = { r0 = "/dev/sdb1" }\n'},
            {},
            "{path} says /dev/sda6 for nodo2, this says /dev/sdb1.",
        ),
        (
            {"[nodes.nodo2]\n": '[nodes.nodo2]\nmeta_disks = { r0 = "/dev/sdb1" }\n'},
            {},
            "{path} says internal for nodo2, this says /dev/sdb1.",
        ),
        ({}, {"timeout 50": "timeuot 50"}, "The section net has no option 'timeuot'."),
        ({}, {"cram-hmac-alg sha256": "cram-hmac-alg sha512"}, "The hash 'sha512' of cram-hmac-alg"),
        ({"{path}": "/no/such/drbd.conf"}, {}, "There is no such file."),
    ],
)
def test_conflicts_are_named(change: dict[str, str], drbd: dict[str, str], what: str, tmp_path: pathlib.Path) -> None:
    toml, conf = BY_DRBD, DRBD
    for old, new in change.items():
        assert old in toml
        toml = toml.replace(old, new)
    for old, new in drbd.items():
        assert old in conf
        conf = conf.replace(old, new)
    said = [sentence for _, _, sentence, _ in mistakes(both(tmp_path, toml, conf))]
    assert any(sentence.startswith(what.replace("{path}", str(tmp_path / "drbd.conf"))) for sentence in said), said


def test_both_sides_find_their_part_of_discard_node(tmp_path: pathlib.Path) -> None:
    config = load(both(tmp_path, drbd=DRBD.replace("timeout 50;", "after-sb-0pri discard-node-nodo1;")))
    assert site_of(config, "nodo1", "r0").mirror.options.after_sb_0pri == "discard-local"
    assert site_of(config, "nodo2", "r0").mirror.options.after_sb_0pri == "discard-remote"


# ---- no relevo.toml at all -----------------------------------------------------------------------------------------


def paths_of(folder: pathlib.Path) -> Paths:
    return Paths(folder / "etc", folder / "state", folder / "run", folder / "drbd.conf")


def test_a_mirror_runs_from_drbd_conf_alone(tmp_path: pathlib.Path) -> None:
    paths = paths_of(tmp_path)
    second = files.resource(name="a1").replace("drbd0", "drbd1").replace("7793", "7794").replace("sda6", "sda7")
    paths.drbd.write_text(second + DRBD)
    assert configured_by_drbd(paths)
    here = find_site(paths, "nodo1", "r0")
    assert (here.mirror.alone, here.cluster, here.peer) == ("risk", "drbd.conf", "nodo2")
    assert [site.mirror.name for site in sites_here(paths, "nodo1")] == ["r0", "a1"]
    assert sites_here(paths, "nodo3") == ()
    with pytest.raises(NoSuchMirror, match="There is no resource 'r9'"):
        find_site(paths, "nodo1", "r9")
    with pytest.raises(UnknownNode, match="This host is called 'nodo3'"):
        find_site(paths, "nodo3", "r0")


def test_what_cannot_be_mirrored_is_left_out_of_all(tmp_path: pathlib.Path) -> None:
    paths = paths_of(tmp_path)
    stacked = "resource r1 { stacked-on-top-of r0 { device /dev/drbd10; address 10.0.0.9:7788; } }"
    paths.drbd.write_text(DRBD + stacked)
    assert [site.mirror.name for site in sites_here(paths, "nodo1")] == ["r0"]


def test_floating_hosts_are_found_by_the_addresses_of_this_machine(tmp_path: pathlib.Path) -> None:
    paths = paths_of(tmp_path)
    paths.drbd.write_text(
        "resource r0 { device minor 2; disk /dev/sda7; meta-disk internal; "
        "floating 203.0.113.1:7802; floating 127.0.0.1:7802; }"
    )
    here = find_site(paths, "anything", "r0")
    assert (here.own.pair, here.other.pair) == (("127.0.0.1", 7802), ("203.0.113.1", 7802))


def test_relevo_toml_goes_first(tmp_path: pathlib.Path) -> None:
    paths = paths_of(tmp_path)
    paths.drbd.write_text(DRBD)
    written(paths.etc)
    assert find_site(paths, "nodo1", "r0").mirror.port == 7788
    with pytest.raises(NoSuchMirror):
        find_site(paths, "nodo1", "r1")
    toml = RIGHT.replace("r0", "r1") + "\n[nodes.nodo3]\n"
    toml += 'addresses = { users = "192.168.0.30", cross = "10.27.0.3" }\n'
    written(paths.etc, toml, SECRETS.replace("r0", "r1"))
    with pytest.raises(NoDiskHere):
        find_site(paths, "nodo3", "r1")


# ---- commands ------------------------------------------------------------------------------------------------------


def command(folder: pathlib.Path, *argv: str) -> tuple[int, str, str]:
    app = typer.Typer()

    @app.callback()
    def root(ctx: typer.Context) -> None:
        ctx.obj = context(paths_of(folder), "nodo1")

    app.command("check")(check)
    app.command("dump")(mirror_conf.dump)
    result = CliRunner().invoke(app, list(argv))
    return result.exit_code, result.stdout, result.stderr


def test_check_reads_a_drbd_conf(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "drbd.conf"
    danger = 'handlers { local-io-error "echo b > /proc/sysrq-trigger"; pri-lost "logger lost"; } protocol A;'
    path.write_text(DRBD.replace("net {", f"{danger} net {{ allow-two-primaries; "))
    path.chmod(0o644)
    for argv in (("--drbd", str(path)), ()):  # without relevo.toml it is the one that counts
        status, out, err = command(tmp_path, "check", *argv)
        assert (status, err) == (0, "")
        first, *named = out.splitlines()
        assert first == (
            "OK: resource r0: nodo1 (10.27.0.1:7793, /dev/sda6, meta-data internal) and "
            "nodo2 (10.27.0.2:7793, /dev/sda6, meta-data internal)."
        )
        for part in (
            "allow-two-primaries has no effect",
            "Mirror 'r0' uses protocol A",
            "Mirror 'r0' has alone = \"risk\"",
            "The handler local-io-error of mirror 'r0' resets or switches off the whole machine at once",
            f"others than its owner can read this secret; run chmod 600 {path}.",
        ):
            assert any(part in line for line in named), part
        assert not any("pri-lost" in line for line in named)


def test_a_drbd_conf_that_says_nothing_is_no_configuration(tmp_path: pathlib.Path) -> None:
    (tmp_path / "drbd.conf").write_text("global { usage-count no; }")
    status, _, err = command(tmp_path, "check")
    assert (status, f"{tmp_path}/etc/relevo.toml: There is no such file." in err) == (1, True)
    status, out, _ = command(tmp_path, "check", "--drbd", str(tmp_path / "drbd.conf"))
    assert (status, "has no resource" in out) == (0, True)


def test_check_refuses_a_wrong_drbd_conf_for_people_and_programs(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "drbd.conf"
    path.write_text(DRBD.replace("timeout 50", "timeuot 50"))
    status, out, err = command(tmp_path, "check")
    column = DRBD.index("timeout 50") + 1
    assert (status, out) == (1, "")
    assert err.startswith(f"{path}:1:{column}: The section net has no option 'timeuot'. Did you mean 'timeout'?\n")
    status, out, _ = command(tmp_path, "check", "--json")
    answer = msgspec.json.decode(out)
    assert (status, answer["ok"], answer["mistakes"][0]["column"]) == (1, False, column)


def test_dump_prints_all_or_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "drbd.conf").write_text("common { protocol B; }" + DRBD)
    status, out, _ = command(tmp_path, "dump")
    assert status == 0
    assert "common {\n    net {\n        protocol           B;" in out
    status, out, _ = command(tmp_path, "dump", "r0")
    assert (status, out.startswith("# resource r0 on nodo1: not ignored, not stacked\n")) == (0, True)
    assert command(tmp_path, "dump", "r1")[0] != 0


# ---- drbd's options in relevo.toml ---------------------------------------------------------------------------------

ALL = """
protocol = "A"
max_buffers = 4000
max_epoch_size = 100
size = "3 GiB"
sndbuf = "512 KiB"
rcvbuf = "1 MiB"
ko_count = 3
after_sb_0pri = "discard-zero-changes"
after_sb_1pri = "discard-secondary"
after_sb_2pri = "call-pri-lost-after-sb"
rr_conflict = "call-pri-lost"
always_asbp = true
verify_alg = "sha1"
csums_alg = "md5"
csums_after_crash_only = true
data_integrity_alg = "crc32c"
use_rle = false
tcp_cork = false
on_io_error = "call-local-io-error"
on_congestion = "pull-ahead"
congestion_fill = "2 MiB"
congestion_extents = 100
fencing = "resource-only"
al_updates = false
c_plan_ahead = "1 s"
c_delay_target = "500 ms"
c_fill_target = "1 MiB"
c_max_rate = "200 MiB"
c_min_rate = "4 MiB"
rs_discard_granularity = "64 KiB"
wfc_timeout = "1 min"
degr_wfc_timeout = "30 s"
outdated_wfc_timeout = "20 s"
disk_timeout = "5 s"
handlers = { split-brain = "/usr/local/sbin/tell", pri-lost = "logger lost" }
"""


def with_options(lines: str) -> str:
    return RIGHT.replace('alone = "risk"\n', f'alone = "risk"\n{lines}')


WITHOUT_KEY = {
    "discard_node",  # relevo.toml is the same on both servers; discard-local and discard-remote are not
    *("disk_barrier", "disk_flushes", "disk_drain", "md_flushes"),
}
"""Fields that only a drbd.conf sets; all but the first have no effect."""


def test_every_option_has_a_key(tmp_path: pathlib.Path) -> None:
    options = load(written(tmp_path, with_options(ALL))).mirrors["r0"].options
    changed = {
        field.name
        for field in msgspec.structs.fields(DrbdOptions)
        if getattr(options, field.name) != getattr(OWN_DEFAULTS, field.name)
    }
    assert changed == {field.name for field in msgspec.structs.fields(DrbdOptions)} - WITHOUT_KEY
    assert {line.split(" ", 1)[0] for line in ALL.split("\n") if line} == set(OPTION_KEYS)
    assert (options.sndbuf_bytes, options.c_max_rate_bytes) == (512 << 10, 200 << 20)
    assert (options.c_delay_target_ms, options.wfc_timeout_ms) == (500, 60_000)
    assert options.handlers == {"split-brain": "/usr/local/sbin/tell", "pri-lost": "logger lost"}


@pytest.mark.parametrize(
    ("lines", "every_ms", "at"),
    [
        ('verify_alg = "sha1"\nverify_every = "7 d"\nverify_at = "sun 3:00"\n', 7 * 86_400_000, "sun 03:00"),
        ('verify_alg = "sha1"\nverify_every = "12 h"\n', 43_200_000, ""),
        ('verify_every = "off"\nverify_at = "23:59"\n', 0, "23:59"),
        ("", 0, ""),
    ],
)
def test_a_schedule_of_verifies(lines: str, every_ms: int, at: str, tmp_path: pathlib.Path) -> None:
    schedule = load(written(tmp_path, with_options(lines))).mirrors["r0"].verify
    assert (schedule.every_ms, schedule.at) == (every_ms, at)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ('verify_every = "7 d"\n', "has no verify_alg to do it with."),
        ('verify_alg = "sha1"\nverify_every = "2 s"\n', "is too short."),
        ('verify_alg = "sha1"\nverify_at = "03:00"\n', "says when, but not how often."),
        ('verify_every = "off"\nverify_at = "24:00"\n', "is no time of the day: '24:00'."),
        ('verify_every = "off"\nverify_at = "sum 03:00"\n', "names no day of the week: 'sum'."),
        ('verify_every = "7"\n', "'7' is not a duration."),
    ],
)
def test_a_wrong_schedule_is_named(lines: str, what: str, tmp_path: pathlib.Path) -> None:
    (found,) = mistakes(written(tmp_path, with_options(lines)))
    assert found[2].endswith(what)


def test_nothing_said_is_our_own_default(tmp_path: pathlib.Path) -> None:
    assert load(written(tmp_path)).mirrors["r0"].options == OWN_DEFAULTS


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ('protocol = "D"', "cannot be 'D'.", ""),
        ('after_sb_0pri = "discard-older"', "cannot be 'discard-older'.", "Did you mean 'discard-older-primary'?"),
        ('verify_alg = "sha9"', "cannot be 'sha9'.", "Did you mean 'sha1'?"),
        ("sndbuf = 512", "has no unit: 512.", ""),
        ('on_congestion = "disconnect"', "mirror 'r0' has protocol C.", ""),
        ("ko_count = 201", "is 201.", "Write a number from 0 to 200."),
        ('handlers = { split-brian = "x" }', "is no handler.", "Did you mean 'split-brain'?"),
        ('verify_algorithm = "sha1"', "has no key 'verify_algorithm'.", "Did you mean 'verify_alg'?"),
    ],
)
def test_wrong_options_are_named(line: str, what: str, remedy: str, tmp_path: pathlib.Path) -> None:
    (found,) = mistakes(written(tmp_path, with_options(line + "\n")))
    assert found[2].endswith(what)
    assert remedy in found[3]


def test_risks_of_options_are_named(tmp_path: pathlib.Path) -> None:
    lines = 'protocol = "B"\nafter_sb_1pri = "discard-secondary"\n'
    lines += 'on_io_error = "pass_on"\nhandlers = { pri-lost = "reboot -f" }\n'
    named = warnings(load(written(tmp_path, with_options(lines))))
    keys = '[mirrors.r0] protocol = "C"', '[mirrors.r0] after_sb_1pri = "discard-secondary"'
    for part in (*keys, '[mirrors.r0] on_io_error = "pass_on"', '[mirrors.r0] alone = "ask"', "reboot -f"):
        assert any(part in sentence for sentence in named), part


def test_the_handlers_of_the_table_are_those_of_the_grammar() -> None:
    assert "split-brain" in HANDLERS
    assert len(HANDLERS) == len(set(HANDLERS)) == 12
