"""A verify on a schedule, between two real processes: begun by the Primary alone, remembered by both over a restart."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from mirror_pair import Pair, Side
from relevo.base.control import Message

BLOCK = 4096
LONG_AGO = '{"since":"2020-01-01T00:00:00Z"}'


@pytest.fixture
def pair() -> Iterator[Pair]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-verify-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder, mirror='verify_alg = "crc32c"\nverify_every = "1 d"\n')
        ends.callback(made.close)
        yield made


def note(side: Side) -> pathlib.Path:
    return side.paths.state / "mirror-r0.verified"


def ended(status: Message) -> bool:
    return bool(status["verify_schedule"]["last_ended"])


def test_the_primary_begins_it_and_both_remember(pair: Pair) -> None:
    for side in pair.sides.values():
        note(side).write_text(LONG_AGO)
    pair.start()
    waiting = pair.two.status()["verify_schedule"]
    assert waiting["waits"] == "no side is Primary"
    assert waiting["next_due"] == "2020-01-02T00:00:00Z"
    with pair.two.disk.open("r+b") as file:  # what a failing disk might do
        file.seek(5 * BLOCK)
        file.write(b"\xa5" * BLOCK)
    pair.one.promote()
    for side in pair.sides.values():
        status = side.wait_for(ended, "the end of the verify", 40)
        assert status["last_verify"]["sectors"] == [[40, 8]]
        schedule = status["verify_schedule"]
        assert schedule["last_blocks"] == 1
        assert schedule["next_due"] > schedule["last_ended"]
        assert not schedule["waits"]
    assert pair.one.events("verify_due")
    assert not pair.two.events("verify_due"), "only one side begins it"
    before = pair.two.status()["verify_schedule"]
    pair.two.stop()
    pair.two.start()
    pair.two.wait_for(lambda status: status["connection"] == "Connected", "being connected")
    assert pair.two.status()["verify_schedule"] == before
    assert pair.two.status()["last_verify"] is None, "it is the note that is remembered"
