"""`relevo node run`: what the other daemons report goes through arbiter and manager; what they decide is carried out.

One loop: something changed (or a second has passed, because waits have an end) -> the arbiter is told, the plan is
made, the executor gets this node's steps, the facts are published. Nothing is remembered between two rounds but what
the two cores keep themselves; the daemon may be killed at any moment, and adopts what runs when it comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping

import structlog

from relevo.agents import outputs
from relevo.agents.base import Agent
from relevo.agents.build import build
from relevo.agents.ledger import LEDGER, Ledger
from relevo.base.bootid import boot_id
from relevo.base.control import ControlServer, Message
from relevo.base.paths import Paths
from relevo.base.sole import sole
from relevo.config.model import Config, Service
from relevo.device.held import Pause
from relevo.manager.executor import Executor
from relevo.manager.model import Failure, ServiceFacts, ServiceState
from relevo.manager.standing import mirrors_of
from relevo.node import views
from relevo.node.alerts import Alerts
from relevo.node.brain import Brain
from relevo.node.certificates import Certificates
from relevo.node.fencer import Fencer
from relevo.node.history import History, history_path
from relevo.node.inputs import Feed, recount
from relevo.node.orders import Orders
from relevo.node.pinger import Pinger
from relevo.node.publisher import Publisher
from relevo.node.requests import Requests
from relevo.node.status import status_of
from relevo.node.store import Store
from relevo.node.watchdog import watchdog_of
from relevo.node.witness import WitnessFeed

ROUND_MS = 1000
"""A round is made this often even when nothing changed: waits of the cores end by time."""
_log = structlog.get_logger()


def now_ms() -> int:
    """This server's clock for durations; it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


async def run(config: Config, me: str, paths: Paths) -> None:
    """Decide and act until SIGTERM or SIGINT; what runs on this server goes on running.

    Raises:
        AlreadyRuns: another one does this here.
    """
    with sole(paths.run, "node"):
        await _until_told_to_stop(Daemon(config, me, paths))


