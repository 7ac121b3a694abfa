"""Runs one seed of the mirror's simulation again: python tests/sim/mirror_seed.py SEED [--alone risk] [--trace].

With --strike KIND:NODE:STEP it is the short story of mirror_steps.py with that fault.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]


def main() -> None:
    from mirror_steps import Strike, tell
    from mirror_world import BAD_DISKS, FAULTS, Plan, run

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--alone", choices=("ask", "risk"), default="ask")
    parser.add_argument("--protocol", choices=("A", "B", "C"), default="C")
    parser.add_argument("--disk-errors", action="store_true", help="disks fail and are put in again while running")
    parser.add_argument("--on-io-error", choices=("detach", "pass_on", "call-local-io-error"), default="detach")
    parser.add_argument("--on-congestion", choices=("block", "pull-ahead", "disconnect"), default="block")
    parser.add_argument("--strike", help="one fault at one step of the short story: KIND:NODE:STEP")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    arguments = parser.parse_args()
    plan = Plan(
        arguments.seed,
        alone=arguments.alone,
        trace=arguments.trace,
        protocol=arguments.protocol,
        faults=BAD_DISKS if arguments.disk_errors else FAULTS,
        on_io_error=arguments.on_io_error,
        on_congestion=arguments.on_congestion,
    )
    world = tell(plan, Strike.parse(arguments.strike)).world if arguments.strike else run(plan)
    for line in [*world.lines, f"seed {arguments.seed}: fine"]:
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
