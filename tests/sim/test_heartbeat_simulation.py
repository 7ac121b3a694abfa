"""Some hundred runs of two or three nodes in a bad world; each seed is one run and can be repeated alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from heartbeat_world import World

SEEDS_IN_BLOCK = 20
BLOCKS = 12


@pytest.mark.parametrize("block", range(BLOCKS))
def test_membership_keeps_its_promises(block: int) -> None:
    for seed in range(block * SEEDS_IN_BLOCK, (block + 1) * SEEDS_IN_BLOCK):
        world = World(seed)
        try:
            world.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
