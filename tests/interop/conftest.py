"""Cases with the kernel's drbd as the peer: guests are shared, each case has its own disks and configuration."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import guest_python
import pytest
import report
from guest import missing_tools
from guest_image import ImageUnavailable, provide
from kernel_pair import Case, Pair
from rig import Rigs, sweep

from lab_maker import LabMaker, lab_maker

PairMaker = Callable[..., Pair]


@pytest.fixture(scope="session")
def rigs() -> Iterator[Rigs]:
    """The guests of this run; without what they need every case says why it cannot run."""
    if os.geteuid() != 0:
        pytest.skip("cannot run: root is needed for network namespaces")
    missing = missing_tools()
    if missing:
        pytest.skip(f"cannot run: {missing} is not installed")
    try:
        image = provide()
    except ImageUnavailable as error:
        pytest.skip(f"cannot run: {error}")
    sweep()
    made = Rigs(image)
    yield made
    made.close()


@pytest.fixture(scope="session")
def runtime() -> Iterator[pathlib.Path]:
    """A disk with this Python, this project and the programs of `memory/`, for a guest that runs our mirror."""
    with tempfile.TemporaryDirectory(prefix="relevo-runtime-", dir="/dev/shm") as folder:
        disk = pathlib.Path(folder) / "runtime"
        guest_python.make_disk(disk, pathlib.Path(__file__).parent / "memory")
        yield disk


@pytest.fixture
def make_pair(rigs: Rigs, request: pytest.FixtureRequest) -> Iterator[PairMaker]:
    """Makes the pair of a case: `make_pair(hmac="sha1", net=("use-rle no;",))`, see `kernel_pair.Case`."""
    made = []

    def make(**options: object) -> Pair:
        case = Case(**options)  # type: ignore[arg-type]
        rig = rigs.lend(case.kernel_bytes)
        try:
            pair = Pair(rig, case)
        except BaseException:
            rig.close()
            raise
        made.append((rig, pair))
        return pair

    yield make
    failed = getattr(request.node, "failed", False)
    untidy = []
    for rig, pair in made:
        if failed:
            print(pair.tell())
        tidy = pair.close()
        rigs.give_back(rig, usable=tidy and not failed)
        if not tidy:
            untidy.append(pair.case)
    assert failed or not untidy, "our side did not end in order, or left a loop device"


@pytest.fixture
def make_lab(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[LabMaker]:
    """Makes labs that are not up yet: `make_lab(limit_s=60.0, **options)`."""
    yield from lab_maker(tmp_path, request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    if outcome.when == "call":
        item.failed = outcome.failed
    report.note(item, outcome)
    return outcome


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--interop-table", help="write the table of cases and outcomes into this Markdown page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report.tell(terminalreporter)
    page = config.getoption("--interop-table")
    if page:
        report.write(page)
