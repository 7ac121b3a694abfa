"""drbdadm's words: exit codes, the text of /proc/drbd, command lines, events."""

from __future__ import annotations

import gzip
import pathlib
import re
from typing import Any

import pytest
from typer.testing import CliRunner

import drbd_conf_files as files
from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.errors import RelevoError
from relevo.cli.drbdadm import shim
from relevo.cli.drbdadm.change import drbd_size
from relevo.cli.drbdadm.life import _Limits
from relevo.cli.drbdadm.outcome import Exit, Usage, exit_code
from relevo.cli.drbdadm.procfs import proc_text
from relevo.cli.drbdadm.show import explained, status_text
from relevo.cli.drbdadm.stream import Differences
from relevo.cli.main import app
from relevo.config.site import NoSuchMirror

DATA = pathlib.Path(__file__).parents[1] / "data"
KERNEL = gzip.decompress((DATA / "proc-drbd-8.4.11.txt.gz").read_bytes()).decode()
HEAD = re.compile(
    r" (\d): cs:(\w+) ro:(\w+)/(\w+) ds:(\w+)/(\w+) (.) (.)(.)(.)(.)--\n"
    r"    ns:(\d+) nr:(\d+) dw:(\d+) dr:(\d+) al:(\d+) bm:(\d+) "
    r"lo:(\d+) pe:(\d+) ua:(\d+) ap:(\d+) ep:(\d+) wo:f oos:(\d+)\n"
    r"(?:\t\[[=>.]+\] [a-z']+: *([0-9.]+)% \((\d+)/(\d+)\)K\n"
    r"\tfinish: (\d+):(\d+):(\d+) speed: ([0-9,]+) \(([0-9,]+)\)(?: want: ([0-9,]+))? K/sec\n)?"
)
NAGIOS = re.compile(r" ([0-9]+): cs:([^ ]+) ro:([^ ]+) ds:([^ ]+)")
"""What checks written for Nagios look for."""


def kib(text: str | None) -> int:
    return int((text or "0").replace(",", "")) << 10


def state_of(found: re.Match[str]) -> dict[str, Any]:
    """The state that the kernel's text tells."""
    _, cs, role, peer, disk, peer_disk, _, susp, aftr, peer_isp, user = found.groups()[:11]
    names = ("ns", "nr", "dw", "dr", "al", "bm", "lo", "pe", "ua", "ap", "ep")
    counters = {name: int(found[12 + at]) for at, name in enumerate(names)}
    state: dict[str, Any] = {
        "connection": cs,
        "role": role,
        "peer_role": peer,
        "disk": disk,
        "peer_disk": peer_disk,
        "suspended": False,
        "io_suspended": susp == "s",
        "resync_waits": aftr == "a",
        "peer_paused": peer_isp == "p",
        "paused": user == "u",
        "counters": {**counters, "wo": "f"},
        "out_of_sync_bytes": kib(found[23]),
        "resync": None,
    }
    if found[24]:
        left, total = kib(found[25]), kib(found[26])
        hours, minutes, seconds = (int(found[at]) for at in (27, 28, 29))
        state["verify" if cs.startswith("Verify") else "resync"] = {
            "done_bytes": total - left,
            "total_bytes": total,
            "eta_ms": ((hours * 60 + minutes) * 60 + seconds) * 1000,
            "rate_bytes": kib(found[30]),
            "average_bytes": kib(found[31]),
            "wanted_bytes": kib(found[32]),
        }
    return state


VERBS = ("primary", "connect", "create-md", "resize", "verify", "role", "adjust", "wait-connect")
CASES = list(HEAD.finditer(KERNEL))


def test_the_recording_is_read_whole() -> None:
    assert len(CASES) >= 20
    assert {found[2] for found in CASES} >= {
        "WFConnection",
        "Connected",
        "SyncSource",
        "SyncTarget",
        "VerifyS",
        "VerifyT",
    }


