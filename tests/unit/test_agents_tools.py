"""System tools and calls that may hang, under a time limit."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import threading

import pytest

from relevo.agents import outputs
from relevo.agents.aside import aside
from relevo.agents.base import AgentFailed, Health, State
from relevo.agents.tools import Finished, run_tool

LIMIT_S = 20.0


def run(*argv: str, limit_s: float = LIMIT_S) -> Finished:
    return asyncio.run(run_tool(*argv, limit_s=limit_s))


def test_status_and_output() -> None:
    done = run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.status, done.output, done.words) == (3, b"out\nerr\n", "out err")
    assert run("true") == Finished(0, b"")
    assert run("sh", "-c", "kill -9 $$").status == -signal.SIGKILL
    assert run("false").words == "exit status 1"
    assert run("cat").output == b""  # no input
    assert run("env").output.splitlines()[-1].startswith((b"LC_ALL", b"PATH"))


def test_much_output_does_not_block_it() -> None:
    assert len(run("head", "-c", "3000000", "/dev/zero").output) == 1 << 20


def test_what_a_tool_leaves_running_fills_no_memory_with_what_it_says(tmp_path: pathlib.Path) -> None:
    """An init script that starts its program without redirecting what that prints."""
    program = f"(echo $BASHPID > {tmp_path}/pid; while :; do printf %04096d 0; done) &"
    assert run("bash", "-c", f"echo started; {program}").output.startswith(b"started")
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        pass
    pid = int((tmp_path / "pid").read_text())
    try:
        output = pathlib.Path(f"/proc/{pid}/fd/1")
        while output.stat().st_size < 1 << 20:
            pass
        os.kill(pid, signal.SIGSTOP)
        while pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            pass
        assert outputs.trim(1 << 19) >= 1
        assert output.stat().st_size == 0
        os.kill(pid, signal.SIGCONT)
        while not output.stat().st_size:
            pass  # it goes on, and noticed nothing
    finally:
        os.kill(pid, signal.SIGKILL)


def test_not_installed() -> None:
    with pytest.raises(AgentFailed, match="no-such-tool is not installed"):
        run("no-such-tool")


def marked(folder: pathlib.Path) -> tuple[str, ...]:
    """A shell with a child that both run for ever; their ids are written down."""
    return ("sh", "-c", f"sleep 1000 & echo $! $$ > {folder}/pids.new; mv {folder}/pids.new {folder}/pids; wait")


async def gone(folder: pathlib.Path) -> None:
    """Wait until both processes have ended."""
    for pid in (folder / "pids").read_text().split():
        while os.path.exists(f"/proc/{pid}/fd/0"):  # noqa: ASYNC110, ASYNC240, PTH110 - the kernel sends no event to us
            await asyncio.sleep(0.01)


async def written(folder: pathlib.Path) -> None:
    while not os.path.exists(folder / "pids"):  # noqa: ASYNC110, ASYNC240, PTH110 - the shell sends no event to us
        await asyncio.sleep(0.01)


def test_time_is_over(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        with pytest.raises(AgentFailed, match=r"did not finish within 1\.0 s and was killed"):
            await run_tool(*marked(tmp_path), limit_s=1.0)
        await gone(tmp_path)

    asyncio.run(asyncio.wait_for(scene(), LIMIT_S))


def test_cancelled(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        task = asyncio.ensure_future(run_tool(*marked(tmp_path), limit_s=LIMIT_S))
        await written(tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(tmp_path)

    asyncio.run(asyncio.wait_for(scene(), LIMIT_S))


def test_aside_gives_the_result_or_the_error() -> None:
    async def scene() -> None:
        assert await aside(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 // 0)

    asyncio.run(scene())


def test_aside_can_be_left_alone() -> None:
    release, ended = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(LIMIT_S)
        ended.set()

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aside(hang), 0.01)

    asyncio.run(scene())  # ends although the thread hangs
    assert not ended.is_set()
    release.set()
    assert ended.wait(LIMIT_S)


def test_a_failure_has_a_reason() -> None:
    with pytest.raises(AssertionError, match="reason"):
        Health(State.FAILED)
