"""The hand-over with an original Heartbeat in seeded worlds: no service ever runs on both, all of them come to rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest
from handover_world import OURS, THEIRS, World, configuration

from relevo.heartbeat.handover import Handover
from relevo.heartbeat.handover_words import Group, Their, Told

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

from cluster_samples import configuration as sample

SEEDS = int(os.environ.get("RELEVO_SEEDS", "12"))
TROUBLES = 12


class Trusting(Handover):
    """Takes every "none" for that of one that has only started."""

    def begun(self) -> None:
        super().begun()
        self._their.fresh = True


class Hasty(Handover):
    """Says that it has stopped before it has."""

    def told(self, told: Told, now_ms: int) -> None:
        super().told(msgspec.structs.replace(told, active=told.active - told.giving, moving=frozenset()), now_ms)


class Greedy(Handover):
    """Claims whatever is wanted."""

    def their(self, group: Group) -> Their:
        found = super().their(group)
        return Their.FREE if found is Their.MOVING else found


def world(seed: int, *, auto_failback: bool = True, loss: float = 0.2) -> World:
    return World(seed, configuration(sample(), auto_failback=auto_failback), auto_failback=auto_failback, loss=loss)


def lived(run: World) -> World:
    """A world in which much has happened, and calm again."""
    run.start_ours()
    run.start_original()
    for _ in range(TROUBLES):
        run.pass_ms(run.dice.choice([300, 2500, 9000, 20_000]))
        run.trouble()
    run.calm()
    return run


@pytest.mark.parametrize("auto_failback", [True, False])
def test_whatever_happens(auto_failback: bool) -> None:
    for seed in range(SEEDS):
        try:
            lived(world(seed, auto_failback=auto_failback)).at_rest()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("core", [Trusting, Hasty, Greedy])
def test_each_rule_is_needed(core: type[Handover]) -> None:
    def seeds() -> None:
        for seed in range(10 * SEEDS):
            run = world(seed)
            run.core = core
            lived(run)

    with pytest.raises(AssertionError, match="runs twice"):
        seeds()


def test_orderly_stops_and_failback() -> None:
    for seed in range(5):
        run = world(seed, loss=0.3)
        home = {"uno": OURS, "dos": THEIRS}
        run.start_ours()
        run.start_original()
        for stop in (run._stop_original, run._leave, run.crash_original, run.crash_ours):
            run.calm()
            assert run.places() == home, "\n".join(run.story[-40:])
            stop()
            run.pass_ms(20_000)
            assert len(set(run.places().values())) == 1, "\n".join(run.story[-40:])
        run.calm()
        assert run.places() == home
