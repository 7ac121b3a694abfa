"""`plan`: where a service belongs, why, and the next steps of this node."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from relevo.config.window import Window
from relevo.manager.model import (
    RECORD_FORMAT,
    UNUSABLE,
    Alive,
    BadFacts,
    Failure,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Original,
    Permission,
    Plan,
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
from relevo.manager.record import newest, with_ban, with_forced, with_maintenance, with_moved, with_standby
from relevo.manager.steps import RETRY_PAUSE_MS, STOP_RETRY_PAUSE_MS
from unit.cluster_samples import NODES, service

PARTS = ("mirror", "filesystem", "files", "address")
STOPPED = dict.fromkeys(PARTS, ResourceState.STOPPED)
STARTED = dict.fromkeys(PARTS, ResourceState.STARTED)
SETTLED = MirrorFacts(connection="Connected", disk="UpToDate", peer_disk="UpToDate", peer_role="Secondary")
YES = Permission(verdict=Verdict.YES, reason="Yes.", epoch=5)
WAIT = Permission(verdict=Verdict.WAIT, reason="Not yet.")
NIGHT = Window(begin=22 * 60, end=5 * 60)
NO = Permission(verdict=Verdict.NO, reason="No.", remedy="Do something.")


@dataclasses.dataclass
class Side:
    """One node as a test describes it."""

    state: ServiceState = ServiceState.STOPPED
    resources: dict[str, ResourceState] = dataclasses.field(default_factory=lambda: dict(STOPPED))
    alive: Alive = Alive.ALIVE
    told: bool = True
    ready: bool = True
    leaving: bool = False
    config_hash: str = "h"
    unread: str = ""
    mirror: MirrorFacts | None = SETTLED
    word: Permission = YES
    knows: int = RECORD_FORMAT
    service: dict[str, Any] = dataclasses.field(default_factory=dict)

    def view(self) -> NodeView:
        told = ServiceFacts(state=self.state, resources=self.resources, **{"step": 10, **self.service})
        facts = NodeFacts(
            boot_id="b",
            config_hash=self.config_hash,
            ready=self.ready,
            leaving=self.leaving,
            services={"web": told},
            mirrors={"r0": self.mirror},
            permissions={"r0": self.word},
            record_format=self.knows,
            unread=self.unread,
        )
        return NodeView(alive=self.alive, facts=facts if self.told else None)


def running(**changes: Any) -> Side:
    mirror = msgspec.structs.replace(SETTLED, role="Primary")
    return Side(**{"state": ServiceState.STARTED, "resources": dict(STARTED), "mirror": mirror, **changes})


def dead() -> Side:
    return Side(alive=Alive.DEAD)


def seen(
    me: str, nodo1: Side, nodo2: Side, *, now_ms: int = 0, record: Record | None = None, facts: Any = None, **more: Any
) -> Plan:
    sides = dict(zip(NODES, (nodo1, nodo2), strict=True))
    return plan(
        Snapshot(
            me=me,
            now_ms=now_ms,
            config_hash="h",
            services={"web": service(**more)},
            hosts={"web": NODES},
            nodes={name: side.view() for name, side in sides.items()},
            permissions={"r0": sides[me].word},
            record=record or Record(),
            **(facts or {}),
        )
    )


def steps(result: Plan) -> list[str]:
    return [f"{step.action} {step.resource}" for step in result.steps]


def target(result: Plan) -> str | None:
    return result.decisions["web"].target


START = [f"start {name}" for name in PARTS]
STOP = ["quiesce files", *(f"stop {name}" for name in reversed(PARTS))]


def test_it_starts_in_order_where_it_belongs_with_the_epoch_of_the_vote() -> None:
    result = seen("nodo1", Side(), Side())
    assert target(result) == "nodo1"
    assert steps(result) == START
    assert [step.number for step in result.steps] == [11, 12, 13, 14]
    assert [step.epoch for step in result.steps] == [5, 0, 0, 0]
    assert result.wanted == {"r0"}
    assert steps(seen("nodo2", Side(), Side())) == []


def test_the_same_snapshot_gives_the_same_plan() -> None:
    assert seen("nodo1", Side(), running()) == seen("nodo1", Side(), running())


def test_the_mirror_waits_for_an_epoch_that_is_on_stable_storage() -> None:
    result = seen("nodo1", Side(word=msgspec.structs.replace(YES, epoch=0)), Side())
    assert (steps(result), result.wanted) == ([], {"r0"})


def test_nothing_starts_while_an_alive_peer_has_not_stopped() -> None:
    for state in (ServiceState.STOPPING, ServiceState.FAILED, ServiceState.STARTING):
        there = running(state=state)
        assert steps(seen("nodo1", Side(), there, record=Record(counter=1, standby=("nodo2",)))) == []


def test_nothing_starts_while_a_peer_may_run_it_unseen() -> None:
    for there in (Side(told=False), Side(ready=False), Side(alive=Alive.UNKNOWN), Side(state=ServiceState.UNKNOWN)):
        result = seen("nodo1", Side(), there)
        assert (target(result), steps(result)) == (None, [])


def test_a_dead_peer_is_followed_only_with_permission() -> None:
    assert steps(seen("nodo2", dead(), Side())) == START
    result = seen("nodo2", dead(), Side(word=NO))
    decision = result.decisions["web"]
    assert (steps(result), decision.target, decision.blocked, decision.remedy) == ([], None, True, "Do something.")


def test_the_preferred_node_is_waited_for_but_not_if_it_says_no() -> None:
    assert target(seen("nodo2", Side(word=WAIT), Side())) is None
    assert target(seen("nodo2", Side(word=NO), Side())) == "nodo2"


def test_nothing_is_done_before_it_is_known_what_runs() -> None:
    unknown = Side(state=ServiceState.UNKNOWN, resources=dict.fromkeys(PARTS, ResourceState.UNKNOWN))
    assert seen("nodo1", unknown, dead()).steps == ()


def test_it_goes_back_when_everything_is_at_rest() -> None:
    result = seen("nodo2", Side(), running())
    assert (target(result), steps(result)) == ("nodo1", STOP)
    assert target(seen("nodo2", Side(), running(), auto_failback=False)) == "nodo2"


@pytest.mark.parametrize(
    "home",
    [
        Side(mirror=msgspec.structs.replace(SETTLED, connection="SyncTarget", disk="Inconsistent")),
        Side(mirror=msgspec.structs.replace(SETTLED, connection="SyncSource", peer_disk="Inconsistent")),
        Side(mirror=msgspec.structs.replace(SETTLED, connection="WFConnection")),
        Side(mirror=msgspec.structs.replace(SETTLED, split_brain=True)),
        Side(mirror=None),
        Side(ready=False),
        Side(leaving=True),
        Side(config_hash="other"),
        Side(service={"failures": {"files": Failure(3, 0)}}),
        dead(),
    ],
)
def test_it_does_not_go_back_before(home: Side) -> None:
    result = seen("nodo2", home, running())
    assert (target(result), steps(result)) == ("nodo2", [])


def test_a_failback_that_has_begun_goes_on() -> None:
    resources = {**STARTED, "files": ResourceState.QUIESCED}
    result = seen("nodo2", Side(), running(state=ServiceState.STOPPING, resources=resources))
    assert steps(result) == STOP[1:]


def test_different_configurations_are_an_alarm_and_no_reason_to_stop() -> None:
    result = seen("nodo2", Side(config_hash="other"), running())
    assert any("relevo.toml on nodo1 says something else" in alarm for alarm in result.alarms)
    assert target(seen("nodo2", dead(), Side(config_hash="h"))) == "nodo2"


def test_another_file_and_a_daemon_that_was_not_restarted_are_told_apart() -> None:
    def alarms(here: Side, there: Side) -> str:
        return " ".join(seen("nodo1", here, there).alarms)

    assert alarms(running(), Side()) == ""
    other_file = alarms(running(), Side(config_hash="other"))
    assert "relevo.toml on nodo2 says something else than the one on nodo1" in other_file
    assert "do not go back" in other_file
    waits = alarms(running(unread="other"), Side(config_hash="other"))
    assert "nodo1 has not read its changed relevo.toml yet" in waits, "nodo2 was restarted, nodo1 was not"
    assert "systemctl restart relevo-heartbeat relevo-node" in waits
    assert "something else" not in waits, "the files are equal"
    both = alarms(running(unread="new"), Side(unread="new"))
    assert "nodo1 has not read" in both
    assert "nodo2 has not read" in both
    assert "do not go back" not in both, "the daemons still agree"
    one = alarms(running(unread="new"), Side())
    assert "nodo1 has not read" in one
    assert "relevo.toml on nodo2 says something else" in one
    assert "is wrong now" in alarms(running(unread=UNUSABLE), Side())


def test_standby_moves_it_or_stops_it() -> None:
    record = with_standby(Record(), "nodo1", standby=True, by="nodo1")
    moves = seen("nodo1", running(), Side(), record=record)
    assert (target(moves), steps(moves)) == ("nodo2", STOP)
    stops = seen("nodo1", running(), dead(), record=record)
    assert (target(stops), steps(stops)) == (None, STOP)
    kept_down = seen("nodo1", Side(), dead(), record=record)
    assert target(kept_down) is None
    for result in (stops, kept_down):
        assert "relevo online nodo1" in result.decisions["web"].remedy
    assert target(seen("nodo2", Side(), Side(), record=record)) == "nodo2"


def test_who_leaves_stops_even_if_nobody_follows() -> None:
    result = seen("nodo1", running(leaving=True), dead())
    assert (target(result), steps(result)) == (None, STOP)


def test_a_failed_resource_is_restarted_with_what_stands_on_it() -> None:
    broken = running(state=ServiceState.FAILED, resources={**STARTED, "filesystem": ResourceState.FAILED})
    assert steps(seen("nodo1", broken, Side())) == ["stop address", "stop files", "stop filesystem"]
    half = {**STOPPED, "mirror": ResourceState.STARTED}
    assert steps(seen("nodo1", running(state=ServiceState.STARTING, resources=half), Side())) == START[1:]


def test_after_too_many_failures_it_moves_or_stays_and_says_so() -> None:
    resources = {**STARTED, "files": ResourceState.FAILED}
    worn = running(state=ServiceState.FAILED, resources=resources, service={"failures": {"files": Failure(3, 100)}})
    assert target(seen("nodo1", worn, Side())) == "nodo2"
    stays = seen("nodo1", worn, dead())
    assert (target(stays), steps(stays)) == ("nodo1", ["stop address", "stop files"])
    worn.resources = {**STARTED, "files": ResourceState.STOPPED, "address": ResourceState.STOPPED}
    assert steps(seen("nodo1", worn, dead(), now_ms=100 + RETRY_PAUSE_MS - 1)) == []
    assert steps(seen("nodo1", worn, dead(), now_ms=100 + RETRY_PAUSE_MS)) == ["start files", "start address"]


def test_a_stop_that_failed_blocks_and_is_tried_again_later() -> None:
    resources = {**STOPPED, "filesystem": ResourceState.BLOCKED, "mirror": ResourceState.STARTED}
    failures = {"filesystem": Failure(1, 100)}
    stuck = running(state=ServiceState.FAILED, resources=resources, service={"failures": failures, "reason": "Busy."})
    record = Record(counter=1, standby=("nodo1",))
    early = seen("nodo1", stuck, Side(), record=record, now_ms=100)
    decision = early.decisions["web"]
    assert (steps(early), decision.blocked) == ([], True)
    assert "filesystem could not be stopped" in decision.reason
    late = seen("nodo1", stuck, Side(), record=record, now_ms=100 + STOP_RETRY_PAUSE_MS)
    assert steps(late) == ["stop filesystem", "stop mirror"]
    assert steps(seen("nodo2", stuck, Side(), record=record)) == []


def test_running_twice_ends_with_one_and_only_when_both_agree() -> None:
    less = msgspec.structs.replace(SETTLED, role="Primary", split_brain=True, out_of_sync_bytes=4096)
    more = msgspec.structs.replace(less, out_of_sync_bytes=8192)
    keeps = running(mirror=more, service={"target": "nodo2"})
    result = seen("nodo1", running(mirror=less), keeps)
    assert (target(result), steps(result)) == ("nodo2", STOP)
    assert steps(seen("nodo1", running(mirror=less), running(mirror=more))) == []
    assert steps(seen("nodo2", running(mirror=less), running(mirror=more))) == []
    tie = seen("nodo2", running(mirror=less, service={"target": "nodo1"}), running(mirror=less))
    assert (target(tie), steps(tie)) == ("nodo1", STOP)
    later = seen("nodo2", running(mirror=less), running(mirror=less, service={"epoch": 2}))
    assert target(later) == "nodo2"


def test_in_a_split_brain_nothing_moves() -> None:
    split = msgspec.structs.replace(SETTLED, connection="StandAlone", split_brain=True)
    active = running(mirror=msgspec.structs.replace(split, role="Primary"))
    result = seen("nodo2", Side(mirror=split), active)
    assert (target(result), steps(result)) == ("nodo2", [])
    assert "relevo mirror resolve --keep" in result.decisions["web"].remedy
    assert [alarm.split(":")[0] for alarm in result.alarms] == ["Split brain of mirror r0"], "one alarm for both sides"
    assert "relevo mirror resolve r0 --keep NODE --dry-run" in result.alarms[0]


def test_a_split_brain_that_a_person_has_decided_about_is_an_alarm_until_it_is_over() -> None:
    """Whatever its mirrors say meanwhile: between two attempts they say nothing of it."""
    record = msgspec.structs.replace(Record(), kept={"r0": "nodo1"})
    parted = msgspec.structs.replace(SETTLED, connection="StandAlone", split_brain=True)
    for mirror in (SETTLED, parted):
        (alarm,) = seen("nodo2", Side(mirror=mirror), running(mirror=mirror), record=record).alarms
        assert "it is being resolved. What nodo1 changed stays" in alarm


def test_what_a_mirror_says_of_a_split_brain_is_told_once_and_what_it_adds_is_told() -> None:
    split = msgspec.structs.replace(SETTLED, connection="StandAlone", split_brain=True)
    plain = msgspec.structs.replace(split, problem="Both servers went on alone and changed their copies (split brain).")
    more = msgspec.structs.replace(split, problem="This side has lost it, but stays Primary: it is in use.")
    told = seen("nodo2", Side(mirror=plain), running(mirror=more)).alarms
    assert [alarm.split(":")[0] for alarm in told] == ["The mirror r0 on nodo2", "Split brain of mirror r0"]


def test_a_person_forces_it_and_the_word_is_cleared_when_done() -> None:
    record = with_forced(Record(), "web", "nodo2", by="nodo2")
    forced = msgspec.structs.replace(YES, force=True)
    result = seen("nodo2", dead(), Side(word=forced), record=record)
    assert steps(result) == START
    assert result.steps[0].force
    assert steps(seen("nodo1", running(), Side(), record=record)) == STOP
    done = seen("nodo2", Side(), running(), record=record)
    assert done.record.forced == {}
    assert done.record.version > record.version


def test_a_forced_move_to_a_copy_that_cannot_be_used_stops_nothing() -> None:
    record = with_forced(Record(), "web", "nodo2", by="nodo2")
    mixture = Side(mirror=msgspec.structs.replace(SETTLED, connection="SyncTarget", disk="Inconsistent"), word=NO)
    result = seen("nodo1", running(), mixture, record=record)
    assert (target(result), steps(result)) == ("nodo1", [])
    assert target(seen("nodo1", Side(), mixture, record=record)) == "nodo2"


def test_an_order_to_force_a_copy_that_cannot_be_used_keeps_nothing_from_running_and_is_forgotten() -> None:
    record = with_forced(Record(), "web", "nodo2", by="nodo2")
    word = msgspec.structs.replace(NO, rule="nothing_to_force")
    mixture = Side(mirror=msgspec.structs.replace(SETTLED, connection="SyncTarget", disk="Inconsistent"), word=word)
    result = seen("nodo1", Side(), mixture, record=record)
    assert (target(result), steps(result)) == ("nodo1", START)
    here = seen("nodo2", dead(), mixture, record=record)
    assert (target(here), here.wanted) == (None, set())
    assert here.record.forced == {}, "a server that comes back finds no order of yesterday"
    assert here.record.version > record.version


@pytest.mark.parametrize(("legacy", "waits"), [(True, "relevo leave"), (False, "has not agreed yet")])
def test_standby_beside_an_original_says_what_it_waits_for(*, legacy: bool, waits: str) -> None:
    record = with_standby(Record(), "nodo1", standby=True, by="nodo1")
    other = Original(node="nodo2", claims=frozenset({"ours"}), current=True, legacy=legacy)
    result = seen("nodo1", running(), Side(), record=record, facts={"original": other})
    assert (target(result), steps(result)) == ("nodo2", [])
    assert waits in result.decisions["web"].reason


def test_a_declined_start_waits_a_moment() -> None:
    declined = Side(service={"retry_at_ms": 500, "reason": "The peer is Primary."})
    assert steps(seen("nodo1", declined, Side(), now_ms=499)) == []
    assert steps(seen("nodo1", declined, Side(), now_ms=500)) == START


def test_the_newest_record_of_all_nodes_counts() -> None:
    older = with_standby(Record(), "nodo1", standby=True, by="nodo1")
    newer = with_standby(older, "nodo1", standby=False, by="nodo2")
    assert newest([newer, older, Record()]) is newer
    assert seen("nodo1", Side(), Side(), record=newer).record == newer


def test_facts_survive_their_journey() -> None:
    facts = running(service={"failures": {"files": Failure(1, 2)}, "target": "nodo1"}).view().facts
    assert facts is not None
    told = msgspec.json.decode(msgspec.json.encode(encode_facts(facts)))
    assert decode_facts(told) == facts
    assert decode_facts({**told, "invented_later": 1}) == facts
    with pytest.raises(BadFacts):
        decode_facts({"services": 3})


def test_a_ban_moves_it_or_stops_it_and_ends_by_itself() -> None:
    record = with_ban(Record(), "web", "nodo1", 100, by="nodo1")
    there, home = Side(), running()
    assert target(seen("nodo1", home, there, record=record)) == "nodo2"
    alone = seen("nodo1", home, dead(), record=record)
    assert target(alone) is None
    assert "relevo clear web" in alone.decisions["web"].remedy
    assert "banned from nodo1 until 1970-01-01 00:01 UTC" in alone.decisions["web"].reason
    assert target(seen("nodo1", home, there, record=record, facts={"utc_s": 100})) == "nodo1"


def test_a_moved_service_goes_there_and_belongs_there_even_without_failback() -> None:
    record = with_moved(Record(), "web", "nodo2", by="nodo1")
    home, there = running(), Side()
    for failback in (True, False):
        result = seen("nodo1", home, there, record=record, auto_failback=failback)
        assert target(result) == "nodo2"
    assert target(seen("nodo2", Side(), running(), record=record)) == "nodo2"
    unsettled = Side(mirror=msgspec.structs.replace(SETTLED, disk="Inconsistent"))
    assert target(seen("nodo1", home, unsettled, record=record)) == "nodo1"
    assert target(seen("nodo1", home, dead(), record=record)) == "nodo1"


def test_orders_that_a_peer_does_not_know_rest_and_that_is_said() -> None:
    record = with_ban(Record(), "web", "nodo1", by="nodo1")
    result = seen("nodo1", running(), Side(knows=0), record=record)
    assert target(result) == "nodo1"
    assert result.record == record
    assert any("rest until nodo2" in alarm for alarm in result.alarms)


def test_in_maintenance_nothing_is_started_stopped_or_restarted() -> None:
    record = with_maintenance(Record(), "web", ("web",), on=True, by="nodo1")
    broken = {**STARTED, "address": ResourceState.FAILED}
    standby = with_standby(record, "nodo1", standby=True, by="nodo1")
    for home, kept in (
        (running(resources=broken, state=ServiceState.FAILED), record),
        (Side(), record),
        (running(), standby),
    ):
        result = seen("nodo1", home, Side(), record=kept)
        assert steps(result) == []
        assert result.wanted == frozenset()
        assert result.maintained == {"web"}
        assert "maintenance" in result.decisions["web"].reason
    assert steps(seen("nodo2", dead(), Side(), record=record)) == []


def test_a_node_that_goes_or_has_lost_stops_even_in_maintenance() -> None:
    record = with_maintenance(Record(), "web", ("web",), on=True, by="nodo1")
    assert steps(seen("nodo1", running(leaving=True), Side(), record=record))
    lost = Permission(verdict=Verdict.NO, rule="outvoted", reason="Lost.")
    assert steps(seen("nodo1", running(word=lost), dead(), record=record))


@pytest.mark.parametrize(
    ("options", "facts", "goes"),
    [
        ({"failback_delay_ms": 5000}, {"ready_ms": {"nodo1": 4999}}, False),
        ({"failback_delay_ms": 5000}, {}, False),
        ({"failback_delay_ms": 5000}, {"ready_ms": {"nodo1": 5000}}, True),
        ({"failback_window": NIGHT}, {"local_minute": 12 * 60}, False),
        ({"failback_window": NIGHT}, {"local_minute": 5 * 60}, False),
        ({"failback_window": NIGHT}, {"local_minute": 22 * 60}, True),
        ({"failback_window": NIGHT}, {"local_minute": 4 * 60 + 59}, True),
    ],
)
def test_it_goes_back_after_a_delay_or_in_a_part_of_the_day(options: Any, facts: Any, *, goes: bool) -> None:
    result = seen("nodo2", Side(), running(), facts=facts, **options)
    assert target(result) == ("nodo1" if goes else "nodo2")
    # What has begun goes on, and a person need not wait.
    assert target(seen("nodo2", Side(), running(state=ServiceState.STOPPING), facts=facts, **options)) == "nodo1"
    moved = with_moved(Record(), "web", "nodo1", by="nodo1")
    assert target(seen("nodo2", Side(), running(), record=moved, facts=facts, **options)) == "nodo1"


def test_where_a_stop_failed_the_node_is_fenced_by_one_that_can_take_over_or_it_is_said() -> None:
    stuck = {**STARTED, "filesystem": ResourceState.BLOCKED}
    there = running(resources=stuck, state=ServiceState.FAILED)
    can = {"fenceable": frozenset({"nodo1"})}
    result = seen("nodo2", there, Side(), facts=can)
    assert list(result.fence) == ["nodo1"]
    assert "filesystem of web could not be stopped on nodo1" in " ".join(result.alarms)
    unable = seen("nodo2", there, Side(), facts={})
    assert unable.fence == {}
    assert "nothing can switch nodo1 off" in " ".join(unable.alarms)
    behind = Side(mirror=msgspec.structs.replace(SETTLED, disk="Inconsistent"))
    left_alone = with_maintenance(Record(), "web", ("web",), on=True, by="nodo1")
    assert seen("nodo2", there, behind, facts=can).fence == {}
    assert seen("nodo2", there, Side(), record=left_alone, facts=can).fence == {}
    assert seen("nodo1", there, Side(), facts=can).fence == {}
