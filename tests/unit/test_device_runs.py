"""Commands of the keeper's: their outcome, their end, and those that must not run."""

from __future__ import annotations

import os
import pathlib
import select
import sys
from collections.abc import Iterator

import pytest

from relevo.device.keeper_proto import KeeperReply, Run
from relevo.device.runs import KEPT_OUTPUT_BYTES, MAX_RUNNING, TIMED_OUT, Runs

LIMIT_MS = 20_000
LONG_MS = 60_000


class Bench:
    """Runs whose loop the test turns."""

    def __init__(self, oom_score_adj: int | None = None) -> None:
        self.refusal = ""
        self.runs = Runs(lambda: self.refusal, oom_score_adj)
        self.replies: dict[int, KeeperReply] = {}

    def start(
        self, no: int, command: str, *, timeout_ms: int = LONG_MS, handler: bool = False, stdin: int | None = None
    ) -> None:
        argv = ["/bin/sh", "-c", command]
        env = {"PATH": os.environ["PATH"], "WHO": "nodo1"}
        order = Run(no=no, what="a test", argv=argv, env=env, timeout_ms=timeout_ms, handler=handler)
        self.runs.add(order, stdin)

    def outcome(self, no: int) -> KeeperReply:
        poll = select.poll()
        poll.register(self.runs.fileno(), select.POLLIN)
        while no not in self.replies:
            left = self.runs.time_left_ms
            assert poll.poll(LIMIT_MS if left is None else left) or left is not None, "nothing happens any more"
            for reply in self.runs.pump():
                self.replies[reply.no] = reply
        return self.replies[no]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.runs.close()


def test_the_exit_status_and_the_end_of_the_output_come_back(bench: Bench) -> None:
    bench.start(1, 'echo "$WHO"; exit 7')
    bench.start(2, f'{sys.executable} -c \'print("x" * 100_000, "end")\'')
    first = bench.outcome(1)
    assert (first.ok, first.status, first.output) == (True, 7, "nodo1")
    second = bench.outcome(2)
    assert second.output.endswith("x end")
    assert len(second.output) < KEPT_OUTPUT_BYTES


def test_a_signal_is_told_as_a_shell_does(bench: Bench) -> None:
    bench.start(1, "kill -9 $$")
    assert bench.outcome(1).status == 128 + 9


def test_standard_input_is_what_came_along(bench: Bench, tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").write_text("ranges")
    bench.start(1, "cat", stdin=os.open(tmp_path / "in", os.O_RDONLY))
    bench.start(2, "cat")
    assert bench.outcome(1).output == "ranges"
    assert bench.outcome(2).output == ""


def test_what_takes_too_long_is_killed_with_all_it_started(bench: Bench, tmp_path: pathlib.Path) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    bench.start(1, f"sleep 1000 & echo $! > {pid}; wait", timeout_ms=500)
    started = os.pidfd_open(int(pid.read_text()))
    assert bench.outcome(1).status == TIMED_OUT
    assert select.select([started], [], [], LIMIT_MS / 1000)[0], "what the command started lives on"
    os.close(started)


def test_a_command_that_is_not_there_is_an_outcome(bench: Bench) -> None:
    bench.runs.add(Run(no=1, what="a test", argv=["/not/there"], env={}, timeout_ms=LONG_MS), None)
    reply = bench.outcome(1)
    assert not reply.ok
    assert reply.status == TIMED_OUT


@pytest.mark.parametrize("command", ["exit 0; \0", "exit 0; \ud800"])
def test_a_command_that_no_system_call_takes_is_an_outcome(bench: Bench, command: str) -> None:
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    bench.start(1, command, stdin=os.open(os.devnull, os.O_RDONLY))
    reply = bench.outcome(1)
    assert (reply.ok, reply.status) == (False, TIMED_OUT)
    bench.start(2, "exit 3")
    assert bench.outcome(2).status == 3
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == before, "a descriptor is left open"


def test_a_handler_that_must_not_run_does_not(bench: Bench, tmp_path: pathlib.Path) -> None:
    bench.refusal = "the mask is missing"
    bench.start(1, f"touch {tmp_path / 'handler'}", handler=True)
    bench.start(2, f"touch {tmp_path / 'errand'}")
    assert bench.outcome(1).what == "the mask is missing"
    assert bench.outcome(1).status == TIMED_OUT
    assert bench.outcome(2).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["errand"]


def test_more_commands_than_may_run_wait_for_their_turn(bench: Bench, tmp_path: pathlib.Path) -> None:
    gates = [tmp_path / f"gate{no}" for no in range(MAX_RUNNING)]
    for no, gate in enumerate(gates):
        os.mkfifo(gate)
        bench.start(no, f"cat {gate}")
    bench.start(100, "echo last")
    bench.runs.pump()
    assert len(bench.runs._running) == MAX_RUNNING
    gates[3].write_text("")
    assert bench.outcome(100).output == "last"
    assert list(bench.replies) == [3, 100]


def test_a_dead_worker_ends_its_errands_but_no_handler(bench: Bench, tmp_path: pathlib.Path) -> None:
    fifos = {name: tmp_path / name for name in ("errand", "handler", "go")}
    for fifo in fifos.values():
        os.mkfifo(fifo)
    bench.start(1, f"echo $$ > {fifos['errand']}; sleep 1000")
    bench.start(2, f"echo $$ > {fifos['handler']}; cat {fifos['go']}; exit 3", handler=True)
    pids = {name: os.pidfd_open(int(fifos[name].read_text())) for name in ("errand", "handler")}
    bench.runs.forget()
    assert select.select([pids["errand"]], [], [], LIMIT_MS / 1000)[0]
    assert not select.select([pids["handler"]], [], [], 0)[0]
    fifos["go"].write_text("")
    assert select.select([pids["handler"]], [], [], LIMIT_MS / 1000)[0]
    bench.runs.pump()
    bench.start(1, "exit 5")
    assert bench.outcome(1).status == 5, "the numbers of a new worker begin anew"
    assert 2 not in bench.replies
    for fd in pids.values():
        os.close(fd)


def test_a_command_has_not_the_keepers_protection_from_the_oom_killer() -> None:
    """The protection itself is seen in the guest of the memory test: where it may be asked for differs by machine."""
    bench = Bench(oom_score_adj=700)
    told, tell = os.pipe()
    bench.start(1, "read go; cat /proc/self/oom_score_adj", stdin=told)
    os.write(tell, b"go\n")
    os.close(tell)
    assert bench.outcome(1).output == "700"
    bench.runs.close()
