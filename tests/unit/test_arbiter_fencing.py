"""The arbiter where servers can switch each other off."""

from __future__ import annotations

from typing import Any

import msgspec

from relevo.arbiter.events import AllowAlone, Fence, Observed, Persist, Persisted
from relevo.config.fencing import FenceDevice
from relevo.config.model import Config, Witness
from relevo.manager.model import MirrorFacts, NodeView, Permission
from unit.cluster_samples import configuration
from unit.test_arbiter_rules import CUT, Bench, mirror, peer

DELAY_MS = 2000


def fenceable(witness: Witness | None = None) -> Config:
    config = configuration("ask", witness)
    nodes = {
        name: msgspec.structs.replace(node, fencing=(FenceDevice(agent="fence_x"),))
        for name, node in config.nodes.items()
    }
    return msgspec.structs.replace(config, nodes=nodes)


class FencingBench(Bench):
    """An arbiter of nodo2 that is told who has been fenced."""

    def see(self, mine: MirrorFacts | None, other: NodeView, *, after_ms: int = 0, **more: Any) -> Permission:
        self.now_ms += after_ms
        seen = Observed(
            now_ms=self.now_ms,
            initdead_passed=True,
            peers={"nodo1": other},
            mirrors={"r0": mine},
            wanted=frozenset({"r0"}) if more.get("wanted", True) else frozenset(),
            fenced=frozenset({"nodo1"}) if more.get("fenced") else frozenset(),
            fence_troubles=more.get("troubles", {}),
        )
        self.effects = list(self.arbiter.step(seen))
        for effect in list(self.effects):
            if isinstance(effect, Persist):
                self.effects += self.arbiter.step(Persisted(state=effect.state))
        return self.arbiter.permissions["r0"]

    @property
    def fences(self) -> list[Fence]:
        return [effect for effect in self.effects if isinstance(effect, Fence)]


LOST = mirror(CUT, peer_lost_since_connect=True)


def test_who_takes_over_has_the_silent_one_fenced_first() -> None:
    bench = FencingBench(fenceable())
    word = bench.see(LOST, peer("dead"))
    assert (word.rule, word.epoch) == ("fencing", 0)
    assert bench.fences == [Fence(node="nodo1", delay_ms=DELAY_MS)]
    word = bench.see(LOST, peer("dead"), fenced=True)
    assert word.rule == "fenced"
    assert word.epoch > 0
    assert not bench.fences


def test_nobody_is_fenced_for_what_is_not_wanted_here() -> None:
    bench = FencingBench(fenceable())
    bench.see(LOST, peer("dead"), wanted=False)
    assert not bench.fences


def test_a_failure_is_said() -> None:
    bench = FencingBench(fenceable())
    word = bench.see(LOST, peer("dead"), troubles={"nodo1": "The power bar does not answer."})
    assert "The power bar does not answer." in word.reason
    assert word.epoch == 0


def test_fencing_does_not_make_a_stale_copy_new() -> None:
    bench = FencingBench(fenceable())
    for mine in (mirror(CUT), mirror(CUT, was_primary_at_start=True)):
        word = bench.see(mine, peer("dead"), fenced=False)
        assert (word.verdict, word.rule) == ("no", "no_proof")
        assert not bench.fences, "nothing would be gained by it"


def test_an_active_server_has_the_silent_one_fenced_without_delay() -> None:
    bench = FencingBench(fenceable())
    cut = mirror(CUT, role="Primary", suspended=True)
    bench.see(cut, peer("dead"))
    assert bench.fences == [Fence(node="nodo1", delay_ms=0)]
    bench.see(cut, peer("dead"), fenced=True)
    assert [effect for effect in bench.effects if isinstance(effect, AllowAlone)]


def test_who_is_alive_is_not_fenced_for_a_cut_cable() -> None:
    bench = FencingBench(fenceable())
    bench.see(mirror(CUT, role="Primary", suspended=True), peer(theirs=mirror(CUT)))
    assert not bench.fences


def test_where_a_witness_decides_nobody_is_fenced_for_his_silence() -> None:
    bench = FencingBench(fenceable(Witness(address="witness", key="x")))
    bench.see(LOST, peer("dead"))
    assert not bench.fences
