"""Where a measurement goes: a table for people, and `bench/results/NAME.json` with machine, versions and raw values."""

from __future__ import annotations

import datetime as dt
import pathlib
import platform
import subprocess
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from relevo import __version__

FILE_COLUMNS = 220
"""A table that goes into a file is not cut."""
RESULTS = pathlib.Path(__file__).parent / "results"


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).splitlines()[0] if done.returncode == 0 else "absent"


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpus = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": cpus[0].split(":", 1)[1].strip() if cpus else platform.machine(),
        "cpus": str(len(cpus)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "fio": _first_line("fio", "--version"),
        "relevo": __version__,
    }


def write(name: str, command: str, rows: list[dict[str, Any]], raw: dict[str, Any]) -> None:
    """Print a table and keep everything in `bench/results/NAME.json`."""
    show(name, rows)
    result = {
        "name": name,
        "command": command,
        "date": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": rows,
        "raw": raw,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, no_wrap=isinstance(rows[0][column], str))
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=FILE_COLUMNS)).print(table)
