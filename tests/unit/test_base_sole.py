"""A daemon that is started a second time on one server says so and touches nothing."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from relevo.base.paths import Paths
from relevo.base.sole import AlreadyRuns, sole
from relevo.heartbeat import daemon as heartbeat_daemon
from relevo.node import daemon as node_daemon
from relevo.witness import daemon as witness_daemon
from relevo.witness.settings import Settings
from unit.cluster_samples import configuration

HOLD = "import pathlib, sys, time; from relevo.base.sole import sole\nwith sole(pathlib.Path(sys.argv[1]), 'node'):\n"


def test_there_is_one(tmp_path: pathlib.Path) -> None:
    with (
        sole(tmp_path / "run", "node"),
        pytest.raises(AlreadyRuns, match=rf"process {os.getpid()} "),
        sole(tmp_path / "run", "node"),
    ):
        pass
    with sole(tmp_path / "run", "node"), sole(tmp_path / "run", "heartbeat"):
        pass


def test_one_that_was_killed_keeps_nobody_out(tmp_path: pathlib.Path) -> None:
    script = HOLD + "    print('held', flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRuns, match=str(other.pid)), sole(tmp_path, "node"):
            pass
        other.send_signal(signal.SIGKILL)
    with sole(tmp_path, "node"):
        pass


async def _start(which: str, paths: Paths) -> None:
    match which:
        case "node":
            await node_daemon.run(configuration(), "nodo1", paths)
        case "heartbeat":
            await heartbeat_daemon.run(configuration(), "nodo1", paths)
        case _:
            await witness_daemon.run(Settings(address="127.0.0.1", port=1, keys={"c": "k"}), paths)


@pytest.mark.parametrize("which", ["node", "heartbeat", "witness"])
def test_a_second_daemon_leaves_the_first_ones_socket_and_state_alone(tmp_path: pathlib.Path, which: str) -> None:
    paths = Paths(tmp_path / "etc", tmp_path / "state", tmp_path / "run")
    folder = paths.state / "witness" if which == "witness" else paths.run
    with sole(folder, which):
        paths.run.mkdir(exist_ok=True)
        paths.socket(which).write_text("the first one's")
        with pytest.raises(AlreadyRuns):
            asyncio.run(_start(which, paths))
        assert paths.socket(which).read_text() == "the first one's"
        assert not (paths.state / "heartbeat").exists(), "no generation was begun"
