"""The rules of the membership, one test for each, and recorded traffic of the original read by it."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any

import pytest

from heartbeat_support import DATA, KEYS, timed_datagrams
from relevo.base import control
from relevo.config.model import HeartbeatTimings
from relevo.heartbeat import events, outbox, wire
from relevo.heartbeat.events import ALIVE, TRANSITIONS, Effect, Event, Mark, PeerState, Reason, Settings, Sign
from relevo.heartbeat.gaps import ASK_DELAY_MS, ASK_GAP_MS, ASK_TIMES, MAX_MISSING, MAX_RANGE
from relevo.heartbeat.handover_words import Group, Told
from relevo.heartbeat.membership import Membership
from relevo.heartbeat.peer import (
    HELD_MESSAGES,
    RECENT_MESSAGES,
    RESERVE_MESSAGES,
    RESERVE_PROVEN_MESSAGES,
    WINDOW_MESSAGES,
    Window,
)
from relevo.heartbeat.voice import FACTS_INTERVAL_MS, GOODBYES
from relevo.heartbeat.wire import Message, Value

QUICK = HeartbeatTimings(keepalive_ms=200, warntime_ms=600, deadtime_ms=1200, initdead_ms=3000)
UUID = b"2" * 16
GENERATION = 77


class Bench:
    """One membership called nodo1 with the peer nodo2, its clock, and a disk that answers at once by default."""

    def __init__(
        self,
        *,
        peers: tuple[str, ...] = ("nodo2",),
        marks: dict[str, Mark] | None = None,
        timings: HeartbeatTimings = QUICK,
        disk: bool = True,
        me: str = "nodo1",
    ) -> None:
        self.now_ms = 1_000_000
        self.disk = disk
        self.kept: dict[str, Mark] = {}
        self.tick_ms = self.now_ms
        settings = Settings(
            me=me,
            uuid=b"1" * 16,
            generation=GENERATION,
            boot_id="boot-1",
            peers=peers,
            links=("users", "cross"),
            timings=timings,
            config_hash="abc",
            marks=marks or {},
        )
        self.core = Membership(settings, self.now_ms)
        self.sequences = itertools.count(1)

    def step(self, event: Event) -> list[Effect]:
        effects = list(self.core.step(event))
        for effect in list(effects):
            if isinstance(effect, events.NextTick):
                self.tick_ms = effect.at_ms
            if isinstance(effect, events.Persist):
                self.kept = dict(effect.marks)
                if self.disk:
                    effects += self.step(events.Persisted(effect.marks, self.now_ms))
        return effects

    def pass_ms(self, duration_ms: int) -> list[Effect]:
        """Let time pass, each tick when it is due."""
        effects, end_ms = [], self.now_ms + duration_ms
        while self.tick_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.tick_ms)
            effects += self.step(events.Tick(self.now_ms))
        self.now_ms = end_ms
        return effects

    def hear(
        self,
        kind: str = "status",
        *fields: tuple[str, Value],
        seq: int | None = None,
        hg: int = 5,
        heard: int | None = GENERATION,
        relevo: bool = True,
        uuid: bytes = UUID,
        src: str = "nodo2",
        link: str = "users",
    ) -> list[Effect]:
        """A numbered message of the peer arrives; by default one that names our generation."""
        sequence = next(self.sequences) if seq is None else seq
        content = fields or ((("st", "active"),) if kind == "status" else ())
        ours = (("relevo", "1"), ("relevo_boot", "boot-2"), ("relevo_config", "abc")) if relevo else ()
        named = (("relevo_heard", f"nodo1:{heard:x} "),) if relevo and heard is not None else ()
        origin = (("src", src), ("srcuuid", uuid), ("seq", f"{sequence:x}"), ("hg", f"{hg:x}"))
        return self.receive(("t", kind), *content, *ours, *named, *origin, link=link)

    def receive(self, *fields: tuple[str, Value], link: str = "users") -> list[Effect]:
        return self.step(events.MessageReceived(link, Message(fields), self.now_ms))

    @property
    def peer(self) -> dict[str, Any]:
        return next(iter(self.core.view(self.now_ms)["peers"].values()))

    def count(self, reason: Reason) -> int:
        return self.core.view(self.now_ms)["counters"][reason.value]


def sent(effects: list[Effect], kind: str) -> list[events.Send]:
    return [effect for effect in effects if isinstance(effect, events.Send) and effect.message.text("t") == kind]


def reasons(effects: list[Effect]) -> list[Reason]:
    return [effect.reason for effect in effects if isinstance(effect, events.Dropped)]


# --- states -----------------------------------------------------------------------------------------------------------


def test_what_is_no_text_can_be_told_all_the_same() -> None:
    """Bytes that are not UTF-8, in signed messages: the state stays one that can be written as JSON."""
    bench = Bench()
    bench.hear(src="nodo\udcff")
    bench.hear(
        "status", ("st", "up"), ("relevo_boot", "\udcff"), ("relevo_config", "\udcff"), ("relevo", "1"), relevo=False
    )
    bench.hear("relevo", ("no", "1"), ("facts", '{"a": "\\ud800"}'))
    bench.hear("relevo", ("no", "2"), ("facts", '{"a": NaN}'))
    view = bench.core.view(bench.now_ms)
    assert bench.count(Reason.UNKNOWN_NODE) == 1
    assert bench.count(Reason.MALFORMED) == 2
    assert b"nodo2" in control.encode(view)


def test_the_transition_table() -> None:
    for state in PeerState:
        assert TRANSITIONS[state, Sign.BEGUN] is PeerState.INIT
    left = {sign for (state, sign) in TRANSITIONS if state is PeerState.LEFT}
    assert left == {Sign.BEGUN}, "a goodbye holds until a new generation"
    assert {state for (state, sign), to in TRANSITIONS.items() if sign is Sign.SILENCE} == ALIVE
    assert all(to is PeerState.DEAD for (_, sign), to in TRANSITIONS.items() if sign in (Sign.SILENCE, Sign.INITDEAD))


def test_the_documented_table_is_the_table() -> None:
    page = (DATA.parents[1] / "docs" / "internals" / "heartbeat.md").read_text()
    documented = page.split("| from | sign | to |\n| --- | --- | --- |\n")[1].split("\n\n")[0].splitlines()
    assert documented == [
        f"| {state} | {sign} | {to} |" for (state, sign), to in TRANSITIONS.items() if state is not to
    ]


def test_our_own_states_and_the_heartbeat() -> None:
    bench = Bench()
    first = sent(bench.step(events.Tick(bench.now_ms)), "status")
    assert [send.message.text("st") for send in first] == ["init"]
    assert first[0].message.number("seq") == 1
    assert first[0].message.number("dt") == 1200
    assert first[0].broadcast
    assert first[0].to == ("nodo2",)
    alone = sent(bench.pass_ms(1000), "status")
    assert [send.message.text("st") for send in alone] == ["up"] * 5
    heard = sent(bench.hear() + bench.pass_ms(600), "status")
    assert {send.message.text("st") for send in heard} == {"active"}
    assert heard[-1].message.text("relevo_heard") == "nodo2:5 "
    assert heard[-1].message.text("relevo") == "1"


def test_unknown_until_initdead_then_dead() -> None:
    bench = Bench()
    bench.pass_ms(2999)
    assert bench.peer["state"] == "unknown"
    effects = bench.pass_ms(1)
    assert bench.peer["state"] == "dead"
    assert events.PeerChanged("nodo2", PeerState.UNKNOWN, PeerState.DEAD) in effects
    assert any(isinstance(effect, events.SelfChanged) for effect in effects)
    assert bench.core.view(bench.now_ms)["state"] == "active"
    bench.hear()
    assert bench.peer["state"] == "active"


def test_late_after_warntime_dead_after_deadtime_alive_when_heard_again() -> None:
    bench = Bench()
    bench.hear()
    bench.pass_ms(599)
    assert not bench.peer["late"]
    bench.pass_ms(1)
    assert bench.peer["late"]
    assert bench.peer["state"] == "active"
    bench.pass_ms(599)
    assert bench.peer["state"] == "active"
    effects = bench.pass_ms(1)
    assert events.PeerChanged("nodo2", PeerState.ACTIVE, PeerState.DEAD) in effects
    assert not bench.peer["late"]
    bench.pass_ms(50)
    assert sent(bench.hear(), "status"), "one that comes back hears from us at once"
    assert bench.peer["state"] == "active"


def test_a_new_generation_is_a_new_incarnation() -> None:
    bench = Bench()
    bench.hear()
    bench.hear(outbox.RELEVO, ("no", "1"), ("facts", '{"a": 1}'))
    effects = bench.hear("status", ("st", "init"), hg=6, seq=1)
    assert events.PeerChanged("nodo2", PeerState.ACTIVE, PeerState.INIT) in effects
    assert bench.peer["generation"] == 6
    assert bench.peer["facts"] is None
    assert reasons(bench.hear(hg=5)) == [Reason.OLD_GENERATION]


def test_goodbye_holds_although_heartbeat_goes_on_sending() -> None:
    bench = Bench()
    bench.hear(relevo=False)
    bench.hear("shutdone", ("st", "dead"), relevo=False)
    assert bench.peer["state"] == "left"
    assert reasons(bench.hear(relevo=False)) == [Reason.AFTER_GOODBYE]
    bench.pass_ms(5000)
    assert bench.peer["state"] == "left"
    bench.hear("status", ("st", "init"), hg=6, seq=1)
    assert bench.peer["state"] == "init"


def test_an_overtaken_status_says_nothing_about_now_but_an_overtaken_goodbye_counts() -> None:
    bench = Bench()
    bench.hear(seq=1)
    bench.hear(seq=5)
    bench.hear("status", ("st", "up"), seq=4)
    assert bench.peer["state"] == "active"
    bench.pass_ms(300)
    bench.hear(seq=3)
    assert bench.peer["silent_ms"] == 300, "only a number higher than all before is a sign of life"
    bench.hear("shutdone", ("st", "dead"), seq=2)
    assert bench.peer["state"] == "left"


# --- duplicates, order, replay ----------------------------------------------------------------------------------------


def test_window() -> None:
    window = Window()
    assert window.accept(10)
    assert window.refusal(10) is Reason.DUPLICATE
    assert window.refusal(9) is None
    assert not window.accept(9)
    assert window.refusal(9) is Reason.DUPLICATE
    assert window.accept(10 + RECENT_MESSAGES + 1)
    assert window.refusal(10) is Reason.REPLAYED
    assert window.accept(10_000)
    assert window.refusal(10_000 - WINDOW_MESSAGES + 1) is None
    assert window.refusal(10_000 - WINDOW_MESSAGES) is Reason.REPLAYED
    assert window.refusal(10) is Reason.REPLAYED


def test_copies_over_other_ways_are_duplicates_and_show_the_link() -> None:
    bench = Bench()
    bench.hear(seq=1)
    assert bench.peer["links"] == {"users": "up", "cross": "down"}
    assert reasons(bench.hear(seq=1, link="cross")) == [Reason.DUPLICATE]
    assert bench.peer["links"] == {"users": "up", "cross": "up"}
    bench.pass_ms(1100)
    bench.hear(seq=2)
    assert reasons(bench.hear(seq=1, link="cross")) == [Reason.DUPLICATE]
    bench.pass_ms(100)
    assert bench.peer["links"] == {"users": "up", "cross": "down"}, "an old copy does not keep a link up"


@pytest.mark.parametrize("relevo", [False, True])
def test_the_mark_on_disk_comes_first(*, relevo: bool) -> None:
    bench = Bench(disk=False)
    effects = bench.hear(seq=1, relevo=relevo)
    assert reasons(effects) == [Reason.HELD]
    ahead = RESERVE_PROVEN_MESSAGES if relevo else RESERVE_MESSAGES
    assert events.Persist({"nodo2": Mark(5, 1 + ahead)}) in effects
    assert reasons(bench.hear(seq=1, relevo=relevo)) == [Reason.DUPLICATE]
    assert reasons(bench.hear(seq=3, relevo=relevo)) == [Reason.HELD]
    assert reasons(bench.hear(seq=2, relevo=relevo)) == [Reason.DUPLICATE], "overtaken by one that waits: too late"
    bench.pass_ms(100)
    assert bench.peer["state"] == "unknown"
    effects = bench.step(events.Persisted(bench.kept, bench.now_ms))
    assert events.PeerChanged("nodo2", PeerState.UNKNOWN, PeerState.ACTIVE) in effects
    assert bench.peer["silent_ms"] == 100, "it counts from when it came"
    assert reasons(bench.hear(seq=3, relevo=relevo)) == [Reason.DUPLICATE]


def test_of_many_that_wait_only_the_newest_do() -> None:
    bench = Bench(disk=False)
    for number in range(1, 4 * HELD_MESSAGES):
        bench.hear(seq=number)
    assert len(bench.core._peers["nodo2"].held) == HELD_MESSAGES
    bench.step(events.Persisted({"nodo2": Mark(5, 4 * HELD_MESSAGES - 3)}, bench.now_ms))
    assert bench.core._peers["nodo2"].present.window.highest == 4 * HELD_MESSAGES - 3  # type: ignore[union-attr]
    assert [one.mark.sequence for one in bench.core._peers["nodo2"].held] == [
        4 * HELD_MESSAGES - 2,
        4 * HELD_MESSAGES - 1,
    ]


def test_marks_are_raised_in_blocks_ahead_of_need() -> None:
    bench = Bench()
    bench.hear(relevo=False)
    writes = 0
    for _ in range(240):
        effects = bench.hear(relevo=False)
        assert reasons(effects) == []
        writes += sum(isinstance(effect, events.Persist) for effect in effects)
        assert bench.kept["nodo2"] >= Mark(5, bench.core._peers["nodo2"].present.window.highest)  # type: ignore[union-attr]
    assert writes <= 240 // (RESERVE_MESSAGES // 2) + 1
    assert bench.core.final_marks() == {"nodo2": Mark(5, 241)}


def test_a_disk_that_hangs_makes_nobody_dead() -> None:
    bench = Bench(disk=False)
    for _ in range(20):
        bench.hear(relevo=False)
        bench.pass_ms(200)
    assert bench.peer["state"] == "active"
    assert bench.count(Reason.HELD) == 3, "half of deadtime, then it goes on without"


def test_after_our_restart_old_datagrams_are_refused_and_live_ones_prove_themselves() -> None:
    bench = Bench(marks={"nodo2": Mark(5, 100)})
    effects = bench.hear(seq=90, heard=GENERATION - 1)
    assert reasons(effects) == [Reason.REPLAYED]
    assert sent(effects, "status"), "it hears our generation at once"
    assert reasons(bench.hear(seq=90, relevo=False)) == [Reason.REPLAYED]
    assert reasons(bench.hear(seq=900, hg=4, relevo=False)) == [Reason.OLD_GENERATION]
    assert bench.peer["state"] == "unknown"
    assert reasons(bench.hear(seq=91)) == []
    assert bench.peer["state"] == "active"
    assert bench.peer["hears_us"]
    assert reasons(bench.hear(seq=90, heard=GENERATION - 1)) == [Reason.REPLAYED]


def test_one_that_lost_its_disk_is_accepted_on_proof_only_and_only_at_first() -> None:
    bench = Bench(marks={"nodo2": Mark(50, 100)})
    assert reasons(bench.hear(hg=3, relevo=False, uuid=b"n" * 16)) == [Reason.OLD_GENERATION]
    assert reasons(bench.hear(hg=3, uuid=b"n" * 16)) == []
    assert bench.peer["generation"] == 3
    assert bench.core.final_marks() == {"nodo2": Mark(50, 100)}, "the mark on disk never goes back"
    assert reasons(bench.hear(hg=2, uuid=b"m" * 16)) == [Reason.OLD_GENERATION]


def test_a_message_that_hears_us_is_not_followed_by_older_ones_that_do_not() -> None:
    bench = Bench()
    bench.hear(seq=5)
    bench.hear(seq=10)
    assert reasons(bench.hear(seq=9)) == []
    assert reasons(bench.hear(seq=8, heard=GENERATION - 1)) == [Reason.REPLAYED]


def test_names_and_identities() -> None:
    bench = Bench()
    bench.hear()
    assert reasons(bench.hear(src="nodo9")) == [Reason.UNKNOWN_NODE]
    ours = bench.core.view(bench.now_ms)["generation"]
    bench.pass_ms(1000)
    assert reasons(bench.hear(src="nodo1", uuid=b"1" * 16, hg=ours, seq=1)) == [Reason.OWN_ECHO]
    assert reasons(bench.hear(src="nodo1", uuid=b"1" * 16, hg=ours, seq=99)) == [Reason.NAME_TAKEN], "of a clone"
    assert reasons(bench.hear(src="nodo1", uuid=b"1" * 16, hg=ours + 1, seq=1)) == [Reason.NAME_TAKEN], "of a clone"
    assert reasons(bench.hear(src="nodo1", uuid=b"x" * 16)) == [Reason.NAME_TAKEN]
    assert reasons(bench.hear(uuid=b"x" * 16)) == [Reason.NAME_TAKEN]
    dropped = bench.core.view(bench.now_ms)["last_dropped"]
    assert dropped == {"reason": "name_taken", "sender": "nodo2", "link": "users"}


@pytest.mark.parametrize(
    "fields",
    [
        (("t", "status"),),
        (("t", "status"), ("src", "nodo2"), ("hg", "5")),
        (("t", "status"), ("src", "nodo2"), ("hg", "no"), ("seq", "1")),
        (("t", "status"), ("src", "nodo2"), ("hg", "5"), ("seq", "1" * 17)),
        (("src", "nodo2"), ("hg", "5"), ("seq", "1")),
    ],
)
def test_a_message_without_what_it_needs_is_counted(fields: tuple[tuple[str, str], ...]) -> None:
    bench = Bench()
    assert reasons(bench.receive(*fields)) == [Reason.MALFORMED]
    assert bench.count(Reason.MALFORMED) == 1


def test_refused_datagrams_are_counted_and_named() -> None:
    bench = Bench()
    bench.step(events.DatagramRefused("cross", Reason.BAD_SIGNATURE, "10.0.0.9", bench.now_ms))
    assert bench.count(Reason.BAD_SIGNATURE) == 1
    assert bench.core.view(bench.now_ms)["last_dropped"]["sender"] == "10.0.0.9"


# --- conversation -----------------------------------------------------------------------------------------------------


def test_every_tenth_message_is_acknowledged() -> None:
    bench = Bench()
    acknowledged = [sent(bench.hear(relevo=False), "NS_ackmsg") for _ in range(30)]
    assert [len(sends) for sends in acknowledged] == ([0] * 9 + [1]) * 3
    message = acknowledged[19][0].message
    assert message.number("ackseq") == 20
    assert message.text("dest") == "nodo2"
    assert message.binary("destuuid") == UUID
    assert message.text("seq") is None


def test_what_an_original_sent_and_we_missed_is_asked_for_until_it_comes() -> None:
    bench = Bench()
    for sequence in (5, 6, 9):
        bench.hear(seq=sequence, relevo=False)
    assert sent(bench.pass_ms(ASK_DELAY_MS - 1), "NS_rexmit") == [], "reordering cures itself"
    asked = [send.message for send in sent(bench.pass_ms(1), "NS_rexmit")]
    assert [(one.decimal("firstseq"), one.decimal("lastseq")) for one in asked] == [(7, 8)]
    assert asked[0].text("dest") == "nodo2"
    assert asked[0].binary("destuuid") == UUID
    bench.hear(seq=7, relevo=False)
    bench.hear(seq=10, relevo=False)
    asked = [send.message for send in sent(bench.pass_ms(ASK_GAP_MS), "NS_rexmit")]
    assert [(one.decimal("firstseq"), one.decimal("lastseq")) for one in asked] == [(8, 8)]
    acknowledged = sent(bench.hear(seq=8, relevo=False), "NS_ackmsg")
    assert [send.message.number("ackseq") for send in acknowledged] == [10], "nothing above a gap is acknowledged"
    assert sent(bench.pass_ms(5000), "NS_rexmit") == []
    assert (bench.peer["recovered"], bench.peer["given_up"]) == (2, 0)


def test_what_never_comes_is_given_up_and_acknowledged() -> None:
    bench = Bench()
    bench.hear(seq=1, relevo=False)
    bench.hear(seq=12, relevo=False)
    effects: list[Effect] = []
    for sequence in range(13, 30):
        effects += bench.pass_ms(ASK_GAP_MS) + bench.hear(seq=sequence, relevo=False)
    assert len(sent(effects, "NS_rexmit")) == ASK_TIMES
    assert sent(effects, "NS_ackmsg")[-1].message.number("ackseq") >= 20
    assert (bench.peer["recovered"], bench.peer["given_up"]) == (0, 10)


def test_after_a_long_gap_only_the_newest_are_asked_for() -> None:
    bench = Bench()
    bench.hear(seq=1, relevo=False)
    bench.hear(seq=501, relevo=False)
    asked = [send.message for send in sent(bench.pass_ms(ASK_DELAY_MS), "NS_rexmit")]
    assert [(one.decimal("firstseq"), one.decimal("lastseq")) for one in asked] == [
        (first, first + MAX_RANGE - 1) for first in range(501 - MAX_MISSING, 501, MAX_RANGE)
    ]
    assert bench.peer["given_up"] == 499 - MAX_MISSING


def test_relevo_is_asked_for_nothing_and_nobody_is_after_a_goodbye() -> None:
    """Facts and states of ours are repeated anyway, and what was made before it heard us would be refused."""
    for relevo in (True, False):
        bench = Bench()
        bench.hear(seq=1, relevo=relevo)
        bench.hear(seq=4, relevo=relevo)
        if not relevo:
            bench.step(events.Leave(bench.now_ms))
        assert sent(bench.pass_ms(1000), "NS_rexmit") == []


def test_a_question_for_the_nodes_is_answered_only_by_the_one_asked() -> None:
    bench = Bench()
    bench.hear()
    answers = sent(bench.hear("reqnodes", ("dest", "nodo1")), "repnodes")
    assert [send.message.text("nodelist") for send in answers] == ["nodo1 nodo2 "]
    assert answers[0].message.text("delnodelist") == " "
    assert sent(bench.hear("reqnodes", ("dest", "nodo3")), "repnodes") == []


def test_a_message_is_sent_again_on_request() -> None:
    bench = Bench()
    status = sent(bench.step(events.Tick(bench.now_ms)) + bench.pass_ms(1000), "status")
    request: tuple[tuple[str, Value], ...] = (
        ("t", "NS_rexmit"),
        ("dest", "nodo1"),
        ("firstseq", "2"),
        ("lastseq", "3"),
        ("src", "nodo2"),
        ("hg", "5"),
    )
    assert sent(bench.receive(*request), "status") == status[1:3]
    assert sent(bench.receive(*request), "status") == [], "not twice within a moment"
    assert bench.peer["state"] == "unknown", "what carries no number is no sign of life"
    assert sent(bench.receive(*request[:2], ("firstseq", "x"), *request[3:]), "status") == []
    assert sent(bench.receive(request[0], ("dest", "nodo2"), *request[2:]), "status") == []
    bench.pass_ms(200)
    everything: tuple[tuple[str, Value], ...] = (("firstseq", "0"), ("lastseq", "9999999999999999"))
    again = bench.receive(*request[:2], *everything, *request[4:])
    assert len(sent(again, "status")) <= outbox.RESEND_MESSAGES


def test_suspicion_asks_and_judges_nothing() -> None:
    bench = Bench()
    bench.hear()
    bench.pass_ms(100)
    effects = bench.step(events.Suspect("nodo2", bench.now_ms))
    assert len(sent(effects, "reqnodes")) == 1
    assert len(sent(effects, "status")) == 1
    assert bench.peer["state"] == "active"
    assert sent(bench.step(events.Suspect("nobody", bench.now_ms)), "reqnodes") == []


# --- facts ------------------------------------------------------------------------------------------------------------


def test_facts_go_only_to_peers_that_understand_them() -> None:
    bench = Bench(peers=("nodo2", "nodo3"))
    assert sent(bench.step(events.Publish('{"a":1}', bench.now_ms)), outbox.RELEVO) == []
    bench.hear(src="nodo3", relevo=False)
    assert sent(bench.pass_ms(2000), outbox.RELEVO) == []
    facts = sent(bench.hear(), outbox.RELEVO)
    assert [send.to for send in facts] == [("nodo2",)]
    assert not facts[0].broadcast
    assert facts[0].message.text("facts") == '{"a":1}'
    assert facts[0].message.text("relevo_boot") == "boot-1"


def test_facts_are_sent_at_once_again_soon_and_then_every_second() -> None:
    bench = Bench()
    bench.hear()
    bench.pass_ms(50)
    assert len(sent(bench.step(events.Publish('{"a":1}', bench.now_ms)), outbox.RELEVO)) == 1
    assert len(sent(bench.pass_ms(QUICK.keepalive_ms), outbox.RELEVO)) == 1
    again = sent(bench.pass_ms(3 * FACTS_INTERVAL_MS), outbox.RELEVO)
    assert [send.message.number("no") for send in again] == [1, 1, 1]
    assert sent(bench.step(events.Publish('{"a":1}', bench.now_ms)), outbox.RELEVO) == [], "no news"
    news = sent(bench.step(events.Publish('{"a":2}', bench.now_ms)), outbox.RELEVO)
    assert [send.message.number("no") for send in news] == [2]


def test_facts_are_taken_when_new_and_provably_fresh() -> None:
    bench = Bench()
    bench.hear()

    def facts(number: str, text: str, heard: int = GENERATION) -> list[Effect]:
        return bench.hear(outbox.RELEVO, ("no", number), ("facts", text), heard=heard)

    assert events.FactsReceived("nodo2", 2) in facts("2", '{"a": 2}')
    repeated = facts("2", '{"a": 2}')
    assert reasons(repeated) == []
    assert events.FactsReceived("nodo2", 2) not in repeated
    assert reasons(facts("1", '{"a": 1}')) == [Reason.STALE_FACTS]
    assert reasons(facts("3", '{"a": 3}', heard=GENERATION - 1)) == [Reason.STALE_FACTS]
    for bad in ("{", "[1]", "[" * 50_000):
        assert reasons(facts("4", bad)) == [Reason.MALFORMED]
    assert reasons(facts("x", "{}")) == [Reason.MALFORMED]
    assert bench.peer["facts"] == {"a": 2}
    assert bench.peer["facts_no"] == 2
    bench.pass_ms(1200)
    assert bench.peer["state"] == "dead"
    assert bench.peer["facts"] == {"a": 2}, "the last facts stay, the state tells how old they are"


def test_boot_and_configuration_of_the_peer() -> None:
    bench = Bench()
    assert bench.peer["config_same"] is None
    bench.hear()
    assert bench.peer["config_same"] is True
    assert bench.peer["boot_id"] == "boot-2"
    bench.hear("status", ("st", "active"), ("relevo_config", "other"))
    assert bench.peer["config_same"] is False


# --- leaving, pauses, links -------------------------------------------------------------------------------------------


def test_we_say_goodbye_and_are_silent_until_we_join() -> None:
    bench = Bench()
    bench.hear()
    bench.step(events.Publish("{}", bench.now_ms))
    effects = bench.step(events.Leave(bench.now_ms)) + bench.pass_ms(500)
    goodbyes = sent(effects, "shutdone")
    assert len(goodbyes) == GOODBYES
    assert len({send.message for send in goodbyes}) == 1
    assert effects.count(events.SaidGoodbye()) == 1
    silence = bench.pass_ms(3000) + bench.hear("reqnodes", ("dest", "nodo1")) + bench.hear(hg=6)
    silence += [effect for _ in range(12) for effect in bench.hear(hg=6)]
    assert not [effect for effect in silence if isinstance(effect, events.Send)]
    assert bench.peer["generation"] == 6, "we go on judging"
    assert bench.core.view(bench.now_ms)["pauses"] == 0
    effects = bench.step(events.Join(GENERATION + 1, bench.now_ms))
    first = sent(effects, "status")[0].message
    assert (first.text("st"), first.number("hg"), first.number("seq")) == ("init", GENERATION + 1, 1)
    assert len(sent(effects, outbox.RELEVO)) == 1
    assert reasons(bench.hear(hg=6, heard=GENERATION)) == [], "the generation before is of this run, too"


def test_a_pause_of_ours_is_no_evidence_against_the_peer() -> None:
    bench = Bench()
    bench.hear()
    bench.pass_ms(700)
    bench.now_ms += 60_000
    effects = bench.step(events.Tick(bench.now_ms))
    assert any(isinstance(effect, events.Paused) and effect.for_ms >= 60_000 for effect in effects)
    assert bench.peer["state"] == "active"
    bench.pass_ms(QUICK.keepalive_ms)
    assert bench.peer["state"] == "active"
    bench.pass_ms(QUICK.keepalive_ms)
    assert bench.peer["state"] == "dead", "the grace is over"


def test_the_time_of_a_pause_is_nobodys_silence() -> None:
    bench = Bench()
    bench.hear()
    bench.now_ms += 60_000
    bench.step(events.Tick(bench.now_ms))
    assert bench.peer["silent_ms"] == 2 * QUICK.keepalive_ms
    bench.pass_ms(799)
    assert bench.peer["state"] == "active"
    bench.pass_ms(1)
    assert bench.peer["state"] == "dead"


def test_endless_pauses_do_not_keep_a_dead_one_alive() -> None:
    bench = Bench()
    bench.hear()
    for _ in range(6):
        bench.now_ms += 10_000
        bench.step(events.Tick(bench.now_ms))
    assert bench.peer["state"] == "dead"


def test_a_clock_that_goes_back_changes_nothing() -> None:
    bench = Bench()
    bench.hear()
    bench.step(events.Tick(bench.now_ms - 5000))
    assert bench.peer["silent_ms"] == 0
    bench.pass_ms(1200)
    assert bench.peer["state"] == "dead"


def test_our_own_link_goes_down_and_comes_back() -> None:
    bench = Bench()
    bench.hear(seq=1)
    bench.hear(seq=1, link="cross")
    effects = bench.step(events.LinkChanged("cross", up=False, now_ms=bench.now_ms))
    assert any(isinstance(effect, events.SelfChanged) for effect in effects)
    assert bench.peer["links"] == {"users": "up", "cross": "down"}
    assert bench.core.view(bench.now_ms)["links"] == {"users": "up", "cross": "down"}
    assert bench.peer["state"] == "active"
    bench.pass_ms(100)
    assert sent(bench.step(events.LinkChanged("cross", up=True, now_ms=bench.now_ms)), "status")
    bench.hear(seq=2, link="cross")
    assert bench.peer["links"] == {"users": "up", "cross": "up"}


def test_the_view_is_plain_json() -> None:
    bench = Bench()
    bench.hear()
    view = bench.core.view(bench.now_ms)
    assert json.loads(json.dumps(view)) == view
    assert set(view["counters"]) == {reason.value for reason in Reason}


# --- the original -----------------------------------------------------------------------------------------------------

STORIES = {
    "fast-crc-start": ["nodo1 init", "nodo1 up", "nodo2 init", "nodo2 up", "nodo1 active", "nodo2 active"],
    "fast-crc-events": [
        *("nodo2 active", "nodo1 active", "nodo1 left", "nodo1 init", "nodo1 up", "nodo1 active", "nodo1 dead"),
    ],
    "slow-sha1": [
        *("nodo1 init", "nodo1 up", "nodo2 dead", "nodo1 active", "nodo2 init", "nodo2 up", "nodo2 active"),
        *("nodo1 left", "nodo1 init", "nodo1 up", "nodo1 active", "nodo1 dead", "nodo1 active"),
        *("nodo1 left", "nodo2 left", "nodo1 init", "nodo1 up", "nodo2 init", "nodo2 up"),
        *("nodo1 active", "nodo2 active", "nodo1 dead"),
    ],
}


@pytest.mark.parametrize("name", STORIES)
def test_a_third_node_that_listens_to_recorded_traffic_tells_what_happened(name: str) -> None:
    path: pathlib.Path = DATA / f"heartbeat-{name}.pcap.gz"
    fast = HeartbeatTimings(keepalive_ms=200, warntime_ms=1000, deadtime_ms=2000, initdead_ms=4000)
    slow = HeartbeatTimings(keepalive_ms=2000, warntime_ms=10_000, deadtime_ms=30_000, initdead_ms=120_000)
    bench = Bench(me="nodo3", peers=("nodo1", "nodo2"), timings=slow if name.startswith("slow") else fast)
    story: list[str] = []
    offset_ms: int | None = None
    for at_ms, datagram in timed_datagrams(path):
        offset_ms = bench.now_ms - at_ms if offset_ms is None else offset_ms
        effects = bench.pass_ms(at_ms + offset_ms - bench.now_ms)
        message = wire.decode(datagram, KEYS)
        effects += bench.step(events.MessageReceived("users", message, bench.now_ms))
        changes = [effect for effect in effects if isinstance(effect, events.PeerChanged)]
        story += [f"{change.peer} {change.state}" for change in changes if change.before is not change.state]
    assert story == STORIES[name]
    counters = bench.core.view(bench.now_ms)["counters"]
    everyday = {Reason.DUPLICATE, Reason.AFTER_GOODBYE, Reason.HELD}
    assert {reason for reason, count in counters.items() if count} <= everyday
    assert counters[Reason.DUPLICATE] > 50, "each message was recorded once for broadcast and once for unicast"


# --- an original Heartbeat as the peer --------------------------------------------------------------------------------


def test_an_original_is_told_what_we_hold_and_no_goodbye_while_something_runs() -> None:
    bench, ours = Bench(), frozenset({Group.OURS})
    running = Told(ready=True, active=ours, started=ours, wants=ours)
    bench.hear(relevo=False)
    assert bench.peer["original"]["groups"] == {"ours": "unknown", "theirs": "unknown"}
    bench.step(events.Hold(running, bench.now_ms))
    said = bench.pass_ms(1000)
    assert [send.message.text("rsc_hold") for send in sent(said, "resource")][:1] == ["local"]
    assert sent(said, "starting")
    assert sent(said, "reqnodes"), "its answer shows that it hears us"
    assert not bench.core.may_say_goodbye
    bench.step(events.Hold(Told(ready=True, leaving=True), bench.now_ms))
    assert bench.core.may_say_goodbye


def test_another_relevo_is_told_nothing_of_it() -> None:
    bench = Bench()
    bench.hear()
    bench.step(events.Hold(Told(ready=True, active=frozenset({Group.OURS})), bench.now_ms))
    said = bench.pass_ms(3000)
    assert not sent(said, "resource")
    assert not sent(said, "starting")
    assert bench.peer["original"] is None


def test_no_goodbye_while_something_runs_here_for_the_others_would_start_it_at_once() -> None:
    bench = Bench()
    assert bench.core.may_say_goodbye, "no node daemon has said anything"
    bench.hear()
    bench.step(events.Publish("{}", bench.now_ms, runs=True))
    assert not bench.core.may_say_goodbye
    bench.step(events.Publish("{}", bench.now_ms, runs=True))
    assert not bench.core.may_say_goodbye, "the same facts again"
    bench.step(events.Publish("{}", bench.now_ms))
    assert bench.core.may_say_goodbye