@pytest.mark.parametrize("found", CASES, ids=lambda found: found[2])
def test_a_state_is_printed_as_the_kernel_prints_it(found: re.Match[str]) -> None:
    text = proc_text([(0, "C", state_of(found))])
    version, _, rest = text.split("\n", 2)
    assert version == "version: 8.4.11 (api:1/proto:86-101)"
    assert rest == found[0]


def test_mirrors_stand_in_the_order_of_minors_and_holes_show() -> None:
    up = state_of(CASES[-1])
    gone = {**up, "connection": "StandAlone", "disk": "Diskless", "role": "Secondary"}
    text = proc_text([(0, "C", None), (3, "A", up), (10, "C", gone)])
    lines = text.splitlines()
    assert lines[2] == " 0: cs:Unconfigured"
    assert lines[3] == ""
    assert [found[1] for found in map(NAGIOS.match, lines) if found] == ["3"]
    assert lines[-2:] == ["", "10: cs:Unconfigured"]


def test_a_large_resync_is_counted_in_megabytes() -> None:
    run = {"done_bytes": 0, "total_bytes": 5 << 30, "rate_bytes": 1234 << 20, "eta_ms": 4_000_000}
    state = {**state_of(CASES[-1]), "connection": "SyncSource", "resync": run}
    lines = proc_text([(0, "C", state)]).splitlines()
    assert lines[-2] == "\t[>....................] sync'ed:  0.1% (5120/5120)M"
    assert lines[-1] == "\tfinish: 1:06:40 speed: 1,263,616 (1,263,616) K/sec"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DaemonUnreachable("gone"), Exit.NOT_CONFIGURED),
        (NoSuchMirror("r9"), Exit.USAGE),
        (Usage("what?"), Exit.USAGE),
        (Refused("PeerIsPrimary", "no"), Exit.STATE),
        (Refused("DeviceBusy", "no"), Exit.STATE),
        (Refused("DataNotUpToDate", "no"), Exit.NO_UP_TO_DATE_DISK),
        (Refused("NeedStandAlone", "no"), Exit.NOT_CONFIGURED),
        (Refused("NoMetadata", "no"), Exit.USAGE),
        (RelevoError("something else"), Exit.FAILED),
    ],
)
def test_exit_codes(error: RelevoError, code: Exit) -> None:
    assert exit_code(error) is code


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("primary r0", "primary --quiet r0"),
        ("-- --overwrite-data-of-peer primary r0", "primary --quiet --overwrite-data-of-peer r0"),
        ("-- -o primary all", "primary --quiet -o all"),
        ("primary --force r0", "primary --quiet --force r0"),
        ("-- --discard-my-data connect r0", "connect --discard-my-data r0"),
        ("connect --discard-my-data r0 r1", "connect --discard-my-data r0 r1"),
        ("-- --force create-md r0", "create-md --force r0"),
        ("-c /etc/other.conf role r0", "role r0"),
        ("--config-file=/etc/other.conf role r0", "role r0"),
        ("status", "drbd-status"),
        ("-- --size=10G resize r0", "resize --size=10G r0"),
        ("-- -s 10G resize r0", "resize -s 10G r0"),
        ("-- --start 1M --stop 2M verify r0", "verify --start 1M --stop 2M r0"),
        ("-- -o nonsense r0", "nonsense -o r0"),
        ("-c/etc/other.conf -v role r0", "role r0"),
        ("adjust-with-progress all", "adjust all"),
        ("wait-con-int", "wait-connect all"),
        ("resize r0 --size 10G", "resize r0 --size 10G"),
        ("wait-connect --wfc-timeout 5 -- r0", "wait-connect --wfc-timeout 5 r0"),
    ],
)
def test_drbdadms_command_lines(words: str, ours: str) -> None:
    line = shim.understood(words.split(), VERBS)
    assert " ".join(line.arguments) == ours
    assert line.config == ("/etc/other.conf" if "other.conf" in words else "")


