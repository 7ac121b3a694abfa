"""The cluster as one JSON object, for `relevo status` and everybody who watches."""

from __future__ import annotations

from collections.abc import Mapping

from relevo import __version__
from relevo.base.control import Message
from relevo.config.load import pings
from relevo.config.model import Config
from relevo.config.rules import unguarded
from relevo.manager.model import RECORD_FORMAT, Alive, NodeFacts, NodeView, ServiceState
from relevo.node import original
from relevo.node.brain import Brain
from relevo.node.history import History
from relevo.node.mirror_alarms import mirror_alarms

_UNHEARD = NodeView(alive=Alive.UNKNOWN)


def status_of(config: Config, me: str, brain: Brain, heartbeat: Message | None, history: History) -> Message:
    """What `relevo status --json` prints.

    Keys: `cluster`, `me`, `alarms` and `risks` (sentences), `nodes`, `services`, `mirrors`, `witness`, `ping`,
    `history`. The daemon adds `alerts` (see `Alerts.state`) , `certificates` (resource -> what is wrong with its
    certificate) and `watchdog` (of this server).
    """
    # What a silent node said last is no state of today.
    facts = {name: view.facts for name, view in brain.nodes.items() if view.alive is Alive.ALIVE}
    alarms = list(brain.alarms)
    if heartbeat is None:
        alarms.append(f"The heartbeat daemon of {me} does not answer: nobody hears this server.")
    services = {name: _service(config, name, brain, facts) for name in config.services}
    mirrors = {name: _sides(config, name, facts) for name in config.mirrors}
    nodes = _nodes(config, me, brain, heartbeat)
    silent = frozenset(name for name, node in nodes.items() if node["state"] in {"dead", "left"})
    return {
        "cluster": config.cluster,
        "me": me,
        "config_hash": config.hash,
        "alarms": [*alarms, *_outages(services), *mirror_alarms(mirrors, silent)],
        "risks": [
            *_risks(config),
            *pings(config),
            *_left_alone(config, brain),
            *_versions(nodes),
            *_original(config, brain),
        ],
        "nodes": nodes,
        "services": services,
        "mirrors": mirrors,
        "witness": _witness(config, brain),
        "ping": ping_words(config, brain.nodes),
        "history": history.events(),
    }


def _witness(config: Config, brain: Brain) -> Message | None:
    """What the witness said last; None where there is none."""
    if config.witness is None:
        return None
    votes = brain.votes()
    return {
        "address": config.witness.address,
        "port": config.witness.port,
        "trouble": brain.witness_trouble,
        "answers": all(vote.answers for vote in votes.values()),
        "in_sync": {name: list(vote.entry.in_sync) if vote.entry else None for name, vote in votes.items()},
    }


def ping_words(config: Config, nodes: Mapping[str, NodeView]) -> Message:
    """Ping target -> its addresses, and each node's word on it (`unknown`: it is silent, or does not say)."""
    found: Message = {}
    for name, addresses in config.ping.targets.items():
        words = dict.fromkeys(config.nodes, "unknown")
        for node, view in nodes.items():
            if view.alive is Alive.ALIVE and view.facts is not None and name in view.facts.reach:
                words[node] = str(view.facts.reach[name])
        found[name] = {"addresses": [str(address) for address in addresses], "nodes": words}
    return found


def _outages(services: Message) -> list[str]:
    """What users miss."""
    found = []
    for name, service in services.items():
        running = [node for node, state in service["states"].items() if state == ServiceState.STARTED]
        if not running:
            found.append(f"Service {name} runs nowhere. {service['remedy']}".strip())
        if len(running) > 1:
            found.append(f"Service {name} runs on {' and '.join(running)} at once. {service['reason']}")
    return found


def _risks(config: Config) -> list[str]:
    return [
        f'Mirror {mirror.name}: alone = "risk": a server that sees the other fall silent takes over without proof; '
        "if only the network is cut, both go on."
        for mirror in config.mirrors.values()
        if mirror.alone == "risk"
    ] + list(unguarded(config.services))


