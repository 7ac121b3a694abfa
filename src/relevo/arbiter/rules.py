"""The rules: may this node become Primary of a mirror? One function per situation, each answer a rule with its name.

They keep three promises. A write acknowledged by two disks is never missing on the one that serves: only UpToDate data
that nobody can have left behind is promoted. There is one Primary: a live link to a Primary forbids, an alive peer has
to say that it has stopped, and where no link settles a race the peer's vote does. A stale copy never becomes active by
itself: who cannot know that its copy is the newest refuses and names the command with which a person decides.
"""

from __future__ import annotations

import msgspec

from relevo.arbiter.ballot import Vote
from relevo.arbiter.events import FactsView, MirrorView, NodeView, Permission, Verdict
from relevo.base.units import format_duration_ms

PRIMARY = "Primary"
SECONDARY = "Secondary"
UP_TO_DATE = "UpToDate"
STOPPED = "stopped"
UNKNOWN = "unknown"
ALIVE, DEAD, LEFT = "alive", "dead", "left"

LIVE_CONNECTIONS = frozenset(
    [
        *("Connected", "StartingSyncS", "StartingSyncT", "WFBitMapS", "WFBitMapT", "WFSyncUUID", "SyncSource"),
        *("SyncTarget", "VerifyS", "VerifyT", "PausedSyncS", "PausedSyncT", "Ahead", "Behind"),
    ]
)
"""DRBD's names for a connection on which the peer's state is known (Connected and above)."""

FORCEABLE_DISKS = frozenset({UP_TO_DATE, "Consistent", "Outdated"})
"""Disks whose content is whole, although perhaps old. An Inconsistent one is a mixture: nobody can want it."""

LINK_GRACE_MS = 5000
"""How long two alive nodes wait for their mirrors to meet before one of them goes without."""

UUID_PRIMARY_BIT = 1
"""The lowest bit of a generation says "is Primary" and is no part of its identity."""


def is_live(mirror: MirrorView | None) -> bool:
    """Whether the mirror's own connection tells what the peer's mirror is."""
    return mirror is not None and mirror.connection in LIVE_CONNECTIONS


def goes_alone(mirror: MirrorView | None) -> bool:
    """Whether a node's mirror is Primary without its peer: what it writes now nobody else has."""
    return mirror is not None and mirror.role == PRIMARY and not is_live(mirror)


def generation(uuid: str) -> int:
    """The number that names the data, without the bit that says who is Primary; 0: none."""
    return int(uuid, 16) & ~UUID_PRIMARY_BIT if uuid else 0