@pytest.mark.parametrize("words", ["", "-c", "--nonsense role r0", "-S role r0"])
def test_what_drbdadm_would_not_know_either(words: str) -> None:
    with pytest.raises(shim.UsageWrong):
        shim.understood(words.split(), VERBS)


def test_the_executable_named_drbdadm(tmp_path: pathlib.Path) -> None:
    places = ["--etc", str(tmp_path), "--run", str(tmp_path)]
    run = CliRunner().invoke(app, [*places, "mirror", "drbdadm", "--", "nonsense", "r0"])
    assert (run.exit_code, "Unknown command 'nonsense'" in run.output) == (1, True)
    run = CliRunner().invoke(app, [*places, "mirror", "drbdadm", "--", "-d", "--", "-o", "primary", "r0"])
    assert (run.exit_code, run.output) == (0, "relevo mirror primary --quiet -o r0\n")
    run = CliRunner().invoke(app, [*places, "mirror", "drbdadm", "--", "--version"])
    assert (run.exit_code, "DRBDADM_VERSION=8.4.11\n" in run.output) == (0, True)
    run = CliRunner().invoke(app, [*places, "mirror", "drbdadm", "--"])
    assert run.exit_code == 1


@pytest.mark.parametrize(("mirrors", "code"), [(("r0",), 10), (("r0", "r1"), 1), ((), 1)])
def test_the_only_mirror_need_not_be_named_where_nothing_is_given_up(
    tmp_path: pathlib.Path, mirrors: tuple[str, ...], code: int
) -> None:
    conf = tmp_path / "drbd.conf"
    texts = [files.resource(name=name) for name in mirrors]
    for number, text in enumerate(texts):
        texts[number] = (
            text.replace("drbd0", f"drbd{number}").replace("sda6", f"sda{number}").replace("93;", f"9{number};")
        )
    conf.write_text("".join(texts) or "# none\n")
    places = ["--etc", str(tmp_path), "--run", str(tmp_path), "--drbd-conf", str(conf), "--node", "nodo1", "mirror"]
    for verb in ("role", "pause-sync", "verify", "attach"):
        assert CliRunner().invoke(app, [*places, verb]).exit_code == code, verb
        assert CliRunner().invoke(app, [*places, "drbdadm", "--", verb]).exit_code == 1, "drbdadm wants a name"
    for words in (["invalidate"], ["down"], ["connect", "--discard-my-data"], ["wipe-md", "--force"]):
        assert CliRunner().invoke(app, [*places, *words]).exit_code in {1, 2}, words


