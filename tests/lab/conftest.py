"""Labs for tests: always guarded from outside, always taken down, and never leaving anything behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from labtools import PairMaker

from lab_maker import LabMaker, lab_maker
from mirror_pair import Pair
from relevo.lab.lab import Lab, Unit

SERVED_LIMIT_S = 170.0
"""Below pytest's own limit, so that a test that hangs in the kernel is freed before pytest gives up."""


@pytest.fixture
def make_lab(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[LabMaker]:
    """Makes labs that are not up yet: `make_lab(name="a", limit_s=60.0, **options)`."""
    yield from lab_maker(tmp_path, request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture
def lab(make_lab: LabMaker) -> Lab:
    """A lab that is up: servers with test disks, no daemons of the service."""
    made = make_lab(disk_bytes=64 << 20)
    made.up(service=False, units=[Unit(name="idle", argv=("sleep", "infinity"))])
    return made


@pytest.fixture
def served_lab(make_lab: LabMaker) -> Lab:
    """A lab that is up with the whole service: it answers at the virtual IP, both disks are up to date."""
    made = make_lab(limit_s=SERVED_LIMIT_S)
    made.up()
    return made


@pytest.fixture
def make_pair(request: pytest.FixtureRequest) -> Iterator[PairMaker]:
    """Makes pairs, with disks in memory; whatever happens they are gone afterwards."""
    if os.geteuid() != 0:
        pytest.fail("The mirror's lab tests need root.")
    made: list[Pair] = []

    def make(**options: object) -> Pair:
        folder = tempfile.mkdtemp(prefix="mirror-pair-", dir="/dev/shm")
        pair = Pair(pathlib.Path(folder), **options)  # type: ignore[arg-type]
        made.append(pair)
        return pair

    yield make
    with contextlib.ExitStack() as ends:
        for pair in made:
            if getattr(request.node, "failed", False):
                for side in pair.sides.values():
                    print(f"---- {side.name}\n{side.log()}")
            ends.callback(shutil.rmtree, pair.folder, ignore_errors=True)
            ends.callback(pair.close)


@pytest.fixture
def pair(make_pair: PairMaker) -> Pair:
    """A pair that is connected and up to date."""
    made = make_pair()
    made.start()
    return made
