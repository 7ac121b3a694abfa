"""What is told, when and by whom: hold times, one message for the cluster, never two without an all-clear between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relevo.config.alerts import KINDS, LANGUAGES, AlertsPolicy
from relevo.node.notice import mail_of, notice_of, text_of
from relevo.node.trouble import PATIENCE_MS, SEEN, TOLD, Alert, Memory, judge, key_of, movements, seen_in

POLICY = AlertsPolicy(raise_after_ms=1000, clear_after_ms=2000, stuck_after_ms=5000)
LOST = key_of("node_lost", "nodo2")
KEYS = (LOST, key_of("one_copy", "r0"))


def _changes(looks: list[tuple[int, set[str] | None]], others: dict[str, dict[str, str]] | None = None) -> list[Any]:
    memory, found = Memory(), []
    for now_ms, seen in looks:
        told = None if seen is None else frozenset(seen)
        memory, alerts = judge(memory, told, others or {}, "nodo1", now_ms, POLICY)
        found += [(now_ms, alert.kind, alert.change) for alert in alerts]
    return found


def test_trouble_that_lasts_is_told_once_and_its_end_too() -> None:
    looks = [(0, {LOST}), (999, {LOST}), (1000, {LOST}), (1500, {LOST}), (1600, set()), (3599, set()), (3600, set())]
    assert _changes([*looks, (9000, set())]) == [(1000, "node_lost", "raised"), (3600, "node_lost", "cleared")]


def test_a_flap_is_not_told() -> None:
    assert _changes([(0, {LOST}), (900, set()), (1000, {LOST}), (1900, {LOST})]) == []
    back = [(0, {LOST}), (1000, {LOST}), (1100, set()), (3000, {LOST}), (3200, set()), (5000, set())]
    assert _changes(back) == [(1000, "node_lost", "raised")]


def test_nothing_is_told_while_nobody_knows() -> None:
    assert _changes([(0, {LOST}), (900, None), (1000, {LOST}), (1999, {LOST})]) == []
    assert _changes([(0, {LOST}), (1000, {LOST}), (1100, None), (9000, None)]) == [(1000, "node_lost", "raised")]


def test_a_server_leaves_the_word_to_a_lower_named_one_but_not_for_ever() -> None:
    lower = {"nodo0": {LOST: SEEN}}
    late = 1000 + PATIENCE_MS
    assert _changes([(0, {LOST}), (1000, {LOST}), (late - 1, {LOST})], lower) == []
    assert _changes([(0, {LOST}), (late, {LOST})], lower) == [(late, "node_lost", "raised")]
    assert _changes([(0, {LOST}), (1000, {LOST})], {"nodo2": {LOST: SEEN}}) == [(1000, "node_lost", "raised")]
    assert _changes([(0, {LOST}), (1000, {LOST})], {"nodo2": {LOST: TOLD}}) == []  # people know


@given(st.lists(st.tuples(st.integers(0, 4000), st.none() | st.sets(st.sampled_from(KEYS))), max_size=60))
def test_never_two_alerts_of_a_kind_without_a_clear_between(waits: list[tuple[int, set[str] | None]]) -> None:
    now_ms, looks = 0, []
    for wait_ms, seen in waits:
        now_ms += wait_ms
        looks.append((now_ms, seen))
    _assert_alternate(_changes(looks))


def _assert_alternate(found: list[Any]) -> None:
    last: dict[str, str] = {}
    for _, kind, change in found:
        assert last.get(kind, "cleared") != change
        last[kind] = change


@given(st.lists(st.tuples(st.sets(st.sampled_from(KEYS)), st.booleans(), st.booleans()), max_size=80))
def test_two_servers_that_hear_each_other_speak_as_one(rounds: list[tuple[set[str], bool, bool]]) -> None:
    """They see the same, a little later each; either may be down for a while: then the other one speaks."""
    names = ("nodo1", "nodo2")
    memory = dict.fromkeys(names, Memory())
    found: list[Any] = []
    for number, (seen, first, second) in enumerate(rounds):
        up = {"nodo1": first or not second, "nodo2": second}
        for step in range(8):  # between two changes the servers look eight times, and hear each other each time
            now_ms = number * 4000 + step * 500
            words = {name: memory[name].words() for name in names if up[name]}
            for name in words:
                others = {other: said for other, said in words.items() if other != name}
                memory[name], alerts = judge(memory[name], frozenset(seen), others, name, now_ms, POLICY)
                found += [(now_ms, alert.kind, alert.change) for alert in alerts]
    if all(first and second for _, first, second in rounds):
        _assert_alternate(found)
    assert len({(kind, change, now_ms) for now_ms, kind, change in found}) == len(found)


def _state(**changes: Any) -> dict[str, Any]:
    side = {
        "connection": "Connected", "disk": "UpToDate", "split_brain": False,
        "out_of_sync_bytes": 0, "resync_total_bytes": 0,
    }  # fmt: skip
    service = {
        "states": {"nodo1": "started", "nodo2": "stopped"}, "maintenance": False, "blocked": False,
        "resource_states": {"nodo1": {"files": "started"}},
    }  # fmt: skip
    node = {"state": "alive", "same_config": True}
    return {
        "nodes": {"nodo1": node, "nodo2": {**node, **changes.get("node", {})}},
        "mirrors": {"r0": {"nodo1": side, "nodo2": {**side, **changes.get("side", {})}}},
        "services": {"web": {**service, **changes.get("service", {})}},
        "witness": changes.get("witness"),
        "certificates": changes.get("certificates", {}),
        "ping": changes.get("ping", {}),
    }


def _seen(**changes: Any) -> set[str] | None:
    seen = seen_in(_state(**changes), {}, 0, POLICY)
    return None if seen is None else set(seen)


def test_what_trouble_looks_like_in_the_status() -> None:
    assert _seen() == set()
    assert _seen(node={"state": "dead"}) == {"node_lost:nodo2"}
    assert _seen(node={"state": "left"}) == set()
    assert _seen(node={"state": "unknown"}) is None
    assert _seen(node={"same_config": False}) == {"configuration_differs:"}
    assert _seen(node={"same_config": False, "unread": "h"}) == {"configuration_differs:nodo2"}
    assert _seen(node={"unread": "h"}) == set(), "changed, but not yet read by any: people are at work"
    assert _seen(side={"disk": "Outdated"}) == {"one_copy:r0"}
    assert _seen(side={"split_brain": True}) == {"split_brain:r0"}
    assert _seen(witness={"trouble": "silent"}) == {"witness_lost:"}
    assert _seen(witness={"trouble": ""}) == set()
    assert _seen(ping={"router": {"nodes": {"nodo1": "reached", "nodo2": "lost"}}}) == {"ping_lost:nodo2"}
    assert _seen(ping={"router": {"nodes": {"nodo1": "doubtful", "nodo2": "unknown"}}}) == set()
    assert _seen(service={"states": {"nodo1": "stopped"}}) == {"service_down:web"}
    assert _seen(service={"states": {"nodo1": "stopped"}, "maintenance": True}) == set()
    assert _seen(certificates={"files": "It is over."}) == {"certificate:files"}
    assert _seen(service={"states": {"nodo1": "started", "nodo2": "started"}}) == {"service_twice:web"}
    assert _seen(service={"states": {"nodo1": "started", "nodo2": "stopping"}}) == set()
    assert _seen(service={"blocked": True}) == {"service_blocked:web"}
    assert _seen(service={"resource_states": {"nodo2": {"files": "blocked"}}}) == {"service_blocked:web"}


def test_a_resync_is_stuck_when_it_does_not_move() -> None:
    def at(now_ms: int, done: int, before: Any) -> tuple[Any, bool]:
        side = {"connection": "SyncTarget", "disk": "Inconsistent", "resync_total_bytes": done}
        moved = movements(_state(side=side), before, now_ms)
        return moved, key_of("resync_stuck", "r0") in (seen_in(_state(side=side), moved, now_ms, POLICY) or ())

    moved, stuck = at(0, 1, {})
    assert not stuck
    moved, stuck = at(4000, 2, moved)
    assert not stuck
    moved, stuck = at(8999, 2, moved)
    assert not stuck
    moved, stuck = at(9000, 2, moved)
    assert stuck
    assert movements(_state(), moved, 9000) == {}


def test_every_kind_has_its_words_in_every_language() -> None:
    for language in LANGUAGES:
        texts = {
            text_of(Alert(kind=kind, subject="x1", change=change), language)
            for kind in KINDS
            for change in ("raised", "cleared")
        }
        assert len(texts) == 2 * len(KINDS)
    notice = notice_of(Alert(kind="one_copy", subject="r0", change="raised"), "es", cluster="c", node="n", at="hoy")
    subject, body = mail_of(notice, "es")
    assert subject.startswith("[c] aviso: Queda una sola copia")
    assert "r0" in body