def _versions(nodes: Message) -> list[str]:
    """That a rolling upgrade is under way: each version reads what another tells and passes on what it knows not."""
    told = {name: node["program"] for name, node in nodes.items() if node["program"]}
    if len(set(told.values())) <= 1:
        return []
    listed = ", ".join(f"{name} {program}" for name, program in told.items())
    sentence = f"The servers run different versions of Relevo ({listed}), which is meant for the time of an upgrade: "
    return [sentence + "what only the newer one knows rests until both have it."]


def _original(config: Config, brain: Brain) -> list[str]:
    return original.limits(config, brain.original.node) if brain.original is not None else []


def _left_alone(config: Config, brain: Brain) -> list[str]:
    return [
        f"Service {name} is in maintenance: nothing is started, stopped or restarted, and nothing fails over."
        for name in config.services
        if brain.record.maintains(name)
    ]


_NODE_WORDS = {"init": "starting", "up": "starting", "active": "alive"}
"""Heartbeat's word for the state of a node -> ours; `dead`, `left` and `unknown` are the same."""


def _nodes(config: Config, me: str, brain: Brain, heartbeat: Message | None) -> Message:
    peers = heartbeat["peers"] if heartbeat is not None else {}
    found: Message = {}
    for name in config.nodes:
        peer = peers.get(name, {})
        view = brain.nodes.get(name)
        unknown = dict.fromkeys(config.links, "unknown")
        found[name] = {
            "state": _NODE_WORDS["active"] if name == me else _node_word(peer),
            "late": bool(peer.get("late", False)),
            "standby": name in brain.record.standby,
            "links": dict.fromkeys(config.links, "-") if name == me else peer.get("links", unknown),
            "same_config": view is None or view.facts is None or view.facts.config_hash == config.hash,
            "config_hash": "" if view is None or view.facts is None else view.facts.config_hash,
            "unread": "" if view is None or view.facts is None else view.facts.unread,
            **_program(None if name == me else view or _UNHEARD),
            "original": brain.original is not None and brain.original.node == name,
        }
    return found


def _node_word(peer: Message) -> str:
    """A node's state in the words of the status: `active` is said of the server that serves, and of nothing else."""
    state = str(peer.get("state", "unknown"))
    return _NODE_WORDS.get(state, state)


def _program(other: NodeView | None) -> Message:
    """Which Relevo a node runs (None: this one), which format of the record it knows; empty while it is not heard."""
    if other is None:
        return {"program": __version__, "record_format": RECORD_FORMAT}
    if other.facts is None or other.alive is not Alive.ALIVE:
        return {"program": "", "record_format": None}
    return {"program": other.facts.program, "record_format": other.facts.record_format}


def _service(config: Config, name: str, brain: Brain, facts: dict[str, NodeFacts | None]) -> Message:
    told = {node: known.services[name] for node, known in facts.items() if known is not None and name in known.services}
    decision = brain.plan.decisions.get(name)
    running = [node for node, word in told.items() if word.state is ServiceState.STARTED]
    return {
        "node": running[0] if len(running) == 1 else None,
        "target": decision.target if decision is not None else None,
        "reason": decision.reason if decision is not None else "Not decided yet.",
        "remedy": decision.remedy if decision is not None else "",
        "blocked": decision is not None and decision.blocked,
        "maintenance": brain.record.maintains(name),
        "moved": brain.record.moved.get(name),
        "bans": dict(brain.record.bans.get(name, {})),
        "resources": [resource.id for resource in config.services[name].resources],
        "states": {node: (str(told[node].state) if node in told else "unknown") for node in config.nodes},
        "resource_states": {
            node: {key: str(state) for key, state in word.resources.items()} for node, word in told.items()
        },
        "failures": {
            node: {key: failure.count for key, failure in word.failures.items()} for node, word in told.items()
        },
        "problems": {node: word.reason for node, word in told.items() if word.reason},
    }


def _sides(config: Config, name: str, facts: dict[str, NodeFacts | None]) -> Message:
    found: Message = {}
    for node in config.nodes:
        known = facts.get(node)
        side = known.mirrors.get(name) if known is not None else None
        if side is not None:
            # Field by field: the encoding of facts leaves out what has its default.
            found[node] = {field: getattr(side, field) for field in side.__struct_fields__}
    return found
