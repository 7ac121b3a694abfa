"""Hundreds of power cuts under ext4 and xfs, on disks that forget what was not flushed.

python tests/torture/cuts.py [--cuts N] [--first SEED] [--fstype ext4|xfs]. One seed is a course of ten cuts.
Stops at the first failure and prints the command that runs it again.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
CUTS = 300
PER_COURSE = 10
COURSE_LIMIT_S = 600.0


def main() -> int:
    """Courses one after the other."""
    from power_pair import Course

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--fstype", choices=("ext4", "xfs"), help="only this one; both in turn by default")
    options = parser.parse_args()
    began = time.monotonic()
    for number in range(-(-options.cuts // PER_COURSE)):
        seed = options.first + number
        fstype = options.fstype or ("ext4", "xfs")[seed % 2]
        sys.stdout.write(f"seed {seed}, {fstype}, cuts {number * PER_COURSE + 1} to {(number + 1) * PER_COURSE} … ")
        sys.stdout.flush()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-cuts-"))
        course = Course(folder, fstype, seed, PER_COURSE, COURSE_LIMIT_S)
        try:
            course.run()
        except Exception:  # noqa: BLE001 - whatever it is, it is told with the way to see it again
            sys.stdout.write(f"FAILED\n{traceback.format_exc()}\nThe daemons' logs are kept in {folder}.\n")
            sys.stdout.write(f"  python tests/torture/cuts.py --first {seed} --cuts {PER_COURSE} --fstype {fstype}\n")
            return 1
        shutil.rmtree(folder)
        sys.stdout.write(f"fine ({time.monotonic() - began:.0f} s)\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
