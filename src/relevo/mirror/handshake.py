"""What two copies that meet have to do: nothing, resync in one direction, or refuse. Pure; both sides decide alike."""

from __future__ import annotations

import dataclasses
import enum

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror.packets import Feature
from relevo.mirror.policies import UNDECIDED, Copy, recover
from relevo.mirror.states import Disk
from relevo.mirror.uuids import Comparison, Generations, Verdict, compare

__all__ = ["Copy", "Decision", "Direction", "decide"]


class Direction(enum.Enum):
    """Who gives."""

    NONE = enum.auto()
    SOURCE = enum.auto()
    TARGET = enum.auto()
    GIVE_UP_ROLE = enum.auto()
    """This Primary has to become Secondary, then the copies are compared again."""
    REFUSE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        direction: who gives.
        full: every block, not only those marked.
        rule: number of the rule that compared the generations.
        corrected: my generations as they have to be corrected first, or None.
        parted: both copies went on alone, whether or not that could be resolved.
        split_brain: they did, and nobody has said whose changes go.
        retry: a refusal that may be gone by itself later: keep trying.
        sentence: why it is refused.
        handler: whom to call because of the refusal.
    """

    direction: Direction
    full: bool = False
    rule: int = 0
    corrected: Generations | None = None
    parted: bool = False
    split_brain: bool = False
    retry: bool = False
    sentence: str = ""
    handler: str = ""

    @property
    def gives_up(self) -> bool:
        """This side is about to lose changes that only it has."""
        return self.parted and self.direction is Direction.TARGET


SPLIT_BRAIN = "Both servers went on alone and changed their copies (split brain)."
UNRELATED = (
    "The two copies have nothing in common. To give one up, on its server: relevo mirror invalidate NAME. Then on "
    "both: relevo mirror connect NAME."
)
NOT_A_SOURCE = "This copy should be the source of a resync, but it is Inconsistent."
PRIMARY_TARGET = "This copy should be overwritten by the peer's newer one, but this server is Primary."
POLICY_PRIMARY = (
    "An after-sb policy would give up what was changed here, but this server is Primary: nothing is given up "
    "(split brain)."
)
VIOLENTLY = " (rr-conflict violently would change the data under its users: that is not done here.)"
DRY_RUN = "Dry run: "


def decide(
    me: Copy,
    peer: Copy,
    *,
    features: int,
    resolve_conflicts: bool,
    options: DrbdOptions,
    dry_run: bool = False,
) -> Decision:
    """Compare generations, then let disk states, the after-sb policies and the wish to discard override, in this order.

    Where both sides are Relevo's, the wish goes before the policies: a person has given an order, and has been told
    whose changes go.

    Args:
        me: this side.
        peer: the other one.
        features: those both sides have.
        resolve_conflicts: this side breaks ties.
        options: the policies.
        dry_run: only say what would be done, and refuse.
    """
    if me.disk <= Disk.FAILED or peer.disk <= Disk.FAILED:
        return Decision(Direction.NONE)
    found = compare(me.side, peer.side, features=features, resolve_conflicts=resolve_conflicts)
    verdict, full = _by_disks(found.verdict, me.disk, peer.disk)
    parted = verdict in {Verdict.SPLIT_BRAIN, Verdict.SPLIT_BRAIN_AMBIGUOUS}
    decision = (
        _parted(me, peer, verdict, found, options, features=features, resolve_conflicts=resolve_conflicts)
        if parted
        else _agreed(me, verdict, found, options, full=full)
    )
    if dry_run and decision.direction is not Direction.REFUSE:
        return dataclasses.replace(decision, direction=Direction.REFUSE, corrected=None, sentence=_would(decision))
    return decision


def _would(decision: Decision) -> str:
    does = {
        Direction.NONE: "no resync would be needed.",
        Direction.SOURCE: "this side would be the source of a resync of {}.",
        Direction.TARGET: "this side would be the target of a resync of {}.",
        Direction.GIVE_UP_ROLE: "this side would have to become Secondary.",
    }
    return DRY_RUN + does[decision.direction].format("everything" if decision.full else "the blocks marked")


def _by_disks(verdict: Verdict, mine: Disk, theirs: Disk) -> tuple[Verdict, bool]:
    """An Inconsistent copy is always the target: it holds nothing that could be lost.

    Even if nothing in common is left: a source restarted often enough in the middle of resyncs forgets where its target
    stood, for only two generations of history are kept. (A kernel refuses that; then both stay apart.)
    """
    full = abs(verdict) == 2
    if (mine is Disk.INCONSISTENT) == (theirs is Disk.INCONSISTENT):
        return verdict, full
    full = full or verdict in {Verdict.SPLIT_BRAIN_AMBIGUOUS, Verdict.UNRELATED}
    return (Verdict.TARGET if mine is Disk.INCONSISTENT else Verdict.SOURCE), full


def _parted(
    me: Copy,
    peer: Copy,
    verdict: Verdict,
    found: Comparison,
    options: DrbdOptions,
    *,
    features: int,
    resolve_conflicts: bool,
) -> Decision:
    """A split brain: first the policies, then whoever discards; the other way round with a peer that knows of that."""
    full = verdict is Verdict.SPLIT_BRAIN_AMBIGUOUS
    ordered = bool(features & Feature.WISH_FIRST) and me.discard is not peer.discard
    if not ordered and (not full or options.always_asbp):
        recovery = recover(me, peer, options, resolve_conflicts=resolve_conflicts)
        if recovery.give_up_role:
            return Decision(Direction.GIVE_UP_ROLE, full=full, rule=found.rule, parted=True)
        if recovery.verdict is not UNDECIDED:
            return _resync(me, recovery.verdict, found, options, full=full, parted=True)
    if me.discard == peer.discard:
        return Decision(
            Direction.REFUSE,
            rule=found.rule,
            parted=True,
            split_brain=True,
            sentence=SPLIT_BRAIN,
            handler="split-brain",
        )
    return _resync(me, Verdict.TARGET if me.discard else Verdict.SOURCE, found, options, full=full, parted=True)


def _agreed(me: Copy, verdict: Verdict, found: Comparison, options: DrbdOptions, *, full: bool) -> Decision:
    if verdict is Verdict.UNRELATED:
        return Decision(Direction.REFUSE, rule=found.rule, sentence=UNRELATED)
    if verdict is Verdict.EQUAL:
        return Decision(Direction.NONE, rule=found.rule, corrected=found.corrected)
    return _resync(me, verdict, found, options, full=full, parted=False)


def _resync(
    me: Copy, verdict: Verdict, found: Comparison, options: DrbdOptions, *, full: bool, parted: bool
) -> Decision:
    if verdict > 0:
        if me.disk <= Disk.INCONSISTENT:
            return Decision(Direction.REFUSE, rule=found.rule, parted=parted, sentence=NOT_A_SOURCE)
        return Decision(Direction.SOURCE, full=full, rule=found.rule, corrected=found.corrected, parted=parted)
    if not me.side.primary:
        return Decision(Direction.TARGET, full=full, rule=found.rule, corrected=found.corrected, parted=parted)
    sentence = POLICY_PRIMARY if parted else PRIMARY_TARGET
    return Decision(
        Direction.REFUSE,
        rule=found.rule,
        parted=parted,
        split_brain=parted,
        retry=not parted,
        sentence=sentence + (VIOLENTLY if options.rr_conflict == "violently" else ""),
        handler="pri-lost" if options.rr_conflict == "call-pri-lost" else "",
    )
