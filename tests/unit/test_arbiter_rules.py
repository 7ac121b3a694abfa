"""The arbiter's rules, one situation each; promises 1 to 3 of ARCHITECTURE.md."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from relevo.arbiter.arbiter import EPOCH_PAUSE_MS, REPEAT_MS, Arbiter
from relevo.arbiter.events import (
    AllowAlone,
    MarkedOutdated,
    Observed,
    Outdate,
    Permission,
    Permit,
    Persist,
    Persisted,
    ProbeLink,
    State,
    Verdict,
)
from relevo.arbiter.rules import LINK_GRACE_MS
from relevo.config.model import Config
from relevo.manager.model import Alive, MirrorFacts, NodeFacts, NodeView, ServiceFacts, ServiceState
from unit.cluster_samples import configuration

LINKED: dict[str, Any] = {"connection": "Connected", "disk": "UpToDate", "peer_disk": "UpToDate"}
CUT: dict[str, Any] = {"connection": "WFConnection", "disk": "UpToDate", "peer_disk": "DUnknown"}
GENERATION = "A000000000000000"
LATER = "B000000000000000"


def mirror(base: dict[str, Any], **changes: Any) -> MirrorFacts:
    return MirrorFacts(**{"current_uuid": GENERATION, **base, **changes})


def peer(
    alive: str = "alive",
    *,
    state: str = "stopped",
    theirs: MirrorFacts | None = None,
    ready: bool = True,
    told: bool = True,
    epoch: int = 0,
    late: bool = False,
) -> NodeView:
    facts = NodeFacts(
        boot_id="b",
        config_hash="h",
        ready=ready,
        services={"web": ServiceFacts(state=ServiceState(state), step=7)},
        mirrors={"r0": theirs},
        epochs={"r0": epoch},
    )
    return NodeView(alive=Alive(alive), late=late, facts=facts if told else None)


class Bench:
    """An arbiter of nodo2 whose stable storage answers at once."""

    def __init__(self, config: Config | None = None, state: State | None = None) -> None:
        self.arbiter = Arbiter(config or configuration(), "nodo2", state or State())
        self.now_ms = 0
        self.effects: list[object] = []

    def see(self, mine: MirrorFacts | None, other: NodeView, *, after_ms: int = 0, **more: Any) -> Permission:
        self.now_ms += after_ms
        seen = Observed(
            now_ms=self.now_ms,
            initdead_passed=more.get("initdead_passed", True),
            peers={"nodo1": other},
            mirrors={"r0": mine},
            wanted=frozenset({"r0"}) if more.get("wanted", True) else frozenset(),
            forced=frozenset({"web"}) if more.get("forced") else frozenset(),
        )
        self.effects = list(self.arbiter.step(seen))
        for effect in list(self.effects):
            if isinstance(effect, Persist):
                self.effects += self.arbiter.step(Persisted(state=effect.state))
        return self.arbiter.permissions["r0"]

    def lose(self, other_alive: str, theirs: MirrorFacts | None = None, **mine: Any) -> Permission:
        """In sync with a Primary, then its link is gone and this is what the heartbeats say."""
        self.see(mirror(LINKED, peer_role="Primary"), peer(state="started", theirs=mirror(LINKED, role="Primary")))
        theirs = theirs or mirror(LINKED, role="Primary", peer_role="Secondary")
        return self.see(mirror(CUT, **mine), peer(other_alive, state="started", theirs=theirs))


def test_the_disk_of_a_live_link_decides_whatever_the_heartbeats_say() -> None:
    for alive in ("alive", "dead", "left", "unknown"):
        word = Bench().see(mirror(LINKED, peer_role="Primary"), peer(alive))
        assert (word.verdict, word.rule, word.epoch) == (Verdict.WAIT, "peer_is_primary", 0)


def test_a_force_does_not_pass_over_a_live_primary() -> None:
    word = Bench().see(mirror(LINKED, peer_role="Primary"), peer("dead"), forced=True)
    assert word.rule == "peer_is_primary"


def test_an_orderly_hand_over_needs_stopped_and_the_link() -> None:
    linked = mirror(LINKED, peer_role="Secondary")
    for state in ("started", "starting", "stopping", "failed", "unknown"):
        assert Bench().see(linked, peer(state=state, theirs=linked)).rule == "peer_runs"
    word = Bench().see(linked, peer(theirs=linked))
    assert (word.verdict, word.rule, word.epoch) == (Verdict.YES, "hand_over", 1)


def test_an_alive_peer_that_tells_nothing_is_waited_for() -> None:
    linked = mirror(LINKED, peer_role="Secondary")
    assert Bench().see(linked, peer(told=False)).rule == "peer_not_ready"
    assert Bench().see(linked, peer(ready=False)).rule == "peer_not_ready"


def test_a_secondary_that_saw_the_primary_fall_silent_takes_over() -> None:
    word = Bench().lose("dead")
    assert (word.verdict, word.rule, word.epoch) == (Verdict.YES, "take_over", 1)


def test_the_mirror_may_remember_that_for_a_restarted_node_daemon() -> None:
    assert Bench().see(mirror(CUT, peer_lost_since_connect=True), peer("dead", told=False)).rule == "take_over"


def test_while_the_primary_is_only_silent_on_the_mirror_nothing_is_promoted() -> None:
    assert Bench().lose("alive").rule == "peer_runs"


def test_who_heard_that_the_primary_went_alone_does_not_take_over() -> None:
    word = Bench().lose("dead", mirror(CUT, role="Primary"))
    assert (word.verdict, word.rule) == (Verdict.NO, "peer_went_alone")
    assert "relevo force web" in word.remedy


def test_a_restarted_mirror_process_is_a_fresh_secondary() -> None:
    bench = Bench()
    bench.lose("alive")
    bench.see(None, peer("alive", state="started", theirs=mirror(CUT, role="Primary")))
    word = bench.see(mirror(CUT), peer("dead", state="started", theirs=mirror(LINKED, role="Primary")))
    assert (word.verdict, word.rule) == (Verdict.NO, "fresh_secondary")
    assert "relevo force web" in word.remedy


def test_the_last_primary_boots_alone_but_only_after_initdead() -> None:
    mine = mirror(CUT, was_primary_at_start=True)
    assert Bench().see(mine, peer("unknown", told=False), initdead_passed=False).rule == "initdead"
    assert Bench().see(mine, peer("dead", told=False), initdead_passed=False).verdict is Verdict.WAIT
    assert Bench().see(mine, peer("dead", told=False)).rule == "boot_alone"


def test_having_been_primary_counts_no_more_once_the_mirror_has_met_its_peer() -> None:
    bench = Bench()
    bench.see(mirror(LINKED, disk="Inconsistent", was_primary_at_start=True), peer(told=False))
    word = bench.see(mirror(CUT, was_primary_at_start=True), peer("dead", told=False))
    assert word.rule == "fresh_secondary"


@pytest.mark.parametrize("disk", ["Inconsistent", "Outdated", "Diskless", "Failed"])
def test_old_or_broken_data_is_never_promoted_by_itself(disk: str) -> None:
    assert Bench().lose("dead", disk=disk).verdict is Verdict.NO
    linked = mirror(LINKED, peer_role="Secondary", disk=disk)
    assert Bench().see(linked, peer(theirs=linked)).verdict is Verdict.NO


def test_a_person_may_force_an_old_copy_but_not_a_mixture() -> None:
    word = Bench().see(mirror(CUT, disk="Outdated"), peer("dead", told=False), forced=True)
    assert (word.verdict, word.force, word.epoch) == (Verdict.YES, True, 1)
    assert Bench().see(mirror(CUT, disk="Inconsistent"), peer("dead"), forced=True).rule == "nothing_to_force"
    assert Bench().see(mirror(CUT), peer("alive", state="started"), forced=True).rule == "forced_waits"
    assert Bench().see(mirror(CUT), peer("alive", told=False), forced=True).rule == "forced_waits"


def test_a_peer_that_left_in_order_has_marked_its_copy() -> None:
    outdated = mirror(CUT, disk="Outdated", outdated=True)
    assert Bench().see(mirror(CUT), peer("left", theirs=outdated)).rule == "left_in_order"
    assert Bench().see(mirror(CUT), peer("left", theirs=mirror(CUT))).rule == "fresh_secondary"


def test_without_leave_to_risk_silence_proves_nothing() -> None:
    bench = Bench(configuration(alone="ask"))
    assert bench.lose("dead").rule == "no_proof"
    outdated = mirror(CUT, disk="Outdated", outdated=True)
    assert Bench(configuration(alone="ask")).see(mirror(CUT), peer("left", theirs=outdated)).verdict is Verdict.YES


def test_two_alive_nodes_without_a_link_need_time_generation_and_a_vote() -> None:
    mine = mirror(CUT, was_primary_at_start=True, current_uuid=LATER, bitmap_uuid=GENERATION)
    bench = Bench()
    assert bench.see(mine, peer(theirs=mirror(CUT))).rule == "connecting"
    word = bench.see(mine, peer(theirs=mirror(CUT)), after_ms=LINK_GRACE_MS)
    assert (word.verdict, word.rule, word.epoch) == (Verdict.YES, "last_primary", 0)
    word = bench.see(mine, peer(theirs=mirror(CUT), epoch=1))
    assert word.epoch == 1
    bench = Bench()
    bench.see(mirror(CUT), peer(theirs=mine))
    word = bench.see(mirror(CUT), peer(theirs=mine, epoch=1), after_ms=LINK_GRACE_MS)
    assert (word.verdict, word.rule) == (Verdict.NO, "unlinked")


def test_an_epoch_is_above_every_one_seen_and_counts_only_when_stored() -> None:
    arbiter = Arbiter(configuration(), "nodo2", State(seen={"r0": 3}, mine={"r0": 2}))
    linked = mirror(LINKED, peer_role="Secondary", epoch=5)
    seen = Observed(
        now_ms=0,
        initdead_passed=True,
        peers={"nodo1": peer(theirs=linked, epoch=8)},
        mirrors={"r0": linked},
        wanted=frozenset({"r0"}),
    )
    effects = arbiter.step(seen)
    assert [effect.state.mine["r0"] for effect in effects if isinstance(effect, Persist)] == [9]
    assert arbiter.permissions["r0"].epoch == 0
    assert arbiter.epochs == {"r0": 3}, "a vote is published only when it is stored"
    stored = next(effect.state for effect in effects if isinstance(effect, Persist))
    after = arbiter.step(Persisted(state=stored))
    assert any(isinstance(effect, Permit) for effect in after)
    assert arbiter.permissions["r0"].epoch == 9


def test_a_higher_epoch_elsewhere_takes_the_own_one_away() -> None:
    linked = mirror(LINKED, peer_role="Secondary")
    bench = Bench()
    assert bench.see(linked, peer(theirs=linked)).epoch == 1
    assert bench.see(linked, peer(theirs=linked, epoch=2), wanted=False).epoch == 0
    assert bench.see(linked, peer(theirs=linked, epoch=2)).epoch == 0, "not so soon"
    assert bench.see(linked, peer(theirs=linked, epoch=2), after_ms=EPOCH_PAUSE_MS).epoch == 3


def test_nothing_is_taken_that_is_not_wanted() -> None:
    linked = mirror(LINKED, peer_role="Secondary")
    bench = Bench()
    assert bench.see(linked, peer(theirs=linked), wanted=False).epoch == 0
    assert not any(isinstance(effect, Persist) for effect in bench.effects)


def test_a_copy_that_is_being_left_behind_is_marked() -> None:
    bench = Bench()
    bench.lose("alive", mirror(CUT, role="Primary", current_uuid=LATER, bitmap_uuid=GENERATION))
    assert Outdate(mirror="r0") in bench.effects
    bench = Bench()
    bench.lose("alive", mirror(CUT, role="Primary", current_uuid=LATER, bitmap_uuid="C000000000000000"))
    assert Outdate(mirror="r0") not in bench.effects, "copies that merely differ are both kept"


def test_a_silent_peer_behind_a_living_link_is_probed() -> None:
    bench = Bench()
    linked = mirror(LINKED, peer_role="Primary")
    bench.see(linked, peer(state="started", late=True))
    assert ProbeLink(mirror="r0") in bench.effects
    bench.see(linked, peer(state="started", late=True), after_ms=10)
    assert ProbeLink(mirror="r0") not in bench.effects, "not at every glance"
    bench.see(linked, peer("dead", state="started"), after_ms=1000)
    assert ProbeLink(mirror="r0") in bench.effects


def test_a_suspended_primary_goes_on_when_the_other_left_in_order() -> None:
    bench = Bench(configuration(alone="ask"), State(seen={"r0": 4}, mine={"r0": 4}))
    alone = mirror(CUT, role="Primary", suspended=True)
    assert not bench.see(alone, peer("dead", theirs=mirror(LINKED))).may_continue_alone
    assert bench.see(alone, peer("left", theirs=mirror(LINKED))).may_continue_alone
    assert any(isinstance(effect, AllowAlone) for effect in bench.effects)


def test_a_suspended_primary_goes_on_when_the_other_copy_has_stood_back_since() -> None:
    """Asked with an epoch of its own for each loss of the link, so that no answer is older than the loss."""
    bench = Bench(configuration(alone="ask"), State(seen={"r0": 4}, mine={"r0": 4}))
    alone = mirror(CUT, role="Primary", suspended=True, links=1)
    aside = mirror(CUT, disk="Outdated", outdated=True)

    def answer(epoch: int) -> NodeView:
        view = peer(theirs=aside)
        return structs.replace(view, facts=structs.replace(view.facts, outdated={"r0": epoch}))

    assert not bench.see(alone, answer(4)).may_continue_alone, "that was another time"
    assert bench.arbiter.epochs["r0"] == 5
    assert bench.see(alone, answer(5)).may_continue_alone
    assert AllowAlone(mirror="r0", epoch=5, links=1) in bench.effects
    assert not bench.see(alone, peer("dead", theirs=aside)).may_continue_alone, "only what is heard now counts"
    again = mirror(CUT, role="Primary", suspended=True, links=2)
    assert not bench.see(again, answer(5)).may_continue_alone, "there was a link since"
    assert bench.arbiter.epochs["r0"] == 6
    assert bench.see(again, answer(6)).may_continue_alone


def test_a_copy_stands_back_when_it_is_asked_and_says_so_when_it_is_on_the_disk() -> None:
    bench = Bench(configuration(alone="ask"))
    asks = mirror(CUT, role="Primary", suspended=True)
    bench.see(mirror(CUT, links=3), peer(state="started", theirs=asks, epoch=7), wanted=False)
    assert Outdate(mirror="r0", epoch=7, links=3) in bench.effects
    assert bench.arbiter.outdated == {}
    bench.arbiter.step(MarkedOutdated(mirror="r0", epoch=7))
    assert bench.arbiter.outdated == {"r0": 7}
    aside = mirror(CUT, disk="Outdated", outdated=True, links=3)
    bench.see(aside, peer(state="started", theirs=asks, epoch=7), after_ms=REPEAT_MS, wanted=False)
    assert not any(isinstance(effect, Outdate) for effect in bench.effects)
    bench.see(aside, peer(state="started", theirs=asks, epoch=8), wanted=False)
    assert Outdate(mirror="r0", epoch=8, links=3) in bench.effects, "another loss is another question"
    bench.see(mirror(LINKED, links=4), peer(state="started", theirs=mirror(LINKED, role="Primary")), wanted=False)
    assert bench.arbiter.outdated == {}


def test_in_a_split_brain_the_absent_copy_is_not_ignored() -> None:
    split = mirror(CUT, connection="StandAlone", split_brain=True)
    assert Bench().see(split, peer("dead", theirs=split)).rule == "split_brain_alone"
    assert Bench().see(split, peer(theirs=split, epoch=1)).rule == "split_brain"
    assert Bench().see(split, peer(state="started", theirs=split)).rule == "peer_runs"
