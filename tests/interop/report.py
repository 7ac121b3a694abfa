"""The list of cases with their outcome: printed after each run, and kept in the documentation."""

from __future__ import annotations

import pathlib
import re

import pytest

BEGIN, END = "<!-- cases: begin -->", "<!-- cases: end -->"
_outcomes: dict[str, tuple[str, str, str]] = {}
"""Node id -> (part, case, outcome), in the order of the run."""


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Remember how a case went; a failure in its set-up or clean-up counts too."""
    path = pathlib.Path(report.location[0])
    part = path.stem.removeprefix("test_").removeprefix("interop_").replace("_", " ")
    case = item.name.removeprefix("test_").replace("_", " ")
    before = _outcomes.get(report.nodeid)
    if before is not None and before[2] != "passed":
        return
    if report.skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(getattr(report, "wasxfail", ""))
        outcome = text.removeprefix("Skipped: ") or "skipped"
    else:
        outcome = "FAILED" if report.failed else "passed"
    if report.when == "call" or outcome != "passed":
        _outcomes[report.nodeid] = (part, case, outcome)


def tell(reporter: pytest.TerminalReporter) -> None:
    """Print the list."""
    if not _outcomes:
        return
    reporter.section("cases with other people's programs")
    width = max(len(case) for _, case, _ in _outcomes.values())
    last = ""
    for part, case, outcome in _outcomes.values():
        if part != last:
            reporter.write_line(f"{part}:")
            last = part
        reporter.write_line(f"  {case:{width}}  {outcome}")


def write(page: str) -> None:
    """Put the outcomes into a page, between its marks. Cases of parts that were not run stay as they were."""
    path = pathlib.Path(page)
    text = path.read_text()
    found = {(part, _escaped(case)): _escaped(outcome) for part, case, outcome in _outcomes.values()}
    run = {part for part, _ in found}
    for part, case, outcome in re.findall(r"^\| ([^|]+?) \| (.+?) \| ((?:[^|]|\\\|)+?) \|$", text, re.MULTILINE):
        if part not in run and part not in {"part", "---"}:
            found[part, case] = outcome
    rows = ["| part | case | outcome |", "| --- | --- | --- |"]
    rows += [f"| {part} | {case} | {outcome} |" for (part, case), outcome in sorted(found.items())]
    table = "\n".join([BEGIN, *rows, END])
    path.write_text(re.sub(rf"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table, text, flags=re.DOTALL))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