def derives_from(newer: MirrorView, older: MirrorView) -> bool:
    """Whether `newer` holds everything that `older` holds: the same generation, or the one that followed it."""
    base = generation(older.current_uuid)
    return base != 0 and base in {generation(newer.current_uuid), generation(newer.bitmap_uuid)}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the answer about one mirror and one peer depends on.

    Attributes:
        mirror: name of the mirror.
        alone: what the configuration says about a Primary without its peer.
        services: the services that use it, in the order of their names.
        mine: the mirror here; None when its daemon does not answer.
        peer: name of the other node; `node` what is known about it.
        initdead_passed: the time in which a node may come up after this one has started is over.
        forced: a person wants it here although the copy may be stale.
        lost: this mirror process was in sync with the peer until their connection ended.
        met: this mirror process has been connected since it started, as far as is known.
        unlinked_ms: how long the peer has been alive while the mirrors are not connected.
        vote: what the witness says; None where it has no say.
        can_fence: the peer can be switched off from here, and that decides (no witness does).
        fenced: that was done since it was heard last.
        fence_trouble: why it could not be done, one sentence; empty when nothing is known to be wrong.
        asked: the epoch taken since this Primary lost its peer, stored: what the peer says of it is not older; 0: none.
    """

    mirror: str
    alone: str
    services: tuple[str, ...]
    mine: MirrorView | None
    peer: str
    node: NodeView
    initdead_passed: bool
    forced: bool
    lost: bool
    met: bool
    unlinked_ms: int
    vote: Vote | None = None
    can_fence: bool = False
    fenced: bool = False
    fence_trouble: str = ""
    asked: int = 0

    @property
    def force_remedy(self) -> str:
        """What a person can do who knows better."""
        service = self.services[0] if self.services else self.mirror
        return f"If {self.peer} cannot come back, accept this copy with `relevo force {service}`."


class Answer(msgspec.Struct, frozen=True):
    """A verdict with its rule and sentences.

    Attributes:
        needs_vote: the peer must have seen the epoch before it is used.
        needs_claim: the witness must have written down first that this copy alone is the newest.
        needs_fence: the peer must be switched off first.
    """

    verdict: Verdict
    rule: str
    reason: str
    remedy: str = ""
    needs_vote: bool = False
    force: bool = False
    needs_claim: bool = False
    needs_fence: bool = False


def _yes(rule: str, reason: str, *, needs_vote: bool = False, force: bool = False, needs_fence: bool = False) -> Answer:
    return Answer(Verdict.YES, rule, reason, needs_vote=needs_vote, force=force, needs_fence=needs_fence)


def _no(rule: str, reason: str, remedy: str = "") -> Answer:
    return Answer(Verdict.NO, rule, reason, remedy)


def _wait(rule: str, reason: str) -> Answer:
    return Answer(Verdict.WAIT, rule, reason)


def may_promote(case: Case) -> Answer:
    """May this node become (or stay) Primary, as far as this peer is concerned?"""
    mine = case.mine
    if mine is None:
        return _no("no_mirror", f"The mirror {case.mirror} does not answer here.", "Look at its log.")
    if mine.role == PRIMARY:
        return _yes("is_primary", f"The mirror {case.mirror} is Primary here.")
    if case.forced and mine.disk not in FORCEABLE_DISKS:
        return _no("nothing_to_force", f"The copy of {case.mirror} here is {mine.disk}: it cannot be used.")
    if is_live(mine) and mine.peer_role == PRIMARY:
        return _wait("peer_is_primary", f"The mirror {case.mirror} is Primary on {case.peer}: their link shows it.")
    if case.forced:
        return _forced(case)
    if mine.disk != UP_TO_DATE:
        return _not_up_to_date(case, mine)
    match case.node.alive:
        case "unknown":
            return _wait("initdead", f"{case.peer} has not been heard yet; waiting until initdead.")
        case "alive":
            return _peer_alive(case, mine)
        case _:
            return _peer_silent(case, mine)


def _forced(case: Case) -> Answer:
    facts = case.node.facts
    if case.node.alive == ALIVE and (facts is None or not facts.ready or _running(case, facts)):
        return _wait("forced_waits", f"Forced by a person; {case.peer} is alive and has to say first that it stopped.")
    return _yes("forced", "Forced by a person, who accepts that this copy may be old.", force=True)


def _not_up_to_date(case: Case, mine: MirrorView) -> Answer:
    if is_live(mine):
        return _no("resyncing", f"The copy of {case.mirror} here is {mine.disk} and being brought up to date.")
    remedy = case.force_remedy if mine.disk in FORCEABLE_DISKS else f"Bring {case.peer} back: it has the data."
    return _no("data_not_up_to_date", f"The copy of {case.mirror} here is {mine.disk}.", remedy)


def _running(case: Case, facts: FactsView) -> list[str]:
    """The services of this mirror that the peer does not declare stopped."""
    states = {name: facts.services[name].state if name in facts.services else UNKNOWN for name in case.services}
    return [f"{name} ({state})" for name, state in states.items() if state != STOPPED]


def _peer_alive(case: Case, mine: MirrorView) -> Answer:
    facts = case.node.facts
    if facts is None or not facts.ready:
        return _wait("peer_not_ready", f"{case.peer} is alive but has not told yet what it runs.")
    if running := _running(case, facts):
        return _wait("peer_runs", f"{case.peer} has not stopped {', '.join(running)}.")
    theirs = facts.mirrors.get(case.mirror)
    if theirs is not None and theirs.role == PRIMARY and not is_live(mine):
        return _wait("peer_is_primary", f"{case.peer} says that its mirror {case.mirror} is still Primary.")
    if is_live(mine):
        return _yes("hand_over", f"{case.peer} has stopped, and the link shows its mirror {case.mirror} Secondary.")
    return _unlinked(case, mine, theirs)


def _unlinked(case: Case, mine: MirrorView, theirs: MirrorView | None) -> Answer:
    """The peer lives and has stopped, but no link settles who may: only who must have the newest data, by vote."""
    if mine.split_brain:
        return _yes("split_brain", "Both copies differ; this one may go on serving as it is.", needs_vote=True)
    if case.unlinked_ms < LINK_GRACE_MS:
        waited = format_duration_ms(LINK_GRACE_MS)
        return _wait("connecting", f"Waiting up to {waited} for the mirrors {case.mirror} to connect.")
    newest = theirs is not None and derives_from(mine, theirs)
    if newest and mine.was_primary_at_start and not case.met:
        return _yes("last_primary", "This node was the last Primary and nobody wrote since.", needs_vote=True)
    if case.lost and (theirs is None or newest):
        return _yes("peer_stopped", "This copy was in sync until the link ended; nobody wrote since.", needs_vote=True)
    return _no(
        "unlinked",
        f"The mirrors {case.mirror} are not connected although {case.peer} is alive: this copy may be behind.",
        f"Repair the mirror's link. {case.force_remedy}",
    )


def _peer_silent(case: Case, mine: MirrorView) -> Answer:
    facts = case.node.facts
    theirs = facts.mirrors.get(case.mirror) if facts is not None else None
    if is_live(mine):
        return _yes("linked", f"{case.peer} sends no heartbeats, but the link shows its mirror Secondary.")
    if mine.split_brain:
        return _no("split_brain_alone", f"Both copies differ and {case.peer} is away.", case.force_remedy)
    if goes_alone(theirs):
        return _no("peer_went_alone", f"{case.peer} wrote alone before it fell silent.", case.force_remedy)
    if case.node.alive == LEFT and facts is not None and theirs is not None and theirs.outdated:
        return _yes("left_in_order", f"{case.peer} left in order and marked its own copy as outdated.")
    away = case.node.alive == LEFT and facts is not None and not _running(case, facts)
    if case.alone != "risk" and not away:
        if case.can_fence and case.lost:
            return _by_fencing(case)
        return _no(
            "no_proof",
            f"{case.peer} is silent; nothing proves that it does not write (alone = {case.alone!r}).",
            f"Make sure that {case.peer} is off. {case.force_remedy}",
        )
    if case.lost:
        return _yes("take_over", f"{case.peer} fell silent while connected; this copy has all that was acknowledged.")
    if mine.was_primary_at_start and not case.met:
        if not case.initdead_passed:
            return _wait("initdead", f"Waiting for {case.peer} until initdead.")
        return _yes("boot_alone", f"This node was Primary when it stopped, and {case.peer} did not appear.")
    return _no(
        "fresh_secondary",
        f"{case.peer} is away and this node cannot know whether its copy of {case.mirror} is the newest.",
        case.force_remedy,
    )


def _by_fencing(case: Case) -> Answer:
    """The peer fell silent while connected: this copy has everything, once the peer can write no more.

    A copy of which that is not known stays stale for all that: fencing shows who does not write, not who wrote last.
    """
    if case.fenced:
        return _yes("fenced", f"{case.peer} was fenced; this copy has all that was acknowledged.")
    trouble = f" {case.fence_trouble}" if case.fence_trouble else ""
    return _yes("fencing", f"{case.peer} is silent and is fenced first.{trouble}", needs_fence=True)


def may_continue_alone(case: Case) -> bool:
    """May a Primary here complete writes without this peer?"""
    if case.alone == "risk" or is_live(case.mine) or case.forced or (case.fenced and case.node.alive != ALIVE):
        return True
    facts = case.node.facts
    if facts is None:
        return False
    if case.node.alive == ALIVE:  # heard on another link: it has marked its copy Outdated because it was asked to
        return facts.outdated.get(case.mirror, 0) >= case.asked > 0
    return case.node.alive == LEFT and not _running(case, facts)


BY_LINK = frozenset({"hand_over", "linked"})
"""Rules that rest on what the link shows at this moment."""


def permission(answer: Answer, *, epoch: int, may_continue_alone: bool, alone: str) -> Permission:
    """The word that is handed out; `alone` is what the configuration says of the mirror."""
    return Permission(
        verdict=answer.verdict,
        reason=answer.reason,
        rule=answer.rule,
        remedy=answer.remedy,
        force=answer.force,
        linked=answer.rule in BY_LINK and alone != "risk",
        epoch=epoch if answer.verdict is Verdict.YES else 0,
        may_continue_alone=may_continue_alone,
    )
