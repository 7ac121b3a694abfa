"""The cluster record: orders of people, and programs of different versions side by side."""

from __future__ import annotations

import json

import msgspec
import pytest

from relevo.manager import record as records
from relevo.manager.model import (
    EVERY_SERVICE,
    RECORD_FORMAT,
    BadFacts,
    NodeFacts,
    Record,
    decode_facts,
    decode_record,
    encode_facts,
    encode_record,
)

BANNED = records.with_ban(Record(), "web", "nodo1", by="nodo2")


class Older(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of a program that drops what it does not know."""

    epoch: int = 0
    counter: int = 0
    node: str = ""
    standby: tuple[str, ...] = ()


def _through_older(record: Record, **changes: object) -> Record:
    """The record after it was read, perhaps changed, and told again by an older program."""
    told = msgspec.convert(encode_record(record), Older)
    if changes:
        told = msgspec.structs.replace(told, counter=told.counter + 1, node="nodo1", **changes)
    return decode_record(msgspec.to_builtins(told))


def test_what_an_older_program_repeats_loses_nothing_and_changes_nothing() -> None:
    told = _through_older(BANNED)
    assert told.version == BANNED.version
    assert told.bans == {}
    for order in ([BANNED, told], [told, BANNED]):
        assert records.newest(order) is BANNED
    assert records.settled(BANNED, [told], by="nodo2") is BANNED
    # The older one was upgraded and finds its own stripped copy: the peer's counts.
    assert records.settled(told, [BANNED], by="nodo1") is BANNED


def test_what_an_older_program_decides_counts_and_loses_nothing() -> None:
    told = _through_older(BANNED, standby=("nodo1",))
    kept = records.settled(BANNED, [told], by="nodo2")
    assert kept.standby == ("nodo1",)
    assert kept.bans == BANNED.bans
    assert kept.version > told.version
    # It comes to rest: the older one repeats the new version, and nobody writes again.
    assert records.settled(kept, [_through_older(kept)], by="nodo2") is kept


def test_fields_of_a_newer_program_are_kept_passed_on_and_put_back() -> None:
    newer = {"epoch": 1, "counter": 4, "node": "nodo2", "format": RECORD_FORMAT + 1, "quota": {"web": 3}}
    record = decode_record(json.loads(json.dumps(newer)))
    changed = records.with_standby(record, "nodo1", standby=True, by="nodo1")
    facts = NodeFacts(boot_id="b", config_hash="h", record=changed)
    told = json.loads(json.dumps(encode_facts(facts)))
    own = {"counter": 5, "node": "nodo1", "standby": ["nodo1"], "written": {"nodo1": 5}}
    assert told["record"] == {**newer, **own}
    assert decode_facts(told) == facts
    written = msgspec.structs.replace(BANNED, epoch=9)
    kept = records.settled(changed, [written], by="nodo1")
    assert encode_record(kept)["quota"] == {"web": 3}
    assert kept.bans == BANNED.bans
    assert kept.format == RECORD_FORMAT + 1


BASE = records.with_moved(BANNED, "db", "nodo2", by="nodo2")


def test_what_people_decided_on_both_sides_of_a_partition_is_kept() -> None:
    here = records.with_standby(BASE, "nodo1", standby=True, by="nodo1")
    here = records.cleared(here, "web", by="nodo1")
    there = records.with_maintenance(BASE, "db", ("db", "web"), on=True, by="nodo2", epoch=9)
    assert records.settled(there, [here], by="nodo2", shared=BASE) is there, "the newer one waits for the other"
    joined = records.settled(here, [there], by="nodo1", shared=BASE)
    assert joined.version > there.version
    assert (joined.standby, joined.maintenance, joined.bans, joined.moved) == (("nodo1",), ("db",), {}, BASE.moved)
    assert records.settled(there, [joined], by="nodo2", shared=BASE) is joined
    assert records.settled(joined, [there], by="nodo1", shared=BASE) is joined, "it comes to rest"


def test_where_both_sides_decided_about_the_same_the_newer_one_counts() -> None:
    here = records.with_ban(BASE, "web", "nodo2", by="nodo1")
    there = records.cleared(BASE, "web", by="nodo2", epoch=9)
    assert records.settled(here, [there], by="nodo1", shared=BASE) is there


def test_what_was_taken_back_by_somebody_who_knew_of_it_stays_away() -> None:
    """This node has not heard that the other one has its decision before it hears that it was taken back."""
    here = records.with_standby(BASE, "nodo1", standby=True, by="nodo1")
    there = records.with_standby(here, "nodo1", standby=False, by="nodo2")
    assert records.settled(here, [there], by="nodo1", shared=BASE) is there
    older = _through_older(here, standby=())
    assert records.settled(here, [older], by="nodo1", shared=here).standby == ()


def test_after_a_restart_nobody_knows_what_was_decided_apart_and_the_newer_one_counts() -> None:
    here = records.with_standby(BASE, "nodo1", standby=True, by="nodo1")
    there = records.with_maintenance(BASE, "db", ("db", "web"), on=True, by="nodo2", epoch=9)
    assert records.settled(here, [there], by="nodo1") is there


@pytest.mark.parametrize("told", [{"epoch": -1}, {"bans": {"web": ["nodo1"]}}, [], "x"])
def test_what_is_no_record_is_refused(told: object) -> None:
    with pytest.raises(BadFacts):
        decode_record(told)


def test_orders_are_taken_back_one_by_one() -> None:
    moved = records.with_moved(BANNED, "web", "nodo2", by="nodo1")
    other = records.with_ban(moved, "mail", "nodo2", 50, by="nodo1")
    rest = records.cleared(other, "web", by="nodo1")
    assert (rest.bans, rest.moved) == ({"mail": {"nodo2": 50}}, {})
    versions = [one.version for one in (BANNED, moved, other, rest)]
    assert versions == sorted(set(versions))


def test_one_service_leaves_the_maintenance_of_all() -> None:
    everything = records.with_maintenance(Record(), EVERY_SERVICE, ("web", "mail"), on=True, by="nodo1")
    assert everything.maintains("web")
    rest = records.with_maintenance(everything, "web", ("web", "mail"), on=False, by="nodo1")
    assert rest.maintenance == ("mail",)
    assert records.with_maintenance(rest, EVERY_SERVICE, ("web", "mail"), on=False, by="nodo1").maintenance == ()
