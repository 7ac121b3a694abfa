"""The executor, in virtual time: steps, time limits, monitoring, and what it never does at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, failed
from relevo.base.control import Refused
from relevo.heartbeat.outbox import MAX_FACTS_BYTES
from relevo.manager.executor import Executor
from relevo.manager.model import (
    Action,
    Decision,
    NodeFacts,
    Plan,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Step,
    encode_facts,
)
from relevo.manager.worker import DECLINE_PAUSE_MS, PROBE_PAUSE_MS
from sim import cluster_loop
from unit.cluster_samples import service

PARTS = ("mirror", "filesystem", "files", "address")


class Actor(Agent):
    """A resource that does what the test says and notes what is asked of it."""

    def __init__(self, resource: str, diary: list[str], busy: set[str]) -> None:
        super().__init__(resource)
        self._diary = diary
        self._busy = busy
        self.found: Health | Exception = STOPPED
        self.seconds: dict[str, float] = {}
        self.errors: dict[str, Exception] = {}
        self.context: StartContext | None = None

    async def _act(self, what: str) -> None:
        assert not self._busy, f"{what} of {self.id} during {self._busy}"
        self._diary.append(f"{what} {self.id}")
        self._busy.add(what)
        try:
            await asyncio.sleep(self.seconds.get(what, 0.01))
        finally:
            self._busy.discard(what)
        if what in self.errors:
            raise self.errors[what]

    async def start(self, context: StartContext) -> None:
        self.context = context
        await self._act("start")
        self.found = RUNNING

    async def stop(self) -> None:
        await self._act("stop")
        self.found = STOPPED

    async def quiesce(self) -> None:
        await self._act("quiesce")

    async def probe(self) -> Health:
        self._diary.append(f"probe {self.id}")
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def monitor(self) -> Health:
        await self._act("monitor")
        assert isinstance(self.found, Health)
        return self.found


class Stage:
    """An executor with its actors."""

    def __init__(self, interrupted: str = "") -> None:
        self.diary: list[str] = []
        self.notes: list[dict[str, str]] = []
        busy: set[str] = set()
        self.actors = {name: Actor(name, self.diary, busy) for name in PARTS}
        self.changes = 0
        loop = asyncio.get_running_loop()
        agents = {"web": dict(self.actors)}
        self.executor = Executor(
            {"web": service()},
            agents,
            lambda: round(loop.time() * 1000),
            self._changed,
            busy={"web": interrupted, "gone": "x"} if interrupted else None,
            note=self.notes.append,
        )
        self._running = loop.create_task(self.executor.run())

    def _changed(self) -> None:
        self.changes += 1

    @property
    def facts(self) -> ServiceFacts:
        return self.executor.facts()["web"]

    def apply(self, action: Action, resource: str, *, number: int | None = None, timeout_ms: int = 1000) -> bool:
        step = Step(
            node="nodo1",
            service="web",
            resource=resource,
            action=action,
            number=self.facts.step + 1 if number is None else number,
            timeout_ms=timeout_ms,
            epoch=3,
        )
        decision = Decision(service="web", target="nodo1", reason="")
        return self.executor.apply(Plan(steps=(step,), decisions={"web": decision}))

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


def on_stage(play: Callable[[Stage], Awaitable[None]], *, running: bool = False, interrupted: str = "") -> None:
    async def evening() -> None:
        stage = Stage(interrupted)
        if running:
            for actor in stage.actors.values():
                actor.found = RUNNING
        await asyncio.sleep(0.2)
        await play(stage)
        await stage.close()

    cluster_loop.run(evening())


def test_what_runs_is_adopted_and_looked_after() -> None:
    async def play(stage: Stage) -> None:
        assert stage.facts.state is ServiceState.STARTED
        assert {f"probe {name}" for name in PARTS} <= set(stage.diary)
        assert {f"monitor {name}" for name in PARTS} <= set(stage.diary)
        assert not any(entry.startswith(("start", "stop")) for entry in stage.diary)

    on_stage(play, running=True)


def test_what_cannot_be_looked_at_is_unknown_until_it_can() -> None:
    async def play(stage: Stage) -> None:
        assert stage.facts.state is ServiceState.UNKNOWN
        step = stage.facts.step
        stage.apply(Action.START, "mirror")
        assert stage.facts.step == step
        stage.actors["files"].found = STOPPED
        await asyncio.sleep(PROBE_PAUSE_MS / 1000 + 0.1)
        assert stage.facts.state is ServiceState.STOPPED

    async def evening() -> None:
        stage = Stage()
        stage.actors["files"].found = AgentFailed("nobody answers")
        await asyncio.sleep(0.2)
        await play(stage)
        await stage.close()

    cluster_loop.run(evening())


def test_an_accepted_step_is_in_the_facts_before_anything_is_done() -> None:
    async def play(stage: Stage) -> None:
        before = stage.facts.step
        assert stage.apply(Action.START, "mirror")
        assert (stage.facts.state, stage.facts.step, stage.facts.target) == (ServiceState.STARTING, before + 1, "nodo1")
        assert "start mirror" not in stage.diary
        await asyncio.sleep(0.1)
        assert stage.facts.resources["mirror"] is ResourceState.STARTED
        assert stage.facts.epoch == 3
        assert stage.actors["mirror"].context == StartContext(epoch=3)

    on_stage(play)


def test_a_step_of_an_older_plan_is_left() -> None:
    async def play(stage: Stage) -> None:
        number = stage.facts.step + 1
        stage.apply(Action.START, "mirror")
        await asyncio.sleep(0.1)
        stage.apply(Action.START, "mirror", number=number)
        stage.apply(Action.STOP, "mirror", number=number + 5)
        await asyncio.sleep(0.1)
        assert [entry for entry in stage.diary if "mirror" in entry and "probe" not in entry] == ["start mirror"]

    on_stage(play)


def test_only_one_step_of_a_plan_is_taken() -> None:
    async def play(stage: Stage) -> None:
        stage.apply(Action.START, "mirror")
        assert not stage.apply(Action.START, "filesystem")
        await asyncio.sleep(0.5)
        assert "start filesystem" not in stage.diary

    on_stage(play)


def test_a_start_that_hangs_can_be_stopped_after_its_time() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["mirror"].seconds["start"] = 3600
        stage.apply(Action.START, "mirror", timeout_ms=2000)
        await asyncio.sleep(1.9)
        assert stage.facts.state is ServiceState.STARTING
        assert not stage.apply(Action.STOP, "mirror")
        await asyncio.sleep(0.2)
        assert stage.facts.resources["mirror"] is ResourceState.FAILED
        assert stage.facts.failures["mirror"].count == 1
        assert "longer than 2.0 s" in stage.facts.reason
        stage.apply(Action.STOP, "mirror")
        await asyncio.sleep(0.1)
        assert stage.facts.state is ServiceState.STOPPED

    on_stage(play)


def test_a_declined_promotion_is_no_failure() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["mirror"].errors["start"] = Refused("PeerIsPrimary", "The peer is Primary.")
        stage.apply(Action.START, "mirror")
        await asyncio.sleep(0.05)
        facts = stage.facts
        assert (facts.state, facts.failures) == (ServiceState.STOPPED, {})
        now_ms = asyncio.get_running_loop().time() * 1000
        assert now_ms < facts.retry_at_ms <= now_ms + DECLINE_PAUSE_MS

    on_stage(play)


def test_a_stop_that_fails_blocks() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["filesystem"].errors["stop"] = AgentFailed("it is busy")
        stage.apply(Action.STOP, "filesystem")
        await asyncio.sleep(0.1)
        assert stage.facts.resources["filesystem"] is ResourceState.BLOCKED
        assert stage.facts.state is ServiceState.FAILED
        assert "it is busy" in stage.facts.reason

    on_stage(play, running=True)


def test_what_a_daemon_was_busy_with_when_it_ended_is_not_stopped_because_it_looks_so() -> None:
    """The start may go on in another process, or have left pieces: the other server must not hear "stopped" yet."""

    async def play(stage: Stage) -> None:
        assert stage.facts.resources["files"] is ResourceState.FAILED
        assert stage.facts.state is ServiceState.FAILED
        assert "busy with files" in stage.facts.reason
        assert stage.facts.failures == {}, "nothing has failed"
        stage.apply(Action.STOP, "files")
        await asyncio.sleep(0.5)
        assert stage.facts.state is ServiceState.STOPPED
        assert stage.notes == [{"web": "files"}, {}]

    on_stage(play, interrupted="files")


def test_what_a_daemon_was_busy_with_and_runs_is_adopted() -> None:
    async def play(stage: Stage) -> None:
        assert stage.facts.state is ServiceState.STARTED
        assert stage.notes == [{}]

    on_stage(play, running=True, interrupted="files")


def test_however_much_a_program_says_the_others_are_told_that_it_failed() -> None:
    async def play(stage: Stage) -> None:
        for name, actor in stage.actors.items():
            said = "e2fsck: inode 7 has illegal blocks. " * 30_000
            actor.errors = {"start": AgentFailed(f"It cannot be repaired: {said} Run it by hand.")}
            stage.apply(Action.START, name)
            await asyncio.sleep(0.5)
        assert stage.facts.state is ServiceState.FAILED
        assert len(stage.facts.failures) == len(PARTS)
        told = NodeFacts(boot_id="b", config_hash="h", services={"web": stage.facts})
        assert len(msgspec.json.encode(encode_facts(told))) < MAX_FACTS_BYTES / 10
        assert stage.facts.reason.startswith("Start of address failed: It cannot be repaired")
        assert stage.facts.reason.endswith("Run it by hand.")

    on_stage(play)


def test_a_quiesce_that_fails_does_not_hold_up_the_stop() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["files"].errors["quiesce"] = AgentFailed("no answer")
        stage.apply(Action.QUIESCE, "files")
        await asyncio.sleep(0.1)
        assert stage.facts.resources["files"] is ResourceState.QUIESCED
        assert stage.facts.state is ServiceState.STOPPING

    on_stage(play, running=True)


def test_a_sick_resource_is_found_counted_and_forgotten_in_time() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["files"].found = failed("it answers with errors")
        await asyncio.sleep(2.5)
        assert stage.facts.resources["files"] is ResourceState.FAILED
        assert stage.facts.failures["files"].count == 1
        assert stage.facts.state is ServiceState.FAILED
        assert "it answers with errors" in stage.facts.reason
        await asyncio.sleep(service().failure_timeout_ms / 1000)
        assert stage.facts.failures == {}

    on_stage(play, running=True)


def test_a_person_cleans_up() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["files"].found = STOPPED
        stage.executor.check_soon("web")
        await asyncio.sleep(0.3)
        assert stage.facts.failures["files"].count == 1
        changes = stage.changes
        stage.executor.clean_up("web")
        assert stage.facts.failures == {}
        assert stage.changes > changes

    on_stage(play, running=True)


def test_a_monitor_that_hangs_is_a_failure_after_its_time() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["files"].seconds["monitor"] = 3600
        await asyncio.sleep(15)
        assert stage.facts.resources["files"] is ResourceState.FAILED

    on_stage(play, running=True)


def test_a_step_does_not_wait_for_a_monitor_and_never_runs_beside_it() -> None:
    async def play(stage: Stage) -> None:
        stage.actors["files"].seconds["monitor"] = 3600
        await asyncio.sleep(3)
        assert stage.diary[-1] == "monitor files"
        stage.apply(Action.STOP, "address")
        await asyncio.sleep(0.1)
        assert stage.facts.resources["address"] is ResourceState.STOPPED
        assert stage.facts.failures == {}

    on_stage(play, running=True)


def test_the_end_of_the_daemon_stops_nothing() -> None:
    async def play(stage: Stage) -> None:
        await stage.close()
        assert not any(entry.startswith("stop") for entry in stage.diary)

    on_stage(play, running=True)


def test_in_maintenance_monitors_report_and_when_it_ends_what_is_here_is_looked_for_anew() -> None:
    async def play(stage: Stage) -> None:
        stage.executor.apply(Plan(maintained=frozenset({"web"})))
        stage.actors["files"].found = STOPPED
        await asyncio.sleep(5)
        assert stage.facts.resources["files"] is ResourceState.STOPPED
        assert stage.facts.failures == {}
        stage.actors["files"].found = RUNNING  # a person has started it
        await asyncio.sleep(5)
        assert stage.facts.state is ServiceState.STARTED
        stage.actors["address"].found = STOPPED
        stage.executor.apply(Plan())
        assert stage.facts.state is ServiceState.UNKNOWN
        stage.apply(Action.START, "address")
        assert stage.facts.state is ServiceState.UNKNOWN  # it was planned before anything is known
        await asyncio.sleep(1)
        assert stage.facts.resources["address"] is ResourceState.STOPPED
        assert stage.facts.resources["files"] is ResourceState.STARTED
        assert stage.facts.failures == {}
        assert not [what for what in stage.diary if what.startswith(("start", "stop"))]

    on_stage(play, running=True)
