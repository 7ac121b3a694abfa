"""The hand-over with an original Heartbeat: our core in the place of one of two originals that were recorded."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from cluster_samples import configuration

from heartbeat_support import DATA, KEYS, timed_datagrams
from relevo.heartbeat import wire
from relevo.heartbeat.handover import ASK_LIMIT_MS, LEGACY_AFTER_MS, PULL_DELAY_MS, STATE_MS, Handover
from relevo.heartbeat.handover_words import BOTH, NONE, Group, Say, Their, Told, meant, word
from relevo.heartbeat.wire import Message
from relevo.manager.model import Alive, MirrorFacts, NodeView, Original, ServiceState
from relevo.node import original

OURS, THEIRS = frozenset({Group.OURS}), frozenset({Group.THEIRS})
READY = Told(ready=True, able=BOTH)


class Bench:
    """One core, its clock, and an original that says what it is told to."""

    def __init__(self) -> None:
        self.core = Handover()
        self.now_ms = 0
        self._number = 0
        self.core.liveness(alive=True)

    def told(self, told: Told) -> list[Say]:
        self.core.told(told, self.now_ms)
        return self.due()

    def due(self, pass_ms: int = 0) -> list[Say]:
        self.now_ms += pass_ms
        return self.core.due(self.now_ms, active=True)

    def hears(self, kind: str, **fields: str) -> list[Say]:
        self._number += 1
        self.core.heard(Message((("t", kind), *fields.items())), self._number, "nodo1", self.now_ms)
        return self.due()

    def met(self, holds: str, *, stable: str = "1") -> list[Say]:
        """The original has answered to our present run."""
        self.hears("repnodes", dest="nodo1")
        return self.hears("resource", rsc_hold=holds, rtype="full", isstable=stable)


def texts(said: list[Say]) -> list[str]:
    """Without the statements: `ask_resources foreign me`."""
    return [" ".join([say.kind, *(value for _, value in say.fields)]) for say in said if say.kind != "resource"]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.told(READY)
    return made


def test_words_are_relative_to_who_speaks() -> None:
    assert [word(groups) for groups in (NONE, OURS, THEIRS, BOTH)] == ["none", "local", "foreign", "all"]
    assert [meant(said) for said in ("none", "local", "foreign", "all", "x", None)] == [
        *(NONE, THEIRS, OURS, BOTH),
        *(None, None),
    ]


def test_nothing_is_claimed_before_the_original_has_answered_to_this_run(bench: Bench) -> None:
    bench.hears("resource", rsc_hold="local", rtype="full", isstable="1")
    bench.told(msgspec.structs.replace(READY, wants=OURS))
    assert bench.core.claims == NONE
    bench.hears("repnodes", dest="nodo1")
    assert bench.core.claims == OURS


def test_none_of_one_that_is_stopping_is_not_believed(bench: Bench) -> None:
    bench.told(msgspec.structs.replace(READY, wants=OURS))
    bench.met("none", stable="0")
    assert (bench.core.their(Group.OURS), bench.core.claims) == (Their.MOVING, NONE)
    bench.core.begun()
    bench.hears("starting")
    bench.met("none", stable="0")
    assert bench.core.claims == OURS, "its start was seen: it has nothing of ours"


def test_given_only_after_it_agreed_and_all_has_stopped(bench: Bench) -> None:
    bench.told(msgspec.structs.replace(READY, active=BOTH, started=BOTH, wants=OURS, gives=THEIRS))
    assert texts(bench.met("none")) == ["ask_resources foreign me"]
    running = msgspec.structs.replace(READY, active=BOTH, started=BOTH, wants=OURS, gives=THEIRS)
    assert texts(bench.hears("ask_resources", rsc_hold="foreign", info="other")) == []
    assert texts(bench.told(msgspec.structs.replace(running, giving=THEIRS))) == [], "it still runs"
    stopped = msgspec.structs.replace(running, active=OURS, started=OURS)
    assert texts(bench.told(stopped)) == [], "the node daemon does not know yet that it must not start it"
    assert texts(bench.told(msgspec.structs.replace(stopped, giving=THEIRS))) == ["ask_resources foreign done"]
    assert bench.core.their(Group.THEIRS) is Their.MOVING
    bench.hears("ask_resources", rsc_hold="foreign", info="done")
    bench.hears("resource", rsc_hold="local", rtype="full", isstable="1")
    assert (bench.core.their(Group.THEIRS), bench.core.claims) == (Their.HELD, OURS)


def test_a_request_of_its_goes_first_and_an_answer_to_ours_still_counts(bench: Bench) -> None:
    told = msgspec.structs.replace(READY, active=BOTH, started=BOTH, gives=THEIRS)
    bench.told(told)
    bench.met("none")
    assert texts(bench.hears("ask_resources", rsc_hold="foreign", info="me")) == ["ask_resources foreign other"]
    bench.hears("ask_resources", rsc_hold="foreign", info="other")
    assert bench.core.view()["giving"] == ["theirs"]


def test_an_unanswered_request_is_made_again(bench: Bench) -> None:
    bench.told(msgspec.structs.replace(READY, active=THEIRS, started=THEIRS, gives=THEIRS))
    bench.met("none")
    asked = [texts(bench.due(1000)) for _ in range(ASK_LIMIT_MS // 1000 + 4)]
    assert ["ask_resources foreign me"] in asked


def test_what_it_keeps_is_asked_for(bench: Bench) -> None:
    bench.told(msgspec.structs.replace(READY, wants=OURS))
    bench.met("all")
    assert texts(bench.due(PULL_DELAY_MS)) == ["hb_takeover local"]


def test_it_is_refused_what_cannot_run_here(bench: Bench) -> None:
    bench.told(msgspec.structs.replace(READY, able=OURS))
    bench.met("all")
    assert texts(bench.hears("ask_resources", rsc_hold="all", info="me")) == []
    assert texts(bench.hears("ask_resources", rsc_hold="foreign", info="me")) == ["ask_resources foreign other"]


def test_the_statement_is_repeated(bench: Bench) -> None:
    bench.met("local")
    said = bench.due(STATE_MS)
    assert [dict(say.fields)["rsc_hold"] for say in said if say.kind == "resource"] == ["none"]


LEGACY = msgspec.structs.replace(READY, wants=OURS, our_keys=("192.168.0.29",), their_keys=("192.168.0.31",))


@pytest.fixture
def legacy(bench: Bench) -> Bench:
    """It hears us and says nothing of what it holds."""
    bench.told(LEGACY)
    bench.hears("repnodes", dest="nodo1")
    bench.due(LEGACY_AFTER_MS)
    return bench


def test_a_legacy_original_is_asked_for_each_line(legacy: Bench) -> None:
    assert (legacy.core.their(Group.OURS), legacy.core.claims) == (Their.UNKNOWN, NONE)
    assert texts(legacy.due(5000)) == ["ip-request 192.168.0.29"]
    legacy.hears("ip-request-resp", src="nodo2", dest="nodo3", ipaddr="192.168.0.29", ok="OK")
    assert legacy.core.claims == NONE
    legacy.hears("ip-request-resp", src="nodo2", dest="nodo1", ipaddr="192.168.0.29", ok="OK", weown="yes")
    assert legacy.core.claims == OURS


def test_without_its_key_a_line_of_a_legacy_original_is_not_taken(legacy: Bench) -> None:
    legacy.told(msgspec.structs.replace(LEGACY, our_keys=()))
    assert (legacy.core.their(Group.OURS), legacy.core.claims) == (Their.UNKNOWN, NONE)


def test_a_legacy_original_is_answered_when_all_has_stopped(legacy: Bench) -> None:
    running = msgspec.structs.replace(LEGACY, active=BOTH, started=BOTH)
    legacy.told(running)
    assert texts(legacy.hears("ip-request", src="nodo2", ipaddr="192.168.0.31")) == []
    assert legacy.core.view()["giving"] == ["theirs"]
    stopped = msgspec.structs.replace(running, active=OURS, started=OURS)
    assert texts(legacy.told(stopped)) == [], "the node daemon does not know yet that it must not start it"
    assert texts(legacy.told(msgspec.structs.replace(stopped, giving=THEIRS))) == [
        "ip-request-resp nodo2 192.168.0.31 yes OK"
    ]
    assert legacy.core.their(Group.THEIRS) is Their.HELD
    assert texts(legacy.hears("ip-request", src="nodo2", ipaddr="other")) == ["ip-request-resp nodo2 other no OK"]


def recorded(sender: str) -> Iterator[tuple[int, int, Message]]:
    """Time, number and message of one of the two recorded originals, each message once."""
    seen = set()
    for at_ms, datagram in timed_datagrams(DATA / "heartbeat-fast-crc-events.pcap.gz"):
        message = wire.decode(datagram, KEYS)
        if message.text("src") == sender and message.text("seq") is not None:
            number = message.number("seq")
            if (message.number("hg"), number) not in seen:
                seen.add((message.number("hg"), number))
                yield at_ms, number, message


def test_ours_answers_as_the_recorded_original_did() -> None:
    asked = [(at_ms, m) for at_ms, _, m in recorded("nodo1") if m.text("t") == "ask_resources"]
    answers = [(m.text("rsc_hold"), m.text("info")) for _, m in asked if m.text("info") == "other"]
    core, said = Handover(), []
    core.liveness(alive=True)
    core.told(READY, 0)
    for at_ms, number, message in recorded("nodo2"):
        core.heard(message, number, "nodo1", at_ms)
        said += [say for say in core.due(at_ms, active=True) if say.kind == "ask_resources"]
    assert answers, "the recording has a failback"
    assert [tuple(value for _, value in say.fields) for say in said if ("info", "other") in say.fields] == answers


def test_the_original_as_a_node_that_tells_what_it_runs() -> None:
    config = configuration()
    told = {"groups": {"ours": "held", "theirs": "free"}, "leaving": False}
    mine = MirrorFacts(role="Secondary", peer_role="Primary", connection="Connected", disk="UpToDate")
    made = original.view_of(config, told, NodeView(alive=Alive.ALIVE), {"r0": mine}, "nodo2")
    assert made.facts is not None
    assert made.facts.services["web"].state is ServiceState.STARTED
    assert made.facts.mirrors["r0"] is not None
    assert (made.facts.mirrors["r0"].role, made.facts.mirrors["r0"].peer_disk) == ("Primary", "UpToDate")
    dead = original.view_of(config, told, NodeView(alive=Alive.DEAD), {"r0": mine}, "nodo2")
    assert dead.facts is not None
    assert dead.facts.services["web"].state is ServiceState.STOPPED


def test_who_is_an_original() -> None:
    peer = {"claims": ["ours"], "giving": [], "declined": [], "told": 7}
    found = original.found(configuration(), "nodo1", {"peers": {"nodo2": {"original": peer}}}, 7)
    assert found is not None
    assert found[0] == Original(node="nodo2", claims=frozenset({"ours"}), current=True)
    assert original.found(configuration(), "nodo1", {"peers": {"nodo2": {"original": None}}}) is None
    assert original.found(configuration(), "nodo1", None) is None
