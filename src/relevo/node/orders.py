"""People's orders on where services run: shown first with `dry_run`, refused when a service would run nowhere."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

from relevo.base.control import Handler, Message
from relevo.base.errors import RelevoError
from relevo.config.model import Config
from relevo.manager import record as records
from relevo.manager.model import EVERY_SERVICE, RECORD_FORMAT, Alive, Record
from relevo.manager.original import legacy_takes
from relevo.node import views
from relevo.node.brain import Brain
from relevo.node.forecast import Foreseen
from relevo.node.history import History
from relevo.node.status import ping_words

MAX_BAN_S = 366 * 86_400
"""A ban with an end lasts a year at most."""


class NoSuchName(RelevoError):
    """A request names a node, service or mirror that the configuration does not have."""


class WouldStop(RelevoError):
    """After this order a service would run nowhere."""


class HasLeft(RelevoError):
    """A node that said goodbye is asked to run services."""


class NotThere(RelevoError):
    """A service is wanted on a node that has no disk for it, or from which it is banned."""


class OlderProgram(RelevoError):
    """A node that is there runs a program that does not know this order."""


class BadTime(RelevoError):
    """A ban with an end that cannot be."""


def named(config: Config, request: Message, key: str, known: dict[str, object]) -> str:
    """The name that a request gives under a key.

    Raises:
        NoSuchName: it is not known.
    """
    name = request.get(key)
    if not isinstance(name, str) or name not in known:
        raise NoSuchName(f"There is no {key} {name!r} in cluster {config.cluster}.", f"Known: {', '.join(known)}.")
    return name


class Orders:
    """Carries out what changes the record.

    Args:
        config: the cluster.
        me: this node.
        brain: what this node knows.
        history: where a person's orders are noted.
        changed: call-back that starts a new round.
    """

    def __init__(self, *, config: Config, me: str, brain: Brain, history: History, changed: Callable[[], None]) -> None:
        self._config = config
        self._me = me
        self._brain = brain
        self._history = history
        self._changed = changed

    def handlers(self) -> dict[str, Handler]:
        """Request name -> handler, for the control socket."""
        return {
            "standby": self._standby,
            "online": self._online,
            "move": self._move,
            "ban": self._ban,
            "clear": self._clear,
            "maintenance": self._maintenance,
            "cleanup": self._cleanup,
            "explain": self._explain,
            "rebalance": self._rebalance,
        }

    def _node(self, request: Message) -> str:
        return named(self._config, request, "node", dict(self._config.nodes))

    def _service(self, request: Message) -> str:
        return named(self._config, request, "service", dict(self._config.services))

    def _order(self, request: Message, record: Record, what: str, command: str) -> Message:
        """Show what would follow, or refuse, or make it so.

        Args:
            request: its `dry_run` and `stop` count.
            record: what the order makes of the record.
            what: one sentence about it.
            command: how it is said all the same.
        """
        foreseen = self._brain.foresee(record)
        stops = foreseen.stopped()
        refusal = WouldStop(
            f"{' and '.join(stops)} would run nowhere. {' '.join(stops.values())}",
            f"Repair that first, or stop it on purpose: {command} --stop.",
        )
        refused = bool(stops) and not request.get("stop")
        if request.get("dry_run"):
            return {"what": str(refusal) if refused else what, "done": False, "refused": refused, **shown(foreseen)}
        if refused:
            raise refusal
        self._brain.change_record(record)
        self._history.add(what)
        self._changed()
        return {"what": what, "done": True, "refused": False, **shown(foreseen)}

    def _check_all_know(self, order: str) -> None:
        """Whoever does not know an order would work against it."""
        for name, view in self._brain.nodes.items():
            known = view.alive is not Alive.ALIVE or view.facts is None or view.facts.record_format >= RECORD_FORMAT
            if name != self._me and not known:
                raise OlderProgram(
                    f"{name} runs an older Relevo, which does not know {order}.", f"Upgrade {name} first."
                )

    async def _standby(self, request: Message) -> Message:
        node = self._node(request)
        record = records.with_standby(
            self._brain.record, node, standby=True, by=self._me, epoch=self._brain.highest_epoch()
        )
        what = f"{node} is in standby: services move away in order and stay away until `relevo online {node}`."
        other = self._brain.original
        if other is not None and other.legacy and node == self._me:
            what = f"{what} But {legacy_takes(other.node, node)}."
        return self._order(request, record, what, f"relevo standby {node}")

    async def _online(self, request: Message) -> Message:
        node = self._node(request)
        if node == self._me and self._brain.leaving:
            raise HasLeft(
                f"{node} has left the cluster.", "It comes back when its daemons, or the server, start again."
            )
        record = records.with_standby(
            self._brain.record, node, standby=False, by=self._me, epoch=self._brain.highest_epoch()
        )
        return self._order(request, record, f"{node} may run services.", f"relevo online {node}")

    async def _move(self, request: Message) -> Message:
        service = self._service(request)
        self._check_all_know("`move`")
        hosts = views.hosts(self._config)[service]
        node = self._node(request) if request.get("node") else self._other(service, hosts)
        if node not in hosts:
            raise NotThere(f"{node} has no disk for {service}.", f"It can run on {' and '.join(hosts)}.")
        if node in self._brain.record.bans.get(service, {}):
            raise NotThere(f"{service} is banned from {node}.", f"Lift that first: relevo clear {service}.")
        record = records.with_moved(self._brain.record, service, node, by=self._me, epoch=self._brain.highest_epoch())
        later = self._brain.foresee(record)
        what = f"{service} belongs on {node} now, until `relevo clear {service}`."
        if later.after[service] != node:
            reason, _ = later.decisions.get(service, ("", ""))
            what = f"{what} It does not go there yet: {reason}"
        return self._order(request, record, what, f"relevo move {service} {node}")

    def _other(self, service: str, hosts: tuple[str, ...]) -> str:
        """The only other node for it."""
        decision = self._brain.plan.decisions.get(service)
        there = decision.target if decision is not None else None
        others = [name for name in hosts if name != there]
        if there is None or len(others) != 1:
            raise NotThere(
                f"It is not clear where {service} shall go.", f"Name the node: relevo move {service} {hosts[0]}."
            )
        return others[0]

    async def _ban(self, request: Message) -> Message:
        service, node = self._service(request), self._node(request)
        self._check_all_know("`ban`")
        for_s = request.get("for_s", 0)
        if not isinstance(for_s, int) or not 0 <= for_s <= MAX_BAN_S:
            raise BadTime(
                "A ban lasts between 1 s and 366 d.", "Leave --for out for one that lasts until it is cleared."
            )
        until_s = int(time.time()) + for_s if for_s else 0
        record = records.with_ban(
            self._brain.record,
            service,
            node,
            until_s,
            by=self._me,
            epoch=self._brain.highest_epoch(),
        )
        end = f"until {dt.datetime.fromtimestamp(until_s, tz=dt.UTC):%Y-%m-%d %H:%M} UTC, or" if for_s else "until"
        what = f"{service} is banned from {node} {end} `relevo clear {service}`."
        return self._order(request, record, what, f"relevo ban {service} {node}")

    async def _clear(self, request: Message) -> Message:
        service = self._service(request)
        record = records.cleared(self._brain.record, service, by=self._me, epoch=self._brain.highest_epoch())
        what = f"The bans of {service} and its move are cleared: it runs where the configuration wants it."
        return self._order(request, record, what, f"relevo clear {service}")

    async def _maintenance(self, request: Message) -> Message:
        service = self._service(request) if request.get("service") else EVERY_SERVICE
        on = bool(request.get("on"))
        if on:
            self._check_all_know("`maintenance`")
        record = records.with_maintenance(
            self._brain.record,
            service,
            tuple(self._config.services),
            on=on,
            by=self._me,
            epoch=self._brain.highest_epoch(),
        )
        everything = service == EVERY_SERVICE
        what = (
            f"{'Every service' if everything else service} is in maintenance: nothing is started, stopped or "
            f"restarted, and nothing fails over, until `relevo maintenance off{'' if everything else ' ' + service}`."
            if on
            else f"The maintenance of {'every service' if everything else service} is over: what runs is adopted."
        )
        return self._order(request, record, what, f"relevo maintenance {'on' if on else 'off'}")

    async def _cleanup(self, request: Message) -> Message:
        service = self._service(request)
        by, epoch = self._me, self._brain.highest_epoch()
        record = records.with_cleaned(self._brain.record, service, by=by, epoch=epoch)
        if service in record.forced:
            record = records.with_forced(record, service, None, by=by, epoch=epoch)
        return self._order(
            request, record, f"The failures of {service} are forgotten on every server.", f"relevo cleanup {service}"
        )

    async def _rebalance(self, request: Message) -> Message:
        found = self._brain.proposal()
        if not found.service or not request.get("apply"):
            return {"what": found.reason, "service": found.service, "node": found.node, "done": False}
        moved = await self._move({"service": found.service, "node": found.node})
        return {**moved, "service": found.service, "node": found.node}

    async def _explain(self, request: Message) -> Message:
        """Why is it there, why not elsewhere, what if one of the nodes died now."""
        service = self._service(request)
        now = self._brain.foresee()
        decision = self._brain.plan.decisions.get(service)
        there = now.before[service]
        elsewhere = {
            node: obstacle or "It could take over."
            for node, obstacle in self._brain.obstacles(service).items()
            if node != there
        }
        return {
            "service": service,
            "node": there,
            "reason": decision.reason if decision is not None else "Not decided yet.",
            "remedy": decision.remedy if decision is not None else "",
            "elsewhere": elsewhere,
            "ping": ping_words(self._config, self._brain.nodes),
            "if_dies": {
                node: _of(self._brain.foresee(dies=node), service)
                for node, view in self._brain.nodes.items()
                if node == self._me or view.alive is Alive.ALIVE
            },
        }


def shown(foreseen: Foreseen) -> Message:
    """A forecast as JSON."""
    return {
        "steps": [
            {"node": step.node, "service": step.service, "resource": step.resource, "action": step.action.value}
            for step in foreseen.steps
        ],
        "after": foreseen.after,
        "fenced": list(foreseen.fenced),
    }


def _of(foreseen: Foreseen, service: str) -> Message:
    reason, remedy = foreseen.decisions.get(service, ("No server would be left.", ""))
    steps = [step for step in shown(foreseen)["steps"] if step["service"] == service]
    return {
        "node": foreseen.after[service],
        "reason": reason,
        "remedy": remedy,
        "steps": steps,
        "fenced": list(foreseen.fenced),
    }
