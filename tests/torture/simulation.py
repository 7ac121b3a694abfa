"""Thousands of seeds of the mirror's simulation, and every fault at every step of a short story.

python tests/torture/simulation.py [--seeds N] [--first N] [--stories N]. Stops at the first failure and prints the
command that runs it again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "sim"), str(ROOT / "src")]
SEEDS = 2000
STORIES = 3
CHUNK = 20
VARIANTS = (("ask", "C"), ("risk", "C"), ("ask", "A"), ("risk", "B"))
"""Voting or not, and the protocol."""
SHARES = (8, 8, 1, 1)
"""How many of so many seeds each variant gets."""
Job = tuple[int, str, str, str]
"""Seed, alone, protocol, strike (or empty)."""


def run_jobs(jobs: list[Job]) -> str:
    """Run some; the command that runs the first failing one again, with what was found, or nothing."""
    from mirror_steps import Strike, tell
    from mirror_world import Plan, run

    for seed, alone, protocol, strike in jobs:
        plan = Plan(seed, alone=alone, protocol=protocol)  # type: ignore[arg-type]
        try:
            if strike:
                tell(plan, Strike.parse(strike))
            else:
                run(plan)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the way to see it again
            options = f"--alone {alone} --protocol {protocol}" + (f" --strike {strike}" if strike else "")
            return f"{error!r}\n  python tests/sim/mirror_seed.py {seed} {options} --trace"
    return ""


def jobs_of(first: int, seeds: int, stories: int) -> Iterator[list[Job]]:
    """All of it, in pieces."""
    from mirror_steps import strikes
    from mirror_world import Plan

    for (alone, protocol), share in zip(VARIANTS, SHARES, strict=True):
        numbers = range(first, first + seeds * share // sum(SHARES))
        for begin in range(0, len(numbers), CHUNK):
            yield [(seed, alone, protocol, "") for seed in numbers[begin : begin + CHUNK]]
    for story in range(first + 1, first + 1 + stories):
        for alone in ("ask", "risk"):
            plan = Plan(story, alone=alone)
            found: list[Job] = [(story, alone, "C", str(strike)) for strike in strikes(plan)]
            for begin in range(0, len(found), CHUNK):
                yield found[begin : begin + CHUNK]


def main() -> int:
    """Run everything on all processors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stories", type=int, default=STORIES)
    options = parser.parse_args()
    began, done = time.monotonic(), 0
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        pieces = list(jobs_of(options.first, options.seeds, options.stories))
        waiting = {pool.submit(run_jobs, piece): len(piece) for piece in pieces}
        for future in concurrent.futures.as_completed(waiting):
            if failure := future.result():
                pool.shutdown(cancel_futures=True)
                sys.stdout.write(f"\nFAILED: {failure}\n")
                return 1
            done += waiting[future]
            sys.stdout.write(f"\r{done} runs of {sum(waiting.values())}, {time.monotonic() - began:.0f} s ")
            sys.stdout.flush()
    sys.stdout.write("\nall fine\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
