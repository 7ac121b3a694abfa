"""`verify --repair` between two copies that nobody has ever used: what differs is sent, and the link stays."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from mirror_pair import Pair, in_sync

BLOCK = 4096


@pytest.fixture
def verifying_pair() -> Iterator[Pair]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-repair-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder, mirror='verify_alg = "crc32c"\n')
        ends.callback(made.close)
        made.start()
        yield made


def test_copies_that_were_never_primary_are_repaired(verifying_pair: Pair) -> None:
    one, two = verifying_pair.one, verifying_pair.two
    with two.disk.open("r+b") as file:
        file.seek(7 * BLOCK)
        file.write(b"\xa5" * BLOCK)
    one.call("verify", repair=True)
    for side in (one, two):
        status = side.wait_for(lambda status: status["last_verify"] is not None, "the end of the verify", 40)
        assert status["last_verify"]["sectors"] == [[56, 8]]
    for side in (one, two):
        side.wait_for(lambda status: in_sync(status) and not status["out_of_sync_bytes"], "being repaired", 20)
    assert not [line for side in (one, two) for line in side.events("link_lost")]
    assert two.data_bytes() == one.data_bytes()
    assert one.status()["current_uuid"] == two.status()["current_uuid"]
