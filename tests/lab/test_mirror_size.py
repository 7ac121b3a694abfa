"""The option size between two real processes: agreed on, kept over a restart, raised while in use."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from mirror_pair import Pair, Refused, in_sync, run

MIB = 1 << 20
LIMIT, RAISED = 24 * MIB, 40 * MIB


@pytest.fixture
def pair() -> Iterator[Pair]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-size-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder)
        ends.callback(made.close)
        made.configure(made.two, mirror=f'size = "{LIMIT >> 20} MiB"\n')  # one side's is enough
        made.start()
        yield made


def test_a_limit_is_agreed_on_and_raised_in_use(pair: Pair) -> None:
    device = pair.one.promote()
    assert int(run("blockdev", "--getsize64", str(device))) == LIMIT
    assert pair.two.status()["size_bytes"] == LIMIT
    with pytest.raises(Refused, match=r"The option size of the peer limits the mirror to 24\.0 MiB"):
        pair.one.call("resize")
    pair.two.stop()
    pair.two.start()
    pair.wait_in_sync()
    assert pair.one.status()["size_bytes"] == LIMIT
    pair.configure(pair.two, mirror=f'size = "{RAISED >> 20} MiB"\n')
    assert pair.two.call("adjust")["restart"] == []
    pair.two.call("resize")
    for side in pair.sides.values():
        side.wait_for(lambda status: in_sync(status) and status["size_bytes"] == RAISED, "its new size")
    assert int(run("blockdev", "--getsize64", str(device))) == RAISED


def test_a_smaller_limit_than_the_mirror_is_refused(pair: Pair) -> None:
    pair.two.stop()
    pair.configure(pair.two, mirror='size = "8 MiB"\n')
    pair.two.start()
    status = pair.two.wait_for(lambda status: bool(status["problem"]), "saying what is wrong")
    assert status["disk"] == "Diskless"
    assert "option size (8.0 MiB) is smaller than the mirror (24.0 MiB)" in status["problem"]
