"""How the keeper treats workers that end: which it starts again, how often, and what it returns."""

from __future__ import annotations

import pathlib
import sys

import pytest

from relevo.device import keeper
from relevo.device.keeper import Keeper

COUNT = """
import os, pathlib, signal, sys
count = pathlib.Path(sys.argv[1])
count.write_text(count.read_text() + "x" if count.exists() else "x")
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BACKOFF_FIRST_S", 0.0)
    monkeypatch.setattr(keeper, "MAX_QUICK_FAILURES", 3)


@pytest.mark.parametrize(
    ("end", "status", "runs"),
    [
        ("sys.exit(0)", 0, 1),
        ("sys.exit(78)", 78, 1),
        ("sys.exit(5)", 5, 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, 3),
        ("sys.exit(0 if len(count.read_text()) == 2 else 1)", 0, 2),
        # A signal to the keeper while it runs: passed on, and no new start.
        ("os.kill(os.getppid(), signal.SIGTERM); signal.pause()", 143, 1),
    ],
)
def test_how_workers_end(tmp_path: pathlib.Path, end: str, status: int, runs: int) -> None:
    count = tmp_path / "count"
    made = Keeper("relevo-test", tmp_path / "run")
    assert made.run([sys.executable, "-c", COUNT + end, str(count)]) == status
    assert len(count.read_text()) == runs


def test_a_second_keeper_touches_nothing(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    device, count = folder / "device", tmp_path / "count"
    worker = """
import pathlib, sys
from relevo.device.keeper import Keeper, KeeperRuns
folder = pathlib.Path(sys.argv[2])
(folder / "device").write_text("of the first")
try:
    Keeper("relevo-test", folder).run([sys.executable, "-c", "import os; os._exit(9)"])
except KeeperRuns as error:
    sys.exit(0 if f"process {__import__('os').getppid()} has" in str(error) else 78)
sys.exit(64)
"""
    assert Keeper("relevo-test", folder).run([sys.executable, "-c", COUNT + worker, str(count), str(folder)]) == 0
    assert Keeper("relevo-test", folder).run([sys.executable, "-c", COUNT, str(count)]) == 0, "the first is gone"
    assert not device.exists()


def test_the_worker_learns_its_end_of_the_socketpair(tmp_path: pathlib.Path) -> None:
    worker = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as end:
    end.send(b'{"do":"detach","no":9}')
    sys.exit(0 if b'"no":9,"ok":true' in end.recv(4096) else 64)
"""
    assert Keeper("relevo-test", tmp_path).run([sys.executable, "-c", worker, keeper.KEEPER_FD]) == 0


def test_an_attach_without_a_descriptor_is_refused(tmp_path: pathlib.Path) -> None:
    worker = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as end:
    end.send(b'{"do":"attach","no":1,"size":4096}')
    sys.exit(0 if b'"ok":false' in end.recv(4096) else 64)
"""
    assert Keeper("relevo-test", tmp_path).run([sys.executable, "-c", worker, keeper.KEEPER_FD]) == 0
