"""What would happen: the forecast on a copy of two nodes, with the real arbiters and plans."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from relevo.arbiter.ballot import Vote
from relevo.arbiter.register import Entry
from relevo.config.fencing import FenceDevice
from relevo.config.model import Config, Witness
from relevo.manager import record as records
from relevo.manager.model import (
    RECORD_FORMAT,
    Alive,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Record,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Snapshot,
)
from relevo.node.forecast import Forecast, Foreseen
from unit.cluster_samples import NODES, configuration

PARTS = ("mirror", "filesystem", "files", "address")
GENERATION = "00000000000000A0"
DOWN = [f"{NODES[0]} stop {part}" for part in reversed(PARTS)]
UP = [f"{NODES[1]} start {part}" for part in PARTS]


def _facts(*, active: bool, connected: bool = True) -> NodeFacts:
    state = ResourceState.STARTED if active else ResourceState.STOPPED
    return NodeFacts(
        boot_id="b",
        config_hash="h",
        ready=True,
        services={
            "web": ServiceFacts(
                state=ServiceState.STARTED if active else ServiceState.STOPPED,
                step=7,
                resources=dict.fromkeys(PARTS, state),
            )
        },
        mirrors={
            "r0": MirrorFacts(
                role="Primary" if active else "Secondary",
                peer_role="Secondary" if active else "Primary",
                connection="Connected" if connected else "WFConnection",
                disk="UpToDate",
                peer_disk="UpToDate" if connected else "DUnknown",
                current_uuid=GENERATION,
            )
        },
        record_format=RECORD_FORMAT,
    )


def _foreseen(
    config: Config, record: Record | None = None, *, dies: str = "", connected: bool = True, votes: bool = False
) -> Foreseen:
    facts = {NODES[0]: _facts(active=True, connected=connected), NODES[1]: _facts(active=False, connected=connected)}
    seen = Snapshot(
        me=NODES[0],
        now_ms=100_000,
        config_hash="h",
        services=config.services,
        hosts={"web": NODES},
        nodes={name: NodeView(alive=Alive.ALIVE, facts=told) for name, told in facts.items()},
    )
    entry = Entry(version=3, generation=GENERATION, in_sync=NODES)
    vote = Vote(known=True, answers=True, entry=entry, included=True, sole=False, lease_left_ms=0)
    copy = Forecast(config, seen, record, {"r0": vote} if votes else None)
    if dies:
        copy.die(dies)
    return copy.run()


def _lines(foreseen: Foreseen) -> list[str]:
    return [f"{step.node} {step.action} {step.resource}" for step in foreseen.steps if step.action != "quiesce"]


def test_an_orderly_move_is_foreseen_step_by_step() -> None:
    for record in (
        records.with_standby(Record(), NODES[0], standby=True, by="x"),
        records.with_moved(Record(), "web", NODES[1], by="x"),
        records.with_ban(Record(), "web", NODES[0], by="x"),
    ):
        foreseen = _foreseen(configuration(), record)
        assert _lines(foreseen) == [*DOWN, *UP]
        assert (foreseen.before["web"], foreseen.after["web"], foreseen.stopped()) == (*NODES, {})


def test_what_would_stop_is_foreseen_with_the_reason() -> None:
    foreseen = _foreseen(configuration(), records.with_ban(Record(), "web", NODES[0], by="x"), connected=False)
    assert foreseen.after == {"web": None}
    assert "banned from nodo1" in foreseen.stopped()["web"]


def test_nothing_happens_when_nothing_is_ordered() -> None:
    assert _foreseen(configuration()).steps == ()


@pytest.mark.parametrize(
    ("alone", "witness", "fencing", "after", "fenced"),
    [
        ("risk", False, False, NODES[1], ()),
        ("ask", False, False, None, ()),
        ("ask", True, False, NODES[1], ()),
        ("ask", False, True, NODES[1], (NODES[0],)),
    ],
)
def test_the_death_of_the_active_node_is_judged_anew(
    alone: Literal["risk", "ask"], *, witness: bool, fencing: bool, after: str | None, fenced: tuple[str, ...]
) -> None:
    config = configuration(alone, Witness(address="w", key="k") if witness else None)
    if fencing:
        nodes = {
            name: msgspec.structs.replace(node, fencing=(FenceDevice(agent="fence_x"),))
            for name, node in config.nodes.items()
        }
        config = msgspec.structs.replace(config, nodes=nodes)
    foreseen = _foreseen(config, dies=NODES[0], votes=witness)
    assert foreseen.after == {"web": after}
    assert foreseen.fenced == fenced
    assert _lines(foreseen) == (UP if after else [])


@pytest.mark.parametrize("alone", ["risk", "ask"])
def test_the_death_of_the_passive_node_moves_nothing(alone: Literal["risk", "ask"]) -> None:
    foreseen = _foreseen(configuration(alone), dies=NODES[1])
    assert foreseen.after == {"web": NODES[0]}
    assert foreseen.steps == ()
