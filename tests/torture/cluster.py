"""Thousands of seeds of the cluster's simulation, in every set-up.

python tests/torture/cluster.py [--seeds N] [--first N] [--only NAME]. Stops at the first failure and prints the command
that runs it again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import logging
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
SEEDS = 500
CHUNK = 20
STRICT = {"strict": True}
CAREFUL = {"strict": False, "witness": True}
SET_UPS: dict[str, tuple[str, dict[str, object]]] = {
    "crashes": ("crashes", STRICT),
    "crashes-two": ("crashes", {**STRICT, "two": True}),
    "flaky": ("crashes", {**STRICT, "flakiness": 0.02}),
    "restarts-two": ("restarts", {**STRICT, "two": True}),
    "orders": ("orders", STRICT),
    "orders-two": ("orders", {**STRICT, "two": True}),
    "cuts": ("cuts", {"strict": False}),
    "cuts-two": ("cuts", {"strict": False, "two": True}),
    "targets": ("targets", {**STRICT, "ping": True}),
    "targets-two": ("targets", {**STRICT, "ping": True, "two": True}),
    "ask": ("cross_cable", {"strict": False, "ask": True}),
    "fencing": ("cross_cable", {"strict": False, "fencing": True}),
    "fencing-two": ("cross_cable", {"strict": False, "fencing": True, "two": True}),
    "leaves": ("leaves", STRICT),
    "leaves-ask-two": ("leaves", {"strict": False, "ask": True, "two": True}),
    "leaves-fencing": ("leaves", {"strict": False, "fencing": True}),
    "leaves-witness": ("leaves", CAREFUL),
    "goodbye-witness": ("alone_by_goodbye", CAREFUL),
    "goodbye-fencing": ("alone_by_goodbye", {"strict": False, "fencing": True}),
    "ask-hand-overs": ("hand_overs", {"strict": False, "ask": True}),
    "ask-cuts": ("cuts", {"strict": False, "ask": True}),
    "fencing-hand-overs": ("hand_overs", {"strict": False, "fencing": True}),
    "fencing-cuts": ("cuts", {"strict": False, "fencing": True}),
    "fencing-orders": ("orders", {"strict": False, "fencing": True}),
    "witness": ("everything", CAREFUL),
    "witness-two": ("everything", {**CAREFUL, "two": True}),
    "witness-hand-overs": ("hand_overs", CAREFUL),
    "witness-rejoined": ("just_rejoined", CAREFUL),
}
"""Name -> what happens (a function of `sim/cluster_troubles.py`), and the world in which it does."""


def run_seeds(name: str, first: int, count: int) -> str:
    """Run some seeds of one set-up; the first failing one with the command that runs it again, or nothing."""
    import structlog

    from sim import cluster_troubles

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    trouble, options = SET_UPS[name]
    for seed in range(first, first + count):
        try:
            found = cluster_troubles.catch(range(seed, seed + 1), getattr(cluster_troubles, trouble), **options)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the way to see it again
            found = repr(error)
        if found:
            return f"{name}: {found}\n  python tests/torture/cluster.py --only {name} --first {seed} --seeds 1"
    return ""


def main() -> int:
    """Run everything on all processors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=SET_UPS)
    options = parser.parse_args()
    names = [options.only] if options.only else list(SET_UPS)
    jobs = [
        (name, first, min(CHUNK, options.first + options.seeds - first))
        for first in range(options.first, options.first + options.seeds, CHUNK)
        for name in names
    ]
    began, done = time.monotonic(), 0
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = {pool.submit(run_seeds, *job): job[2] for job in jobs}
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
