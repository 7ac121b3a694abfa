"""The arbiter of one node: what is observed goes in, permissions and the duties that keep them true come out.

It remembers little: the epochs (on stable storage before they count), which mirrors were in sync until their connection
ended, and since when a connection is missing. The rules themselves are in `rules.py`.

Epochs order the promotions of a mirror. A node that shall become Primary takes one above every one seen, puts it on
stable storage and publishes it; its promotion carries it, and the mirror refuses a lower one. A peer that publishes
having seen it has voted: together with "stopped" in the same facts this says that it holds no promotion of its own that
could still be carried out, because its own epoch is lower now. Where the mirrors are connected the link settles a race
and no vote is needed; where the peer is dead there is nobody to ask.
"""

from __future__ import annotations

from relevo.arbiter import rules, votes
from relevo.arbiter.ballot import Ballot, Vote, Wish
from relevo.arbiter.events import (
    AllowAlone,
    AskWitness,
    DenyAlone,
    Duty,
    Effect,
    Event,
    Fence,
    MarkedOutdated,
    MirrorView,
    Observed,
    Outdate,
    Permission,
    Permit,
    Persist,
    Persisted,
    ProbeLink,
    State,
    Verdict,
    WitnessAnswered,
    WitnessSilent,
)
from relevo.config.model import Config, MirrorResource

REPEAT_MS = 1000
"""A duty (mark outdated, probe a link, allow to go alone) that had no result is asked for again after this time."""

EPOCH_PAUSE_MS = 1000
"""A node takes at most one epoch per mirror in this time: two that disagree do not race through the numbers."""

_SEVERITY = {Verdict.YES: 0, Verdict.WAIT: 1, Verdict.NO: 2}


class _Memory:
    """What is remembered about one mirror while its daemon answers."""

    __slots__ = ("asked", "forced", "in_sync", "links", "live", "marked", "met", "taken_ms", "unlinked_since_ms")

    def __init__(self) -> None:
        self.met = False
        self.in_sync = False
        self.forced = False
        self.live = False
        self.unlinked_since_ms: int | None = None
        self.taken_ms: int | None = None
        self.asked = 0
        """The epoch that was taken since this Primary lost its peer, after so many `links`."""
        self.links = 0
        self.marked = 0
        """The peer's epoch after which this copy was marked Outdated, without a link since."""

    def forget_process(self) -> None:
        """The daemon is gone: what its last process was proves nothing about the next."""
        self.met = self.in_sync = self.forced = False  # `live` stays: the link ended with it
        self.unlinked_since_ms = None
        self.asked = self.marked = 0