def test_shims_are_written_and_nobody_elses_file_is_overwritten(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "sbin"
    for _ in range(2):
        assert CliRunner().invoke(app, ["mirror", "shims", "--into", str(folder)]).exit_code == 0
    drbddisk = folder / "resource.d" / "drbddisk"
    assert drbddisk.stat().st_mode & 0o777 == (folder / "drbdadm").stat().st_mode & 0o777 == 0o755
    assert "@" not in drbddisk.read_text().replace('"$@"', "")
    drbddisk.write_text("#!/bin/bash\n# the original\n")
    run = CliRunner().invoke(app, ["mirror", "shims", "--into", str(folder)])
    assert run.exception is not None
    assert drbddisk.read_text().endswith("the original\n")
    assert CliRunner().invoke(app, ["mirror", "shims", "--into", str(folder), "--replace"]).exit_code == 0
    assert drbddisk.with_name("drbddisk.original").read_text().endswith("the original\n")
    assert "part of Relevo" in drbddisk.read_text()


def test_shims_find_their_way_from_any_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = ["--etc", "etc", "--state", "state", "--run", "run", "--drbd-conf", "drbd.conf"]
    assert CliRunner().invoke(app, [*places, "mirror", "shims", "--into", "sbin"]).exit_code == 0
    text = (tmp_path / "sbin" / "drbdadm").read_text()
    assert [str(tmp_path / name) in text for name in places[1::2]] == [True] * 4
    assert f"drbdadm={tmp_path}/sbin/drbdadm\n" in (tmp_path / "sbin" / "resource.d" / "drbddisk").read_text()


@pytest.mark.parametrize(
    ("text", "size"), [("8", 4096), ("8s", 4096), ("3K", 3072), ("10g", 10 << 30), ("1T", 1 << 40)]
)
def test_drbds_sizes(text: str, size: int) -> None:
    assert drbd_size(text) == size


@pytest.mark.parametrize("text", ["", "10X", "1.5G", "-3", "G", "9" * 5000])
def test_no_size(text: str) -> None:
    with pytest.raises(Usage):
        drbd_size(text)


def test_limits_of_waiting() -> None:
    healthy, degraded, outdated = (
        {"peer_disk": "DUnknown", "degraded_at_start": False},
        {"peer_disk": "DUnknown", "degraded_at_start": True},
        {"peer_disk": "Outdated", "degraded_at_start": True},
    )
    assert [_Limits(0, 120, 60).of(state) for state in (healthy, degraded, outdated)] == [0, 120, 60]
    assert [_Limits(30, 120, 0).of(state) for state in (healthy, degraded, outdated)] == [30, 30, 30]
    assert [_Limits(0, 0, 0).of(state) for state in (healthy, degraded, outdated)] == [0, 0, 0]


def test_generations_are_explained_column_by_column() -> None:
    line = "B19EDA6B6D7F3C2E:0000000000000000:0000000000000000:0000000000000000:0:1:0:1:0:0:0"
    lines = explained(line).splitlines()
    assert line in lines
    marks = lines[lines.index(line) + 1]
    assert [line[at] for at, mark in enumerate(marks) if mark == "^"] == list("0101000")
    first = next(text for text in lines if "Data consistency flag" in text)
    assert first.index("+") == marks.index("^")


def test_status_in_drbdadms_layout() -> None:
    state = state_of(CASES[-1]) | {"connection": "WFConnection", "role": "Secondary", "disk": "UpToDate"}
    assert status_text("r0", state) == "r0 role:Secondary\n  disk:UpToDate\n  peer connection:Connecting\n"
    state |= {"connection": "Connected", "peer_role": "Primary", "peer_disk": "UpToDate"}
    assert status_text("r0", state).splitlines()[2:] == [
        "  peer role:Primary",
        "    replication:Established peer-disk:UpToDate",
    ]
    run = {"done_bytes": 236, "total_bytes": 10_000}
    state |= {"connection": "PausedSyncS", "peer_disk": "Inconsistent", "paused": True, "resync": run}
    assert status_text("r0", state).splitlines()[3:] == [
        "    replication:PausedSyncS peer-disk:Inconsistent done:2.36",
        "        resync-suspended:user",
    ]


def events(found: Any) -> list[tuple[str, ...]]:
    return [tuple(str(event[key]) for key in ("event", "what", "old", "new") if key in event) for event in found]


def test_events_are_what_differs() -> None:
    told = Differences("r0", statistics=True)
    state = state_of(CASES[0])
    assert events(told.status(state)) == [("exists",), ("statistics",)]
    assert events(told.status(dict(state))) == []
    assert events(told.status(state | {"role": "Primary"})) == [("change", "role", state["role"], "Primary")]
    run = {"done_bytes": 0, "total_bytes": 4096}
    assert told.wants_samples
    assert events(told.status(state | {"role": "Primary", "resync": run})) == [("resync-started",)]
    assert events(told.sample(state | {"resync": run})) == [("progress", "resync")]
    assert events(told.sample(state | {"resync": None, "out_of_sync_bytes": 77})) == [("statistics",)]
    assert events(told.status(state | {"role": "Primary"})) == [("resync-ended",)]
    found = {"at_ms": 1, "differ_bytes": 4096}
    assert events(told.status(state | {"role": "Primary", "last_verify": found})) == [("verified",)]
    assert events(told.gone()) == [("unconfigured",)]
    assert events(told.gone()) == []
    assert events(told.status(state)) == [("exists",), ("statistics",)]
