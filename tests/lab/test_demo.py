"""`relevo demo` as a user runs it, with a small tree."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import msgspec


def test_the_demonstration_loses_nothing_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    for number in range(150):
        path = tree / f"folder {number % 7}" / f"ñandú {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number}\n".encode() * (number * 37 + 1))
    lab = tmp_path / "lab"
    command = [sys.executable, "-m", "relevo", "demo", "--dir", str(lab), "--files", str(tree), "--large", "24 MiB"]
    command.append("--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    *said, last = done.stdout.splitlines()
    assert any(line.startswith("Nothing was lost: ") for line in said)
    report = msgspec.json.decode(last)
    assert report["files"] == 151
    assert report["lost"] == report["corrupt"] == 0
    assert report["disks_identical"] is True
    assert 0 < report["crash_gap_s"] < 60
    assert 0 < report["acknowledged_before_crash"] < 151
    assert not lab.exists()
