"""Several services: what needs, avoids or has no room beside another; foreseen over two nodes with the real plans."""

from __future__ import annotations

import pathlib
import random
from ipaddress import IPv4Interface
from typing import Any

import msgspec
import pytest

from relevo.config.model import AddressResource, Service
from relevo.manager.balance import WORTH_PERCENT, propose
from relevo.manager.model import (
    RECORD_FORMAT,
    Alive,
    NodeFacts,
    NodeView,
    Record,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Snapshot,
)
from relevo.manager.planner import obstacles
from relevo.manager.record import with_standby
from relevo.node.forecast import Forecast, Foreseen
from relevo.node.pressure import STEP_PERCENT, Pressure
from unit.cluster_samples import NODES, configuration

ADDRESS = AddressResource(id="address", address=IPv4Interface("192.168.0.29/24"), link="users")


def made(name: str, prefer: str = NODES[0], **options: Any) -> Service:
    return Service(name=name, prefer=prefer, resources=(ADDRESS,), **options)


def _facts(services: tuple[Service, ...], active: set[str]) -> NodeFacts:
    def told(name: str) -> ServiceFacts:
        here = name in active
        return ServiceFacts(
            state=ServiceState.STARTED if here else ServiceState.STOPPED,
            resources={"address": ResourceState.STARTED if here else ResourceState.STOPPED},
        )

    return NodeFacts(
        boot_id="b",
        config_hash="h",
        ready=True,
        services={one.name: told(one.name) for one in services},
        record_format=RECORD_FORMAT,
    )


def _seen(services: tuple[Service, ...], where: dict[str, str], capacity: int) -> Snapshot:
    return Snapshot(
        me=NODES[0],
        now_ms=100_000,
        config_hash="h",
        services={one.name: one for one in services},
        hosts={one.name: NODES for one in services},
        nodes={
            node: NodeView(
                alive=Alive.ALIVE,
                facts=_facts(services, {name for name, there in where.items() if there == node}),
            )
            for node in NODES
        },
        capacities=dict.fromkeys(NODES, capacity),
    )


def foreseen(
    *services: Service, where: dict[str, str] | None = None, capacity: int = 0, dies: str = "", standby: str = ""
) -> Foreseen:
    config = msgspec.structs.replace(configuration(), services={one.name: one for one in services})
    record = with_standby(Record(), standby, standby=True, by="x") if standby else None
    copy = Forecast(config, _seen(services, where or {}, capacity), record)
    if dies:
        copy.die(dies)
    return copy.run()


def _lines(result: Foreseen) -> list[str]:
    return [f"{step.node} {step.action} {step.service}" for step in result.steps]


def test_one_server_left_and_too_small_keeps_the_important_ones() -> None:
    services = (made("a", cost=3), made("b", NODES[1], cost=3, priority=5), made("c", NODES[1], cost=1))
    at_rest = foreseen(*services, capacity=4)
    assert at_rest.after == {"a": NODES[0], "b": NODES[1], "c": NODES[1]}
    alone = foreseen(*services, where={"a": NODES[0], "b": NODES[1], "c": NODES[1]}, capacity=4, dies=NODES[1])
    assert alone.after == {"a": None, "b": NODES[0], "c": NODES[0]}
    assert "has no room for it" in alone.decisions["a"][0]


def test_of_equals_the_first_by_name_has_the_room() -> None:
    services = (made("a", NODES[1], cost=3), made("b", NODES[0], cost=3))
    result = foreseen(*services, where={"a": NODES[1], "b": NODES[0]}, capacity=4, dies=NODES[1])
    assert result.after == {"a": NODES[0], "b": None}


def test_what_is_needed_starts_first_and_stops_last() -> None:
    services = (made("app", along_with="db"), made("db"), made("mail", after=("app",)))
    assert _lines(foreseen(*services)) == [f"{NODES[0]} start {name}" for name in ("db", "app", "mail")]
    where = dict.fromkeys(("app", "db", "mail"), NODES[0])
    moved = _lines(foreseen(*services, where=where, standby=NODES[0]))
    assert moved == [
        *(f"{NODES[0]} stop {name}" for name in ("mail", "app", "db")),
        *(f"{NODES[1]} start {name}" for name in ("db", "app", "mail")),
    ]


def test_who_runs_along_with_another_follows_it() -> None:
    services = (made("app", NODES[1], along_with="db"), made("db"))
    assert foreseen(*services).after == {"app": NODES[0], "db": NODES[0]}
    result = foreseen(*services, where={"app": NODES[0], "db": NODES[0]}, dies=NODES[0])
    assert result.after == {"app": NODES[1], "db": NODES[1]}
    seen = _seen(services, {"app": NODES[0], "db": NODES[0]}, 0)
    assert "db, with which it runs, belongs on nodo1" in obstacles(seen, services[0])[NODES[1]]


