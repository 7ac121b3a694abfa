"""How each node stands towards one service: does it run it, could it, should it? Plain questions to a snapshot."""

from __future__ import annotations

import datetime as dt

from relevo.config.model import MirrorResource, Service
from relevo.manager.model import (
    CONNECTED,
    PRIMARY,
    UP_TO_DATE,
    Alive,
    MirrorFacts,
    NodeFacts,
    Permission,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Snapshot,
    Verdict,
)

LIVE = frozenset({CONNECTED, "SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT", "VerifyS", "VerifyT"})
"""Connections of a mirror that can carry a hand-over."""

GIVES_UP = frozenset({"outvoted", "lease_over"})
"""Rules of the arbiter by which a Primary may not stay one."""

_VIGOUR = {ServiceState.STARTED: 3, ServiceState.STARTING: 2, ServiceState.FAILED: 1}


def mirrors_of(service: Service) -> tuple[str, ...]:
    """The mirrors of which a node has to be Primary to run the service."""
    return tuple(part.mirror for part in service.resources if isinstance(part, MirrorResource))


class Standing:
    """One node and one service in one snapshot.

    Attributes:
        node: its name.
        facts: what it told; None unless it is alive (or is this node).
        told: its word on the service; None when it is not known.
        active: something of the service may be there.
        known: it is known whether something of it is there.
        objection: why it cannot be there because of where other services are; empty when it can.
    """

    def __init__(self, snapshot: Snapshot, service: Service, node: str) -> None:
        self.node = node
        self._service = service
        self._snapshot = snapshot
        view = snapshot.nodes[node]
        self.objection = ""
        self.alive = Alive.ALIVE if node == snapshot.me else view.alive
        self.facts: NodeFacts | None = view.facts if self.alive is Alive.ALIVE else None
        self.told: ServiceFacts | None = None
        if self.facts is not None and (self.facts.ready or node == snapshot.me):
            self.told = self.facts.services.get(service.name)
        state = self.told.state if self.told is not None else ServiceState.UNKNOWN
        gone = self.alive in {Alive.DEAD, Alive.LEFT}
        self.state = ServiceState.STOPPED if gone else state
        self.known = self.state is not ServiceState.UNKNOWN
        self.active = self.known and self.state is not ServiceState.STOPPED

    @property
    def mirrors(self) -> list[MirrorFacts | None]:
        """Its mirrors that the service needs."""
        facts = self.facts
        return [facts.mirrors.get(name) if facts is not None else None for name in mirrors_of(self._service)]

    @property
    def target(self) -> str | None:
        """Where it believes that the service belongs."""
        return self.told.target if self.told is not None else None

    @property
    def worn(self) -> str:
        """The resource that failed too often there; empty when none did."""
        failures = self.told.failures if self.told is not None else {}
        threshold = self._service.migration_threshold
        return next((name for name, failure in sorted(failures.items()) if failure.count >= threshold), "")

    @property
    def blocked(self) -> str:
        """The resource whose stop failed there; empty when none did."""
        resources = self.told.resources if self.told is not None else {}
        return next((name for name, state in sorted(resources.items()) if state is ResourceState.BLOCKED), "")

    @property
    def reluctance(self) -> str:
        """Why it should not run the service as long as another can; empty when it may."""
        return f"{self.worn} failed too often on {self.node}" if self.worn else ""

    @property
    def renounces(self) -> str:
        """Why it gives up what it runs even if nobody else can have it: a person or a witness said so; else empty."""
        if self.node in self._snapshot.record.standby:
            return f"{self.node} is in standby"
        if self.facts is not None and self.facts.leaving:
            return f"{self.node} is leaving"
        return self.ban or self.outvoted or self.objection or self.declined

    @property
    def declined(self) -> str:
        """That the original Heartbeat there has handed the service over at a person's word; empty when it has not."""
        original = self._snapshot.original
        group = "theirs" if original is not None and self._service.prefer == original.node else "ours"
        if original is None or self.node != original.node or group not in original.declined:
            return ""
        return f"{self.node} has handed it over (hb_standby)"

    @property
    def outvoted(self) -> str:
        """Why the witness does not let it go on; empty when it does."""
        word = self.permission()
        return word.reason.rstrip(".") if word.verdict is Verdict.NO and word.rule in GIVES_UP else ""

    @property
    def ban(self) -> str:
        """That a person has banned the service from it, and until when; empty when nobody has."""
        until_s = self._snapshot.record.bans.get(self._service.name, {}).get(self.node)
        if until_s is None or 0 < until_s <= self._snapshot.utc_s:
            return ""
        end = dt.datetime.fromtimestamp(until_s, tz=dt.UTC)
        return f"{self._service.name} is banned from {self.node}" + (
            f" until {end:%Y-%m-%d %H:%M} UTC" if until_s else ""
        )

    @property
    def must_stop(self) -> str:
        """Why what runs there stops although the service is in maintenance: the node goes, or another has won."""
        leaving = self.facts is not None and self.facts.leaving
        return f"{self.node} is leaving" if leaving else self.outvoted

    @property
    def absence(self) -> str:
        """Why it cannot run the service whatever the others do; empty when it is there and says that it can."""
        if self.alive is not Alive.ALIVE:
            return f"{self.node} is {self.alive}"
        if self.facts is None or not self.facts.ready:
            return f"{self.node} has not told yet what it runs"
        if self.renounces:
            return self.renounces
        return f"{self.blocked} could not be stopped on {self.node}" if self.blocked else ""

    @property
    def wake(self) -> str:
        """How a person lets it run services again; empty when nobody has told it not to."""
        if self.alive is not Alive.ALIVE:
            return ""
        if self.node in self._snapshot.record.standby:
            return f"Let {self.node} run it again: relevo online {self.node}."
        return f"Let {self.node} run it again: relevo clear {self._service.name}." if self.ban else ""

    @property
    def split(self) -> bool:
        """One of its mirrors differs from the peer's in both directions."""
        return any(mirror is not None and mirror.split_brain for mirror in self.mirrors)

    @property
    def unready_data(self) -> str:
        """Why its data could not be taken over now from one who serves; empty when it could."""
        for mirror in self.mirrors:
            if mirror is None:
                return f"a mirror does not answer on {self.node}"
            if mirror.split_brain:
                return "the copies differ in both directions (split brain)"
            if mirror.disk != UP_TO_DATE:
                return f"the copy on {self.node} is {mirror.disk}"
            if mirror.connection not in LIVE:
                return f"the mirror on {self.node} is not connected ({mirror.connection})"
        return ""

    @property
    def unsettled(self) -> str:
        """Why its mirrors are not yet at rest: connected, and both disks up to date; empty when they are."""
        for mirror in self.mirrors:
            if mirror is None or mirror.connection != CONNECTED:
                return f"a mirror on {self.node} is not connected and at rest"
            if not mirror.disk == mirror.peer_disk == UP_TO_DATE:
                return f"{self.node} does not have both copies up to date"
        return ""

    def permission(self) -> Permission:
        """The arbiter's word on the service there: the most severe one of its mirrors."""
        mine = self.node == self._snapshot.me
        given = self._snapshot.permissions if mine else (self.facts.permissions if self.facts is not None else {})
        words = []
        for name in mirrors_of(self._service):
            missing = Permission(verdict=Verdict.WAIT, reason=f"{self.node} has not judged the mirror {name} yet.")
            words.append(given.get(name, missing))
        for verdict in (Verdict.NO, Verdict.WAIT):
            for word in words:
                if word.verdict is verdict:
                    return word
        return words[0] if words else Permission(verdict=Verdict.YES, reason="Nothing of the service is on a mirror.")

    @property
    def claim(self) -> tuple[int, int, int, int, int]:
        """Which of two nodes keeps a service that both run, or would: the higher claim; of equals the lower name.

        How well it runs there, whether the mirror is (or was, when its process started) Primary, how much was changed
        there since the copies parted, the later epoch.
        """
        mirrors = [mirror for mirror in self.mirrors if mirror is not None]
        return (
            _VIGOUR.get(self.state, 0),
            sum(mirror.role == PRIMARY for mirror in mirrors),
            sum(mirror.was_primary_at_start for mirror in mirrors),
            sum(mirror.out_of_sync_bytes for mirror in mirrors),
            self.told.epoch if self.told is not None else 0,
        )
