"""drbdadm's verbs over two real mirrors: output, exit codes, effect."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest
from labtools import PairMaker

from mirror_pair import Pair, Side, in_sync

BLOCK = 4096
QUICK = 'timeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"'


@pytest.fixture
def pair(make_pair: PairMaker) -> Pair:
    """A pair that is connected and up to date."""
    made = make_pair(mirror=QUICK)
    made.start()
    return made


def command(side: Side, *words: str) -> list[str]:
    """`relevo mirror …` on a side."""
    paths = side.paths
    places = ["--etc", str(paths.etc), "--state", str(paths.state), "--run", str(paths.run), "--node", side.name]
    inside = ["nsenter", f"--net=/run/netns/{side.namespace}"]
    return [*inside, sys.executable, "-m", "relevo", *places, "mirror", *words]


def cli(side: Side, *words: str, answer: str = "") -> tuple[int, str]:
    """Run it: exit code and standard output; what it says on standard error is shown when a test fails."""
    done = subprocess.run(command(side, *words), input=answer, capture_output=True, text=True, timeout=60)
    print(f"{side.name}$ {' '.join(words)} -> {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode, done.stdout


def test_states_are_printed_as_drbdadm_prints_them(pair: Pair) -> None:
    one, two = pair.one, pair.two
    assert cli(one, "role", "r0") == (0, "Secondary/Secondary\n")
    assert cli(one, "cstate", "all") == (0, "Connected\n")
    assert cli(one, "dstate", "r0/0") == (0, "UpToDate/UpToDate\n")
    code, device = cli(one, "primary", "r0")
    assert code == 0
    assert pathlib.Path(device.strip()).is_block_device()
    assert cli(one, "role", "minor-0") == (0, "Primary/Secondary\n")
    assert cli(two, "role", "r0") == (0, "Secondary/Primary\n")
    code, line = cli(one, "get-gi", "r0")
    parts = line.strip().split(":")
    status = one.status()
    assert [part.lower() for part in parts[:2]] == [status["current_uuid"], status["bitmap_uuid"]]
    assert parts[4:] == ["1", "1", "1", "1", "0", "0", "0"]
    code, text = cli(one, "show-gi", "r0")
    assert (code, line.strip() in text) == (0, True)
    assert cli(two, "primary", "r0")[0] == 11
    assert cli(one, "primary", "--quiet", "r0") == (0, "")
    fd = os.open(device.strip(), os.O_RDONLY)
    try:
        assert cli(one, "secondary", "r0")[0] == 11
    finally:
        os.close(fd)
    assert cli(one, "secondary", "r0") == (0, "")
    assert cli(one, "secondary", "all") == (0, "")


def test_what_scripts_ask_for(pair: Pair) -> None:
    one = pair.one
    assert cli(one, "sh-resources") == (0, "r0\n")
    assert cli(one, "sh-dev", "r0") == (0, f"{one.device}\n")
    assert cli(one, "sh-ll-dev", "all") == (0, f"{one.disk}\n")
    assert cli(one, "sh-md-idx", "r0") == (0, "internal\n")
    assert cli(one, "drbdadm", "--", "status", "r0") == (
        0,
        "r0 role:Secondary\n  disk:UpToDate\n  peer role:Secondary\n    replication:Established peer-disk:UpToDate\n\n",
    )
    code, text = cli(one, "drbdadm", "--", "sh-status", "r0")
    assert code == 0
    read = subprocess.run(
        ["sh", "-c", f"_sh_status_process() {{ echo $_minor $_cstate $_role $_pdsk; }}; {text}"], capture_output=True
    )
    assert read.stdout == b"0 Connected Secondary UpToDate\n"


def test_what_cannot_be_meant_ends_as_with_drbdadm(pair: Pair) -> None:
    one = pair.one
    assert cli(one, "nonsense", "r0")[0] == 1
    assert cli(one, "role") == (0, "Secondary/Secondary\n")
    assert cli(one, "invalidate")[0] == 1
    assert cli(one, "drbdadm", "--", "role")[0] == 1
    assert cli(one, "role", "r7")[0] == 1
    assert cli(one, "role", "r0/3")[0] == 1
    assert cli(one, "primary", "--nonsense", "r0")[0] == 1
    assert one.stop() == 0
    assert cli(one, "role", "r0") == (10, "Unconfigured\n")
    assert cli(one, "primary", "r0")[0] == 10
    assert cli(one, "disconnect", "r0")[0] == 10
    assert cli(one, "dstate", "r0") == (0, "Consistent\n")
    assert cli(one, "down", "r0") == (0, "")


def test_up_and_down_start_and_end_the_process(make_pair: PairMaker) -> None:
    pair = make_pair(mirror=QUICK)
    one, two = pair.one, pair.two
    try:
        assert cli(one, "up", "r0") == (0, "")
        assert cli(two, "up", "all") == (0, "")
        pair.wait_in_sync()
        assert cli(one, "up", "r0") == (0, "")
        assert cli(one, "primary", "r0")[0] == 0
        assert cli(one, "down", "r0") == (0, "")
        assert cli(one, "down", "r0") == (0, "")
        assert cli(one, "role", "r0") == (10, "Unconfigured\n")
        assert not one.device.exists()
        assert not list(one.paths.run.glob("*.pid"))
        two.wait_for(lambda status: status["connection"] == "WFConnection", "the leave of its peer")
    finally:
        for side in (one, two):
            assert cli(side, "down", "r0")[0] == 0


def test_up_tells_what_is_wrong_with_the_disk_and_starts_nothing(make_pair: PairMaker) -> None:
    pair = make_pair()
    with pair.one.disk.open("r+b") as file:
        file.seek(-BLOCK, os.SEEK_END)
        file.write(bytes(BLOCK))
    assert cli(pair.one, "up", "r0")[0] == 1
    assert cli(pair.one, "role", "r0") == (10, "Unconfigured\n")


def test_disconnect_connect_and_waiting(pair: Pair) -> None:
    one, two = pair.one, pair.two
    assert cli(one, "wait-connect", "r0") == (0, "")
    assert cli(one, "wait-sync", "r0") == (0, "")
    assert cli(one, "connect", "r0")[0] == 10
    assert cli(one, "disconnect", "r0") == (0, "")
    assert cli(one, "disconnect", "r0")[0] == 10
    assert cli(one, "cstate", "r0") == (0, "StandAlone\n")
    two.wait_for(lambda status: status["connection"] == "WFConnection", "the leave of its peer")
    assert cli(two, "wait-connect", "--wfc-timeout", "1", "r0")[0] == 5
    assert cli(one, "connect", "r0") == (0, "")
    assert cli(two, "wait-connect", "--wfc-timeout", "20", "r0")[0] == 0
    assert cli(one, "disconnect", "--force", "r0") == (0, "")
    assert cli(one, "cstate", "r0") == (0, "StandAlone\n")
    assert cli(one, "up", "r0") == (0, "")
    pair.wait_in_sync()


def test_a_disk_is_let_go_of_and_taken_again(pair: Pair) -> None:
    one, two = pair.one, pair.two
    device = two.promote()
    assert cli(one, "attach", "r0")[0] == 10
    assert cli(one, "detach", "r0") == (0, "")
    two.wait_for(lambda status: status["peer_disk"] == "Diskless", "a peer without a disk")
    assert cli(one, "dstate", "r0") == (0, "Diskless/UpToDate\n")
    with device.open("r+b", buffering=0) as file:
        file.write(random.Random(1).randbytes(256 * BLOCK))
        os.fsync(file.fileno())
    moved = one.disk.rename(one.disk.with_name("moved"))  # nobody holds it any more
    assert cli(one, "attach", "r0")[0] == 10
    moved.rename(one.disk)
    assert cli(one, "attach", "r0") == (0, "")
    pair.wait_in_sync()
    assert one.status()["resync_total_bytes"] >= 256 * BLOCK
    two.call("secondary")
    assert one.data_bytes() == two.data_bytes()
    assert cli(one, "detach", "r0") == (0, "")
    assert one.stop() == 0


def test_a_primary_lets_go_of_its_disk_while_its_peer_has_a_good_one(pair: Pair) -> None:
    one, two = pair.one, pair.two
    device = one.promote()
    assert cli(one, "detach", "r0") == (0, "")
    assert cli(one, "dstate", "r0") == (0, "Diskless/UpToDate\n")
    written = random.Random(3).randbytes(64 * BLOCK)
    with device.open("r+b", buffering=0) as file:
        file.write(written)
        os.fsync(file.fileno())
    assert two.data_bytes()[: len(written)] == written
    assert cli(one, "attach", "r0") == (0, "")
    pair.wait_in_sync()
    one.call("secondary")
    assert one.data_bytes() == two.data_bytes()
    assert cli(two, "disconnect", "r0")[0] == 0
    one.promote()
    assert cli(one, "detach", "r0")[0] == 17


def test_suspended_io_waits_and_goes_on(pair: Pair) -> None:
    device = pair.one.promote()
    assert cli(pair.one, "suspend-io", "r0") == (0, "")
    assert pair.one.status()["io_suspended"]
    writer = subprocess.Popen(
        ["dd", f"of={device}", "bs=4096", "count=4", "oflag=direct", "status=none"], stdin=subprocess.PIPE
    )
    assert writer.stdin is not None
    writer.stdin.write(b"y" * 4 * BLOCK)
    writer.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(1)
    assert pair.two.data_bytes()[:1] != b"y"
    assert cli(pair.one, "resume-io", "r0") == (0, "")
    assert writer.wait(20) == 0
    assert pair.one.data_bytes()[:1] == pair.two.data_bytes()[:1] == b"y"
    assert cli(pair.one, "suspend-io", "r0") == (0, "")
    assert cli(pair.one, "secondary", "r0") == (0, "")
    assert not pair.one.status()["io_suspended"]


def test_a_new_generation_spares_two_new_disks_their_first_resync(make_pair: PairMaker) -> None:
    pair = make_pair(zeroed=False)
    for side in pair.sides.values():
        side.start()
    for side in pair.sides.values():
        side.wait_for(lambda status: status["connection"] == "Connected", "its peer")
    assert cli(pair.one, "primary", "r0")[0] == 17
    assert cli(pair.one, "new-current-uuid", "r0")[0] == 10
    assert cli(pair.one, "new-current-uuid", "--clear-bitmap", "r0") == (0, "")
    pair.wait_in_sync()
    generations = [side.status()["current_uuid"] for side in pair.sides.values()]
    assert generations[0] == generations[1] != "0000000000000004"
    assert [side.status()["resync_total_bytes"] for side in pair.sides.values()] == [0, 0]
    assert cli(pair.two, "primary", "r0")[0] == 0


def test_outdate(pair: Pair) -> None:
    pair.one.promote()
    for side in pair.sides.values():
        assert cli(side, "outdate", "r0")[0] == 11, "a connected copy is current"
        assert in_sync(side.status())
    assert cli(pair.two, "disconnect", "r0")[0] == 0
    assert cli(pair.one, "outdate", "r0")[0] == 17
    assert cli(pair.two, "outdate", "r0")[0] == 0
    assert cli(pair.two, "dstate", "r0") == (0, "Outdated/DUnknown\n")


def test_events_tell_every_change_and_survive_the_process(pair: Pair) -> None:
    one = pair.one
    with subprocess.Popen(command(one, "events", "r0"), stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        lines = (json.loads(line) for line in stream.stdout)
        first = next(lines)
        assert (first["event"], first["mirror"], first["role"]) == ("exists", "r0", "Secondary")
        one.promote()
        seen = next(line for line in lines if line.get("what") == "role")
        assert (seen["event"], seen["old"], seen["new"]) == ("change", "Secondary", "Primary")
        pair.two.kill()
        next(line for line in lines if line.get("what") == "connection" and line["new"] == "WFConnection")
        one.call("secondary")
        assert one.stop() == 0
        assert next(line for line in lines if line["event"] == "unconfigured")
        one.start()
        assert next(line for line in lines if line["event"] == "exists")["mirror"] == "r0"
        stream.send_signal(signal.SIGTERM)
        assert stream.wait(20) == 0


def test_events_end_with_their_reader(pair: Pair) -> None:
    with subprocess.Popen(
        command(pair.one, "events"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stream:
        assert stream.stdout is not None
        assert stream.stderr is not None
        assert json.loads(stream.stdout.readline())["event"] == "exists"
        stream.stdout.close()
        assert stream.wait(20) == 0
        assert stream.stderr.read() == ""


def test_events_now(pair: Pair) -> None:
    code, text = cli(pair.one, "events", "--now", "--statistics", "all")
    assert code == 0
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["exists", "statistics"]
    assert in_sync(pair.one.status())


def test_meta_data_of_a_mirror_that_is_down(make_pair: PairMaker) -> None:
    pair = make_pair(mirror=QUICK)
    one = pair.one
    assert cli(one, "create-md", "r0")[0] == 1
    assert cli(one, "create-md", "r0", answer="no\n")[0] == 1
    assert cli(one, "create-md", "r0", answer="yes\n")[0] == 0
    code, text = cli(one, "dump-md", "r0")
    assert (code, 'version "v08";' in text, "0x0000000000000004;" in text) == (0, True, True)
    assert cli(one, "get-gi", "r0") == (0, "0000000000000004:" + "0000000000000000:" * 3 + "0:0:0:0:0:0:0\n")
    assert cli(one, "dstate", "r0") == (0, "Inconsistent\n")
    assert cli(one, "outdate", "r0")[0] == 5
    assert cli(pair.two, "outdate", "r0") == (0, "")
    assert cli(pair.two, "dstate", "r0") == (0, "Outdated\n")
    assert cli(one, "create-md", "--force", "--zeroed", "r0")[0] == 0
    one.start()
    for verb in ("create-md", "dump-md", "wipe-md", "apply-al"):
        assert cli(one, verb, "r0")[0] == 20
    write_through(one.promote(force=True))
    one.kill()
    assert cli(one, "dump-md", "r0")[0] == 1
    assert cli(one, "apply-al", "all")[0] == 0
    code, text = cli(one, "dump-md", "r0")
    assert (code, "# bits-set 1024;" in text) == (0, True)
    assert cli(one, "wipe-md", "r0", answer="yes\n")[0] == 0
    assert cli(one, "dump-md", "r0")[0] == 1
    assert cli(one, "up", "r0")[0] == 1


def write_through(device: pathlib.Path) -> None:
    """One block, on the disk."""
    with device.open("r+b", buffering=0) as file:
        file.write(b"x" * BLOCK)
        os.fsync(file.fileno())


def test_adjust_takes_a_changed_configuration_over(pair: Pair) -> None:
    one, two = pair.one, pair.two
    assert cli(one, "adjust") == (0, "r0: nothing has changed\n")
    for side in (one, two):
        pair.configure(side, secret="another secret", mirror=f'{QUICK}\nresync_rate = "1 MiB"\nal_extents = 300')
    told = "secret: (the old one) -> (another one)", "al_extents: 1237 -> 300", "resync_rate: 0 B -> 1.0 MiB"
    assert cli(one, "adjust", "r0") == (0, "".join(f"r0: {setting}\n" for setting in told))
    status = two.wait_for(lambda status: "secret" in status["problem"], "a peer with another secret")
    assert status["connection"] == "WFConnection"
    assert cli(two, "adjust", "all")[0] == 0
    pair.wait_in_sync()
    for side in (one, two):
        more = 'resync_rate = "1 MiB"\nal_extents = 300\nverify_alg = "sha1"'
        pair.configure(side, secret="another secret", mirror=f"{QUICK}\n{more}")
    assert cli(one, "adjust", "r0")[0] == 0
    two.wait_for(lambda status: "verify" in status["problem"], "a peer that verifies otherwise")
    assert cli(two, "adjust", "r0")[0] == 0  # nobody has to be told to connect
    pair.wait_in_sync()
    (one.paths.etc / "relevo.toml").write_text("nonsense")
    assert cli(one, "adjust", "r0")[0] == 10
    pair.wait_in_sync()


def test_events_tell_of_a_resync_and_of_the_handler_after_it(make_pair: PairMaker) -> None:
    pair = make_pair(mirror=f'{QUICK}\nhandlers = {{ after-resync-target = "exit 7" }}')
    pair.start()
    device = pair.one.promote()
    assert cli(pair.two, "disconnect", "r0")[0] == 0
    with device.open("r+b", buffering=0) as file:
        file.write(random.Random(2).randbytes(64 * BLOCK))
        os.fsync(file.fileno())
    with subprocess.Popen(command(pair.two, "events", "r0"), stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        lines = (json.loads(line) for line in stream.stdout)
        assert next(lines)["connection"] == "StandAlone"
        pair.two.call("connect")
        assert next(line for line in lines if line["event"] == "resync-started")["total_bytes"] >= 64 * BLOCK
        assert next(line for line in lines if line["event"] == "resync-ended")["out_of_sync_bytes"] == 0
        ran = next(line for line in lines if line["event"] == "handler")
        assert (ran["name"], ran["status"]) == ("after-resync-target", -1)  # none is run where sysrq is not masked
        stream.terminate()
        assert stream.wait(20) == 0


def test_a_copy_is_given_up_and_comes_anew(pair: Pair) -> None:
    one, two = pair.one, pair.two
    device = one.promote()
    write_through(device)
    for verb, side, other in (("invalidate", two, one), ("invalidate-remote", one, two)):
        before = side.status()["resync_total_bytes"]
        assert cli(side, verb, "r0") == (0, "")
        assert cli(side, "wait-sync", "r0") == (0, "")
        pair.wait_in_sync()
        assert side.status()["resync_total_bytes"] - before == side.status()["size_bytes"]
        assert other.status()["resync_total_bytes"] > 0
    assert cli(one, "invalidate", "r0")[0] == 11
    one.call("secondary")
    assert one.data_bytes() == two.data_bytes()
    assert cli(two, "disconnect", "r0")[0] == 0
    assert cli(two, "invalidate", "r0") == (0, "")
    assert cli(two, "dstate", "r0") == (0, "Inconsistent/DUnknown\n")
    assert cli(two, "connect", "r0") == (0, "")
    pair.wait_in_sync()


def test_a_resync_is_held_and_shown_as_the_kernel_shows_it(make_pair: PairMaker) -> None:
    pair = make_pair(mirror=f'{QUICK}\nresync_rate = "1 MiB"')
    pair.start()
    one, two = pair.one, pair.two
    assert cli(one, "pause-sync", "r0") == (0, "")
    assert cli(one, "pause-sync", "r0")[0] == 10
    assert " UpToDate/UpToDate C r--u--" in cli(one, "proc")[1].replace("ds:", " ")
    assert cli(one, "invalidate", "r0") == (0, "")
    one.wait_for(lambda status: status["connection"] == "PausedSyncT", "a resync that is held")
    assert cli(two, "cstate", "r0") == (0, "PausedSyncS\n")
    assert "r-p---" not in cli(one, "proc")[1]
    assert " C r-p---" in cli(two, "proc")[1]
    assert cli(one, "resume-sync", "r0") == (0, "")
    assert cli(one, "resume-sync", "r0")[0] == 10
    one.wait_for(lambda status: status["connection"] == "SyncTarget", "its going on")
    code, text = cli(one, "proc")
    assert code == 0
    assert " 0: cs:SyncTarget ro:Secondary/Secondary ds:Inconsistent/UpToDate C r-----\n" in text
    assert "] sync'ed:" in text
    assert " K/sec\n" in text
    assert cli(one, "resync", "--fast", "r0") == (0, "")
    pair.wait_in_sync(40)


def test_both_copies_are_compared(make_pair: PairMaker) -> None:
    pair = make_pair(mirror=f'{QUICK}\nverify_alg = "sha1"')
    one, two = pair.one, pair.two
    pair.start()
    write_through(one.promote())
    one.call("secondary")
    assert cli(two, "down", "r0") == (0, "")
    with two.disk.open("r+b") as file:
        file.seek(5 * BLOCK)
        file.write(b"x")
    assert two.process is not None
    assert two.process.wait(20) == 0
    two.start()
    pair.wait_in_sync()
    assert cli(one, "verify", "--start", "8K", "--stop", "4K", "r0")[0] == 11
    with subprocess.Popen(command(one, "events", "r0"), stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        lines = (json.loads(line) for line in stream.stdout)
        assert next(lines)["event"] == "exists"
        assert cli(one, "verify", "--repair", "r0") == (0, "")
        found = next(line for line in lines if line["event"] == "verified")
        assert found["blocks"] == 1
        stream.terminate()
        stream.wait(20)
    pair.wait_in_sync()
    one.wait_for(lambda status: status["out_of_sync_bytes"] == 0, "the repair")
    assert one.data_bytes() == two.data_bytes()