async def _until_told_to_stop(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await daemon.run()


Failures = dict[str, dict[str, Failure]]
"""Service -> id of the resource -> what was counted."""


class Daemon:
    """The node daemon.

    Args:
        config: the cluster.
        me: this node.
        paths: where state and sockets lie.
    """

    def __init__(self, config: Config, me: str, paths: Paths) -> None:
        self._config = config
        self._me = me
        self._paths = paths
        self._changed = asyncio.Event()
        self._told = asyncio.Condition()
        self._history = History(me, history_path(paths))
        self._heartbeat = Feed(paths.socket("heartbeat"), self._changed)
        self._mirrors = {
            name: Feed(paths.socket(f"mirror-{name}"), self._changed, Pause(paths.device_folder(name)))
            for name in config.nodes[me].disks
        }
        hosted = {name: config.services[name] for name, where in views.hosts(config).items() if me in where}
        # In the run folder: the clock of the failures begins anew with each boot, as that folder does.
        self._counts = Store(paths.run / "node")
        self._ledger = Ledger(paths.run / "node" / "tools")
        self._counted = self._counts.load("failures", Failures, {})
        self._services = tuple(hosted)
        self._executor = Executor(
            hosted,
            _agents(config, paths, hosted),
            now_ms,
            self._changed.set,
            self._counted,
            self._counts.load("busy", dict[str, str], {}),
            self._note_busy,
        )
        self._services_of = {
            mirror: [name for name, service in hosted.items() if mirror in mirrors_of(service)]
            for mirror in self._mirrors
        }
        self._roles: dict[str, object] = {}
        self._publisher = Publisher(paths.socket("heartbeat"))
        self._witness: WitnessFeed | None = None
        if config.witness is not None:
            self._witness = WitnessFeed(config.witness, config.cluster, me, now_ms, self._changed.set)
        self._fencer = Fencer(config, self._history, self._changed.set)
        self._pinger = Pinger(config.ping, now_ms, self._changed.set)
        self._watchdog = watchdog_of(config.watchdog)
        self._brain = Brain(
            config=config,
            me=me,
            boot_id=boot_id(paths.run),
            store=Store(paths.state / "node"),
            paths=paths,
            history=self._history,
            witness=self._witness,
            fencer=self._fencer,
            pinger=self._pinger,
            changed=self._changed.set,
        )
        self._cleaned = self._brain.record.cleaned
        self._certificates = Certificates(config, self._changed.set)
        self._alerts = Alerts(config, me, Store(paths.state / "node"), self._history, self._changed.set)
        self._control = self._control_server(paths)

    def _control_server(self, paths: Paths) -> ControlServer:
        requests = Requests(
            config=self._config,
            me=self._me,
            paths=paths,
            brain=self._brain,
            executor=self._executor,
            history=self._history,
            fencer=self._fencer,
            publisher=self._publisher,
            changed=self._changed.set,
            told=self._told,
        )
        orders = Orders(
            config=self._config, me=self._me, brain=self._brain, history=self._history, changed=self._changed.set
        )
        return ControlServer(
            paths.socket("node"),
            {"status": self._status, **requests.handlers(), **orders.handlers(), **self._alerts.handlers()},
            {"watch": self._watch},
        )

    async def run(self) -> None:
        """Until cancelled."""
        orderly = False
        await self._ledger.end_leftovers()  # before anything is looked at: what is found then stays as it is
        LEDGER.set(self._ledger)
        await self._control.start()
        self._history.add(f"The node daemon of {self._me} runs.")
        try:
            async with asyncio.TaskGroup() as tasks:
                for feed in (self._heartbeat, *self._mirrors.values()):
                    tasks.create_task(feed.run())
                tasks.create_task(self._publisher.run())
                tasks.create_task(self._history.run())
                if self._witness is not None:
                    tasks.create_task(self._witness.run())
                tasks.create_task(self._pinger.run())
                tasks.create_task(self._executor.run())
                tasks.create_task(self._alerts.run())
                tasks.create_task(self._certificates.run())
                tasks.create_task(outputs.keep_small())
                tasks.create_task(self._rounds())
        except asyncio.CancelledError:
            orderly = True
            raise
        finally:
            idle = all(told.state is ServiceState.STOPPED for told in self._executor.facts().values())
            self._watchdog.close(disarm=orderly and idle)
            await self._control.stop()

    async def _rounds(self) -> None:
        while True:
            self._changed.clear()
            await self._round()
            self._watchdog.pet(now_ms())  # here and nowhere else: a loop that hangs must not be covered up
            with contextlib.suppress(TimeoutError):
                wakes_ms = self._brain.wakes_ms
                pause_ms = ROUND_MS if wakes_ms is None else max(0, min(ROUND_MS, wakes_ms - now_ms()))
                async with asyncio.timeout(pause_ms / 1000):
                    await self._changed.wait()

    async def _round(self) -> None:
        heartbeat, mirrors, services = seen = self._look()
        self._notice_mirrors(mirrors)
        plan = await self._brain.think(now_ms(), heartbeat, mirrors, services)
        self._clean_up()
        if self._look() == seen:
            self._executor.apply(plan)
        else:  # something happened while a vote was being stored: a step may rest only on what is known now
            self._changed.set()
        if self._config.alerts:
            self._brain.words = self._alerts.look(self._state(), self._brain.nodes, now_ms())
        # The facts that announce a step are on their way before the step begins.
        facts = self._brain.facts(self._executor.facts())
        self._publisher.publish(facts, self._brain.wishes(facts))
        self._keep_failures()
        async with self._told:
            self._told.notify_all()

    def _clean_up(self) -> None:
        """Forget the failures of services whose clean-up came with the record."""
        cleaned = self._brain.record.cleaned
        if cleaned != self._cleaned:
            for service in self._services:
                if cleaned.get(service, 0) != self._cleaned.get(service, 0):
                    self._executor.clean_up(service)
            self._cleaned = cleaned

    def _note_busy(self, busy: dict[str, str]) -> None:
        """Whatever ends this daemon in the middle of a step: the next one knows where not to believe its eyes."""
        try:
            self._counts.save("busy", busy)
        except OSError as error:
            _log.warning("step_not_noted", why=str(error))

    def _keep_failures(self) -> None:
        """A restart of this daemon must not give a resource that fails again and again a new chance each time."""
        counted = {name: told.failures for name, told in self._executor.facts().items()}
        if counted != self._counted:
            try:
                self._counts.save("failures", counted)
            except OSError as error:
                _log.warning("failures_not_kept", why=str(error))
            self._counted = counted

    def _look(self) -> tuple[Message | None, dict[str, Message | None], dict[str, ServiceFacts]]:
        """What the other daemons and the executor say at this moment."""
        return self._heartbeat.latest, {name: one.latest for name, one in self._mirrors.items()}, self._executor.facts()

    def _notice_mirrors(self, mirrors: dict[str, Message | None]) -> None:
        """A mirror that changed its role, its device or its process is looked at now, not at the next interval."""
        for name, status in mirrors.items():
            role = (status["role"], status["device"]) if status is not None else None
            if self._roles.setdefault(name, role) != role:
                self._roles[name] = role
                for service in self._services_of[name]:
                    self._executor.check_soon(service)

    def _state(self) -> Message:
        state = status_of(self._config, self._me, self._brain, self._heartbeat.latest, self._history)
        certificates = self._certificates.trouble
        alarms = [*state["alarms"], *self._alerts.alarms(), *certificates.values()]
        if self._publisher.trouble and self._heartbeat.latest is not None:
            alarms.append(f"The other servers do not hear what {self._me} does: {self._publisher.trouble}")
        if self._watchdog.trouble:
            alarms.append(self._watchdog.trouble)
        return {
            **state,
            "alarms": alarms,
            "alerts": self._alerts.state(),
            "certificates": certificates,
            "watchdog": self._watchdog.state(),
        }

    async def _status(self, _request: Message) -> Message:
        state = self._state()
        for name, sides in state["mirrors"].items():
            if self._me in sides:
                await recount(self._paths.socket(f"mirror-{name}"), sides[self._me])
        return state

    async def _watch(self, _request: Message) -> AsyncIterator[Message]:
        last: Message | None = None
        while True:
            state = self._state()
            if state != last:
                last = state
                yield state
            async with self._told:
                await self._told.wait()


def _agents(config: Config, paths: Paths, hosted: Mapping[str, Service]) -> dict[str, dict[str, Agent]]:
    """Service -> id of the resource -> its agent."""
    return {
        name: {resource.id: build(resource, config, paths) for resource in service.resources}
        for name, service in hosted.items()
    }