@pytest.mark.parametrize("important", ["a", "b"])
def test_who_is_kept_apart_is_never_on_one_node(important: str) -> None:
    services = tuple(
        made(name, priority=int(name == important), apart_from=("b",) if name == "a" else ()) for name in "ab"
    )
    both = foreseen(*services)
    assert set(both.after.values()) == set(NODES)
    assert both.after[important] == NODES[0]
    alone = foreseen(*services, where={"a": NODES[0], "b": NODES[1]}, dies=NODES[0])
    assert alone.after[important] == NODES[1]
    assert sum(one is not None for one in alone.after.values()) == 1


def _random_services(rng: random.Random) -> tuple[Service, ...]:
    names = "abcde"[: rng.randint(2, 5)]
    services = []
    for index, name in enumerate(names):
        earlier = names[:index]
        services.append(
            made(
                name,
                rng.choice(NODES),
                priority=rng.randint(0, 3),
                cost=rng.randint(0, 3),
                auto_failback=rng.random() < 0.7,
                after=(rng.choice(earlier),) if earlier and rng.random() < 0.3 else (),
                along_with=rng.choice(earlier) if earlier and rng.random() < 0.3 else "",
                apart_from=(rng.choice(earlier),) if earlier and rng.random() < 0.2 else (),
            )
        )
    rng.shuffle(services)
    return tuple(services)


@pytest.mark.parametrize("batch", range(4))
def test_whatever_is_configured_it_comes_to_rest_within_what_it_says(batch: int) -> None:
    for seed in range(batch * 100, batch * 100 + 100):
        rng = random.Random(seed)
        services, capacity = _random_services(rng), rng.choice([0, 3, 5])
        where = {one.name: rng.choice(NODES) for one in services if rng.random() < 0.7}
        result = foreseen(
            *services,
            where=where,
            capacity=capacity,
            dies=rng.choice(["", NODES[1]]),
            standby=rng.choice(["", NODES[0]]),
        )
        # Each is stopped and started twice at most: displaced, and placed again.
        assert len(result.steps) <= 4 * len(services), f"seed {seed}: {_lines(result)}"
        for one in services:
            there = result.after[one.name]
            if there is None:
                continue
            if one.along_with:
                assert result.after[one.along_with] == there, f"seed {seed}"
            assert all(result.after[other] != there for other in one.apart_from), f"seed {seed}"
            cost = sum(other.cost for other in services if result.after[other.name] == there)
            assert not capacity or cost <= capacity, f"seed {seed}: {result.after}"


def _busy(seen: Snapshot, *percents: int | None) -> Snapshot:
    nodes = {
        name: msgspec.structs.replace(view, facts=msgspec.structs.replace(view.facts, pressure=percent))
        for (name, view), percent in zip(seen.nodes.items(), percents, strict=True)
    }
    return msgspec.structs.replace(seen, nodes=nodes)


def test_the_least_important_service_of_the_busier_server_would_better_move() -> None:
    services = (made("a", priority=2), made("b", priority=1), made("c", priority=3))
    seen = _seen(services, {"a": NODES[0], "b": NODES[0], "c": NODES[1]}, 0)
    found = propose(_busy(seen, WORTH_PERCENT, 0))
    assert (found.service, found.node) == ("b", NODES[1])
    assert propose(_busy(seen, WORTH_PERCENT - 1, 0)).service == ""
    assert propose(_busy(seen, 90, None)).service == ""
    alike = propose(_busy(seen, 18, 18)).reason
    assert all(f"18 % of the time on {one}" in alike or f"18 % on {one}" in alike for one in NODES)
    assert "only service" in propose(_busy(seen, 0, 90)).reason
    crowded = _seen(tuple(msgspec.structs.replace(one, cost=2) for one in services), {"a": NODES[0], "b": NODES[0]}, 0)
    full = msgspec.structs.replace(crowded, capacities={NODES[1]: 1})
    assert "can move to nodo2" in propose(_busy(full, 90, 0)).reason


def test_pressure_is_read_and_told_in_steps(tmp_path: pathlib.Path) -> None:
    told = Pressure(tmp_path)
    assert told.look() is None
    for percent, expected in ((10, 10), (10 + STEP_PERCENT - 1, 10), (10 + STEP_PERCENT, 10 + STEP_PERCENT)):
        (tmp_path / "cpu").write_text(f"some avg10=99.00 avg60={percent}.00 avg300=0.00 total=7\n")
        assert told.look() == expected
    (tmp_path / "io").write_text(
        "some avg10=0 avg60=70.51 avg300=0.00 total=7\nfull avg10=0 avg60=99 avg300=0 total=7\n"
    )
    assert told.look() == 71