class Arbiter:
    """The arbiter of one node.

    Args:
        config: the cluster.
        me: this node.
        state: what was on stable storage (`State()` the first time).

    Attributes:
        permissions: the latest word on each mirror of this node.
    """

    def __init__(self, config: Config, me: str, state: State) -> None:
        self._me = me
        self._mirrors = {name: mirror for name, mirror in config.mirrors.items() if name in config.nodes[me].disks}
        self._peers = {
            name: tuple(sorted(node for node in config.nodes if node != me and name in config.nodes[node].disks))
            for name in self._mirrors
        }
        self._services = {
            name: tuple(
                sorted(
                    service.name
                    for service in config.services.values()
                    if any(isinstance(part, MirrorResource) and part.mirror == name for part in service.resources)
                )
            )
            for name in self._mirrors
        }
        self._seen = dict(state.seen)
        self._mine = dict(state.mine)
        self._stored = state
        self._asked = state
        self._memory = {name: _Memory() for name in self._mirrors}
        self._duties_ms: dict[Duty, int] = {}
        self._fenceable = frozenset(name for name, node in config.nodes.items() if node.fencing)
        self._fence_delay_ms = config.fencing.delay_ms
        self._ballot: Ballot | None = None
        if config.witness is not None:
            judged = {name: self._services[name] for name, mirror in self._mirrors.items() if mirror.alone == "ask"}
            self._ballot = Ballot(me, judged, config.witness.lease_ms)
            self._judged = frozenset(judged)
        self._observed: Observed | None = None
        self.permissions: dict[str, Permission] = {}

    @property
    def epochs(self) -> dict[str, int]:
        """Mirror -> the highest epoch seen that is on stable storage: what is published as this node's vote."""
        return dict(self._stored.seen)

    @property
    def outdated(self) -> dict[str, int]:
        """Mirror -> the peer's epoch after which this copy was marked Outdated: published as the answer to it."""
        return {name: memory.marked for name, memory in self._memory.items() if memory.marked}

    @property
    def votes(self) -> dict[str, Vote]:
        """What the witness says of each mirror in which it has a say, at the moment of the last observation."""
        if self._ballot is None or self._observed is None:
            return {}
        return {name: self._ballot.vote(name, self._observed.now_ms) for name in sorted(self._judged)}

    @property
    def wakes_ms(self) -> int | None:
        """When it has to be told the time although nothing else has changed: a lease ends; None: at leisure."""
        seen = self._observed
        if self._ballot is None or seen is None:
            return None
        ends = [
            seen.now_ms + self._ballot.vote(name, seen.now_ms).lease_left_ms
            for name in self._judged
            if (mirror := seen.mirrors.get(name)) is not None and mirror.suspended
        ]
        return min((end for end in ends if end > seen.now_ms), default=None)

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Take in an event; the effects are unordered."""
        match event:
            case Observed():
                self._observed = event
                self._remember(event)
                self._take_epochs(event)
            case Persisted():
                self._stored = event.state
            case MarkedOutdated():
                self._memory[event.mirror].marked = event.epoch
            case WitnessAnswered() if self._ballot is not None:
                self._ballot.answered(event.number, event.answers)
            case WitnessSilent() if self._ballot is not None:
                self._ballot.silent(event.number, event.now_ms)
        if self._observed is None:
            return ()
        seen = self._observed
        return (*self._persist(), *self._permit(seen), *self._duties(seen), *self._ask_witness(seen))

    def _remember(self, seen: Observed) -> None:
        for name, memory in self._memory.items():
            mirror = seen.mirrors.get(name)
            if mirror is None:
                memory.forget_process()
                continue
            live = rules.is_live(mirror)
            if memory.live and not live and self._ballot is not None and name in self._judged:
                self._ballot.doubt(name)  # what it said while the link told more may be out of date
            memory.live = live
            if live:
                memory.asked = memory.marked = 0
                memory.met = True
                memory.forced = False
                memory.in_sync = mirror.disk == rules.UP_TO_DATE
            alive = any(seen.peers[peer].alive == rules.ALIVE for peer in self._peers[name] if peer in seen.peers)
            if live or not alive:
                memory.unlinked_since_ms = None
            elif memory.unlinked_since_ms is None:
                memory.unlinked_since_ms = seen.now_ms

    def _take_epochs(self, seen: Observed) -> None:
        for name in self._mirrors:
            known = [self._seen.get(name, 0)]
            known += [node.facts.epochs.get(name, 0) for node in seen.peers.values() if node.facts is not None]
            mirror = seen.mirrors.get(name)
            known.append(mirror.epoch if mirror is not None else 0)
            known.append(self._witnessed_epoch(name, seen.now_ms))
            highest = max(known)
            if highest:
                self._seen[name] = highest
            memory = self._memory[name]
            if mirror is not None and self._asks(name, mirror) and (not memory.asked or memory.links != mirror.links):
                self._seen[name] = self._mine[name] = memory.asked = highest + 1
                memory.links = mirror.links
                continue
            mine = self._mine.get(name, 0)
            is_primary = mirror is not None and mirror.role == rules.PRIMARY
            if name not in seen.wanted or mirror is None or (mine > 0 and (is_primary or mine == highest)):
                continue
            if memory.taken_ms is not None and seen.now_ms - memory.taken_ms < EPOCH_PAUSE_MS:
                continue
            memory.taken_ms = seen.now_ms
            self._seen[name] = self._mine[name] = highest + 1

    def _asks(self, name: str, mirror: MirrorView) -> bool:
        """Whether this suspended Primary asks its peer, over the heartbeats, to stand back (no witness does)."""
        waits = mirror.role == rules.PRIMARY and mirror.suspended and not rules.is_live(mirror)
        return waits and self._mirrors[name].alone == "ask" and (self._ballot is None or name not in self._judged)

    def _asked_epoch(self, name: str, mirror: MirrorView | None) -> int:
        memory = self._memory[name]
        stored = 0 < memory.asked <= self._stored.mine.get(name, 0)
        return memory.asked if stored and mirror is not None and mirror.links == memory.links else 0

    def _persist(self) -> tuple[Effect, ...]:
        state = State(seen=dict(self._seen), mine=dict(self._mine))
        if state == self._asked:
            return ()
        self._asked = state
        return (Persist(state=state),)

    def _permit(self, seen: Observed) -> tuple[Effect, ...]:
        permissions = {name: self._judge(name, seen) for name in self._mirrors}
        if permissions == self.permissions:
            return ()
        self.permissions = permissions
        return (Permit(permissions=permissions),)

    def _cases(self, name: str, seen: Observed) -> list[rules.Case]:
        memory = self._memory[name]
        mirror = seen.mirrors.get(name)
        since_ms = memory.unlinked_since_ms
        lost = mirror is not None and (memory.in_sync or mirror.peer_lost_since_connect)
        return [
            rules.Case(
                mirror=name,
                alone=self._mirrors[name].alone,
                services=self._services[name],
                mine=mirror,
                peer=peer,
                node=seen.peers[peer],
                initdead_passed=seen.initdead_passed,
                forced=memory.forced or any(service in seen.forced for service in self._services[name]),
                lost=lost,
                met=memory.met or (mirror is not None and mirror.peer_lost_since_connect),
                unlinked_ms=seen.now_ms - since_ms if since_ms is not None else 0,
                vote=self._vote(name, seen.now_ms),
                can_fence=peer in self._fenceable and self._vote(name, seen.now_ms) is None,
                fenced=peer in seen.fenced,
                fence_trouble=seen.fence_troubles.get(peer, ""),
                asked=self._asked_epoch(name, mirror),
            )
            for peer in self._peers[name]
            if peer in seen.peers
        ]

    def _judge(self, name: str, seen: Observed) -> Permission:
        cases = self._cases(name, seen)
        answers = [votes.judged(case, rules.may_promote(case)) for case in cases]
        if any(answer.force and answer.verdict is Verdict.YES for answer in answers):
            self._memory[name].forced = True
        worst = max(answers, key=lambda answer: _SEVERITY[answer.verdict], default=None)
        if worst is None:
            worst = rules.Answer(Verdict.YES, "no_peer", f"No other node has a disk for the mirror {name}.")
        voted = all(
            (not answer.needs_vote or self._has_voted(case, name))
            and (not answer.needs_claim or votes.has_claimed(case))
            and not answer.needs_fence
            for case, answer in zip(cases, answers, strict=True)
        )
        return rules.permission(
            worst,
            epoch=self._usable_epoch(name, seen.mirrors.get(name)) if voted else 0,
            may_continue_alone=all(votes.may_continue_alone(case) for case in cases),
            alone=self._mirrors[name].alone,
        )

    def _has_voted(self, case: rules.Case, name: str) -> bool:
        facts = case.node.facts
        return facts is not None and facts.epochs.get(name, 0) >= self._mine.get(name, 0) > 0

    def _usable_epoch(self, name: str, mirror: MirrorView | None) -> int:
        """This node's own epoch while it is the highest and on stable storage; a Primary's needs no renewal."""
        mine = self._mine.get(name, 0)
        if mirror is not None and mirror.role == rules.PRIMARY:
            return mine
        return mine if mine == self._seen.get(name, 0) == self._stored.mine.get(name, 0) else 0

    def _duties(self, seen: Observed) -> tuple[Effect, ...]:
        wanted: list[Duty] = []
        for name in self._mirrors:
            for case in self._cases(name, seen):
                wanted += self._duties_of(name, case)
                wanted += self._fences(case, wanted=name in seen.wanted)
        due: list[Effect] = []
        for duty in wanted:
            last_ms = self._duties_ms.get(duty)
            if last_ms is None or seen.now_ms - last_ms >= REPEAT_MS:
                self._duties_ms[duty] = seen.now_ms
                due.append(duty)
        for duty in self._duties_ms.keys() - set(wanted):
            del self._duties_ms[duty]
        return tuple(due)

    def _duties_of(self, name: str, case: rules.Case) -> list[Duty]:
        mine = case.mine
        if mine is None:
            return []
        live = rules.is_live(mine)
        duties: list[Duty] = []
        if live and (case.node.late or case.node.alive == rules.DEAD):
            duties.append(ProbeLink(mirror=name))
        outvoted = votes.is_outvoted(case)
        idle = not live and mine.role != rules.PRIMARY
        behind = outvoted or (_is_behind(case, mine) and not votes.is_included(case))
        epoch = _asked_by(case)
        if idle and behind and (mine.disk == rules.UP_TO_DATE or (mine.outdated and epoch > self._memory[name].marked)):
            duties.append(Outdate(mirror=name, epoch=epoch, links=mine.links))
        if mine.role == rules.PRIMARY and mine.suspended and not live:
            if votes.may_continue_alone(case):
                duties.append(AllowAlone(mirror=name, epoch=self._usable_epoch(name, mine), links=mine.links))
            elif outvoted:
                duties.append(DenyAlone(mirror=name))
        return duties

    def _fences(self, case: rules.Case, *, wanted: bool) -> list[Duty]:
        """Whom to fence: the one who may go on first without delay, so that two do not switch each other off."""
        mine = case.mine
        if mine is None or not case.can_fence or case.fenced or case.node.alive != rules.DEAD:
            return []
        if mine.role == rules.PRIMARY:
            alone = mine.suspended and not rules.is_live(mine)
            return [Fence(node=case.peer, delay_ms=0)] if alone else []
        if wanted and rules.may_promote(case).needs_fence:
            return [Fence(node=case.peer, delay_ms=self._fence_delay_ms)]
        return []

    def _vote(self, name: str, now_ms: int) -> Vote | None:
        return self._ballot.vote(name, now_ms) if self._ballot is not None and name in self._judged else None

    def _witnessed_epoch(self, name: str, now_ms: int) -> int:
        vote = self._vote(name, now_ms)
        return vote.entry.epoch if vote is not None and vote.entry is not None else 0

    def _ask_witness(self, seen: Observed) -> tuple[Effect, ...]:
        """The next question to the witness, if there is something to ask."""
        if self._ballot is None:
            return ()
        wishes: dict[str, Wish] = {}
        leads: set[str] = set()
        for name in sorted(self._judged):
            mirror = seen.mirrors.get(name)
            if mirror is not None and mirror.role == rules.PRIMARY:
                leads.update(self._services[name])
            epoch = self._usable_epoch(name, mirror)
            made = [votes.wish(case, self._me, epoch, wanted=name in seen.wanted) for case in self._cases(name, seen)]
            if len(made) == 1 and made[0] is not None:  # a mirror has two sides
                wishes[name] = made[0]
        question = self._ballot.ask(seen.now_ms, wishes, frozenset(leads))
        return (AskWitness(question=question),) if question is not None else ()


def _gone_alone(case: rules.Case) -> MirrorView | None:
    """The peer's mirror, if the peer lives and says that it is Primary without ours."""
    facts = case.node.facts
    theirs = None if facts is None or case.node.alive != rules.ALIVE else facts.mirrors.get(case.mirror)
    return theirs if rules.goes_alone(theirs) else None


def _asked_by(case: rules.Case) -> int:
    """The epoch with which a suspended Primary asks this side to stand back; 0: it does not."""
    theirs, facts = _gone_alone(case), case.node.facts
    return facts.epochs.get(case.mirror, 0) if facts is not None and theirs is not None and theirs.suspended else 0


def _is_behind(case: rules.Case, mine: MirrorView) -> bool:
    """The peer lives, says that it goes on alone, and its data grew out of ours (it did not merely diverge)."""
    theirs = _gone_alone(case)
    if theirs is None or mine.split_brain:
        return False
    return not mine.current_uuid or rules.derives_from(theirs, mine)
