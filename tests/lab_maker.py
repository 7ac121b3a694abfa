"""Makes labs for tests: always guarded from outside, always taken down, and never leaving anything behind."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from relevo.lab import cleanup
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import MACHINES

LabMaker = Callable[..., Lab]
BARE_LIMIT_S = 60.0


def lab_maker(folder: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[LabMaker]:
    """The body of a fixture; what it yields makes labs that are not up yet.

    `make_lab(name="a", limit_s=60.0, **options)`. The test's item has to have `failed` set when it failed.
    """
    if os.geteuid() != 0:
        pytest.fail("The lab tests need root.")
    made = []

    def make(name: str = "lab", limit_s: float = BARE_LIMIT_S, **options: object) -> Lab:
        lab = Lab(folder / name, Options(**options))  # type: ignore[arg-type]
        made.append((lab, lab.watchdog(limit_s)))
        return lab

    yield make
    failed = getattr(request.node, "failed", False)
    for lab, watchdog in made:
        if failed and lab.folder.exists:
            for name in MACHINES:
                print(f"---- {name}\n{lab.logs(name)}")
        quiet = watchdog.close()
        lab.erase()
        assert quiet, "the watchdog had to end this test"
        assert not cleanup.anything_left(lab.folder)
