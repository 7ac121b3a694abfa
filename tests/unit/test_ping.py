"""Ping targets: when one is reached or lost, what that moves and what it does not."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.base.icmp import checksum, echo_reply, echo_request
from relevo.config.ping import Ping, least_deadping_ms
from relevo.manager.model import (
    Alive,
    Failure,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Permission,
    Plan,
    Reach,
    Record,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Snapshot,
    Verdict,
    decode_facts,
    encode_facts,
)
from relevo.manager.planner import plan
from relevo.manager.reach import gain
from relevo.manager.record import with_maintenance, with_moved, with_standby
from relevo.node.pinger import Pinger
from relevo.node.reach import Watch
from unit.cluster_samples import NODES, service

REACHED, DOUBTFUL, LOST = Reach.REACHED, Reach.DOUBTFUL, Reach.LOST
SETTINGS = Ping(targets={"router": (IPv4Address("192.0.2.1"),)}, interval_ms=1000, deadping_ms=10_000, settle_ms=60_000)
PARTS = ("mirror", "filesystem", "files", "address")


# ---------------------------------------------------------------- when a target is lost


class Course:
    """A watch that is looked at twice in each interval while its target answers, or does not."""

    def __init__(self, settings: Ping = SETTINGS) -> None:
        self.now_ms = 5000
        self.watch = Watch(settings, self.now_ms)

    def word(self) -> Reach:
        return self.watch.look(self.now_ms)["router"]

    def goes_on(self, seconds: float, *, answers: bool) -> Reach:
        for half in range(int(seconds * 2)):
            self.now_ms += 500
            if answers and half % 2:
                self.watch.answered("router", self.now_ms)
            self.word()
        return self.word()


def test_a_target_is_reached_after_settle_and_lost_after_deadping() -> None:
    course = Course()
    assert course.word() is DOUBTFUL
    assert course.goes_on(60, answers=True) is DOUBTFUL
    assert course.goes_on(1, answers=True) is REACHED
    assert course.goes_on(2, answers=False) is REACHED, "one lost packet is nothing"
    assert course.goes_on(1, answers=False) is DOUBTFUL
    assert course.goes_on(6.5, answers=False) is DOUBTFUL
    assert course.goes_on(0.5, answers=False) is LOST
    assert course.goes_on(1, answers=True) is DOUBTFUL
    assert course.goes_on(60, answers=True) is REACHED


def test_a_target_that_never_answers_is_lost_and_one_that_flaps_is_never_reached_again() -> None:
    course = Course()
    assert course.goes_on(10, answers=False) is LOST
    for _ in range(20):
        assert course.goes_on(30, answers=True) is DOUBTFUL
        assert course.goes_on(5, answers=False) is DOUBTFUL


def test_who_stood_still_has_not_lost_what_it_could_not_hear() -> None:
    course = Course()
    course.goes_on(61, answers=True)
    course.now_ms += 3_600_000
    assert course.word() is REACHED


DEADTIME_MS = 1000


@given(st.integers(0, 999), st.integers(0, 5000), st.integers(0, 9000))
def test_what_falls_silent_or_returns_for_both_is_never_lost_here_and_reached_there(
    phase_ms: int, silence_ms: int, longer_ms: int
) -> None:
    """Two servers with different phases of asking, whose words arrive up to deadtime late."""
    deadping_ms = least_deadping_ms(SETTINGS.interval_ms, DEADTIME_MS) + longer_ms
    settings = msgspec.structs.replace(SETTINGS, deadping_ms=deadping_ms, settle_ms=4000)
    watches = [Watch(settings, 0), Watch(settings, 0)]
    told: list[list[Reach]] = [[], []]
    silent = range(8000, 8000 + deadping_ms + silence_ms)
    for now_ms in range(0, silent.stop + 8000, 50):
        for number, watch in enumerate(watches):
            if now_ms % 1000 == (phase_ms * number) // 50 * 50 and now_ms not in silent:
                watch.answered("router", now_ms)
            told[number].append(watch.look(now_ms)["router"])
    for mine, theirs in (told, told[::-1]):
        for at, word in enumerate(mine):
            assert not (word is LOST and REACHED in theirs[max(0, at - DEADTIME_MS // 50) : at + 1])


# ---------------------------------------------------------------- what moves


@dataclasses.dataclass
class Side:
    """A node as the plan sees it."""

    word: Reach | None = REACHED
    active: bool = False
    disk: str = "UpToDate"
    connection: str = "Connected"
    alive: Alive = Alive.ALIVE
    failures: int = 0
    config_hash: str = "h"
    more: dict[str, Reach] = dataclasses.field(default_factory=dict)

    def facts(self) -> NodeFacts:
        state = ServiceState.STARTED if self.active else ServiceState.STOPPED
        parts = dict.fromkeys(PARTS, ResourceState.STARTED if self.active else ResourceState.STOPPED)
        failures = {"files": Failure(count=self.failures, last_ms=0)} if self.failures else {}
        mirror = MirrorFacts(
            role="Primary" if self.active else "Secondary",
            connection=self.connection,
            disk=self.disk,
            peer_disk="UpToDate",
        )
        return NodeFacts(
            boot_id="b",
            config_hash=self.config_hash,
            ready=True,
            services={"web": ServiceFacts(state=state, step=3, resources=parts, failures=failures)},
            mirrors={"r0": mirror},
            permissions={"r0": YES},
            record_format=2,
            reach={**({"router": self.word} if self.word is not None else {}), **self.more},
        )


YES = Permission(verdict=Verdict.YES, reason="Yes.", epoch=5)


def planned(nodo1: Side, nodo2: Side, record: Record | None = None, **more: Any) -> Plan:
    """What every node that lives plans: the same."""
    sides = dict(zip(NODES, (nodo1, nodo2), strict=True))
    plans = [
        plan(
            Snapshot(
                me=me,
                now_ms=0,
                config_hash="h",
                services={"web": service(**more)},
                hosts={"web": NODES},
                nodes={name: NodeView(alive=side.alive, facts=side.facts()) for name, side in sides.items()},
                permissions={"r0": YES},
                record=record or Record(),
            )
        )
        for me, side in sides.items()
        if side.alive is Alive.ALIVE
    ]
    assert len({result.decisions["web"].target for result in plans}) == 1
    return plans[0]


def where(result: Plan) -> tuple[str | None, str]:
    return result.decisions["web"].target, result.decisions["web"].reason


@pytest.mark.parametrize("home", NODES)
def test_a_service_goes_where_the_target_is_reached_wherever_it_belongs(home: str) -> None:
    target, reason = where(planned(Side(LOST, active=True), Side(REACHED), prefer=home))
    assert target == "nodo2"
    assert "nodo1 has lost the ping target router, which nodo2 reaches" in reason


@pytest.mark.parametrize(
    ("mine", "theirs", "why"),
    [
        (Side(LOST), Side(LOST), "nodo2 is no better off"),
        (Side(LOST), Side(DOUBTFUL), "nodo2 is no better off"),
        (Side(LOST), Side(None), "nodo2 is no better off"),  # an older program, which does not say
        (Side(LOST), Side(alive=Alive.DEAD), "nodo2 is dead"),
        (Side(LOST), Side(disk="Inconsistent", connection="SyncTarget"), "the copy on nodo2 is Inconsistent"),
        (Side(LOST), Side(disk="UpToDate", connection="WFConnection"), "not connected"),
        (Side(LOST), Side(failures=3), "failed too often on nodo2"),
        (Side(LOST), Side(config_hash="other"), "nodo2 is no better off"),
        (Side(DOUBTFUL), Side(), ""),
        (Side(None), Side(), ""),
        (Side(LOST, more={"b": REACHED}), Side(more={"b": DOUBTFUL}), "nodo2 is no better off"),
    ],
)
def test_it_stays_unless_the_other_node_is_better_off_and_can_take_it(mine: Side, theirs: Side, why: str) -> None:
    target, reason = where(planned(dataclasses.replace(mine, active=True), theirs))
    assert target == "nodo1"
    assert ("although it has lost the ping target router" in reason) is bool(why)
    assert why in reason


def test_between_stop_and_start_it_does_not_turn_round() -> None:
    assert where(planned(Side(LOST), Side(REACHED)))[0] == "nodo2"
    assert where(planned(Side(LOST), Side(LOST)))[0] == "nodo1"
    syncing = Side(REACHED, disk="Inconsistent", connection="SyncTarget")
    assert where(planned(Side(LOST), syncing))[0] == "nodo1"


@pytest.mark.parametrize(("word", "goes"), [(REACHED, True), (DOUBTFUL, False), (LOST, False)])
@pytest.mark.parametrize("there", [REACHED, LOST])
def test_it_goes_back_only_where_every_target_is_reached(word: Reach, there: Reach, *, goes: bool) -> None:
    target, reason = where(planned(Side(word), Side(there, active=True)))
    assert target == ("nodo1" if goes else "nodo2")
    assert ("nodo1 has" in reason) is not goes


def test_a_person_may_send_it_where_a_target_is_lost_unless_it_would_only_come_back() -> None:
    record = with_moved(Record(), "web", "nodo2", by="nodo1")
    assert where(planned(Side(LOST, active=True), Side(LOST), record))[0] == "nodo2"
    assert where(planned(Side(REACHED, active=True), Side(DOUBTFUL), record))[0] == "nodo2"
    target, reason = where(planned(Side(REACHED, active=True), Side(LOST), record))
    assert target == "nodo1"
    assert "nodo2 has lost the ping target router" in reason


def test_what_people_say_and_what_fails_comes_first() -> None:
    standby = with_standby(Record(), "nodo1", standby=True, by="nodo1")
    assert where(planned(Side(REACHED, active=True), Side(LOST), standby))[0] == "nodo2"
    maintained = with_maintenance(Record(), "web", ("web",), on=True, by="nodo1")
    assert where(planned(Side(LOST, active=True), Side(REACHED), maintained))[0] == "nodo1"
    assert where(planned(Side(LOST, active=True, failures=3), Side(LOST)))[0] == "nodo2"


_WORDS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(Reach))


@given(_WORDS, _WORDS)
def test_no_two_nodes_have_something_to_gain_from_each_other(mine: dict[str, Reach], theirs: dict[str, Reach]) -> None:
    here, there = (NodeFacts(boot_id="b", config_hash="h", reach=words) for words in (mine, theirs))
    assert not (gain(here, there) and gain(there, here))


def test_an_older_program_reads_the_facts_and_a_newer_one_reads_its() -> None:
    told = encode_facts(NodeFacts(boot_id="b", config_hash="h", reach={"router": LOST}))
    assert told["reach"] == {"router": "lost"}
    assert decode_facts(told).reach == {"router": LOST}
    assert decode_facts({"boot_id": "b", "config_hash": "h"}).reach == {}
    assert "reach" not in encode_facts(NodeFacts(boot_id="b", config_hash="h")), "none where nothing is asked"


# ---------------------------------------------------------------- the wire


def test_an_echo_is_what_rfc_792_says() -> None:
    question = echo_request(0x1234, 7, b"relevo!")
    assert question[:2] == b"\x08\x00"
    assert checksum(question) == 0
    answer = b"\x00" + question[1:]
    header = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 10, 0, 0, 1])
    reply = echo_reply(header + answer)
    assert reply is not None
    assert (str(reply.source), reply.identifier, reply.sequence, reply.data) == ("192.0.2.1", 0x1234, 7, b"relevo!")
    for other in (b"", header, header + question, header[:9] + b"\x11" + header[10:] + answer, header + answer[:5]):
        assert echo_reply(other) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="a raw socket needs root")
def test_an_address_that_answers_is_reached() -> None:
    async def scene() -> None:
        changed = asyncio.Event()
        settings = Ping(targets={"here": (IPv4Address("127.0.0.1"),)}, interval_ms=100, settle_ms=0)
        pinger = Pinger(settings, lambda: int(asyncio.get_running_loop().time() * 1000), changed.set)
        task = asyncio.create_task(pinger.run())
        async with asyncio.timeout(30):
            while pinger.words() != {"here": REACHED}:
                changed.clear()
                await changed.wait()
        assert pinger.trouble == ""
        task.cancel()

    asyncio.run(scene())
