"""False alarms on a saturated machine: the default timing, then `fast`.

python tests/torture/steady.py [--minutes N]. At the default timing nobody may be declared dead; how many were at
`fast` is told.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
MINUTES = 10.0
SECONDS_PER_MINUTE = 60.0


def main() -> int:
    """Both timings, one after the other."""
    from steady import Steady

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args().minutes
    failed = False
    for profile in (None, "fast"):
        with tempfile.TemporaryDirectory(prefix="relevo-steady-", dir="/var/tmp") as folder:
            made = Steady(pathlib.Path(folder), profile)
            try:
                made.up()
                alarms = made.watch(minutes * SECONDS_PER_MINUTE)
            finally:
                made.down()
        name = profile or "default timing"
        sys.stdout.write(f"{name}: {len(alarms)} false alarms in {minutes:g} minutes\n")
        sys.stdout.writelines(f"  {alarm}\n" for alarm in alarms)
        failed = failed or (profile is None and bool(alarms))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
