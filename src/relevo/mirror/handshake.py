"""What two copies that meet have to do: nothing, resync in one direction, or refuse. Pure; both sides decide alike."""

from __future__ import annotations

import dataclasses
import enum

from relevo.mirror.states import Disk
from relevo.mirror.uuids import Comparison, Generations, Side, Verdict, compare


class Direction(enum.Enum):
    """Who gives."""

    NONE = enum.auto()
    SOURCE = enum.auto()
    TARGET = enum.auto()
    REFUSE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One side as it goes into the decision."""

    side: Side
    disk: Disk
    discard: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        direction: who gives.
        full: every block, not only those marked.
        rule: number of the rule that compared the generations.
        corrected: my generations as they have to be corrected first, or None.
        split_brain: both copies went on alone, and nobody has said whose changes go.
        retry: a refusal that may be gone by itself later: keep trying.
        sentence: why it is refused.
    """

    direction: Direction
    full: bool = False
    rule: int = 0
    corrected: Generations | None = None
    split_brain: bool = False
    retry: bool = False
    sentence: str = ""


SPLIT_BRAIN = "Both servers went on alone and changed their copies (split brain)."
UNRELATED = "The two copies have nothing in common."
NOT_A_SOURCE = "This copy should be the source of a resync, but it is Inconsistent."
PRIMARY_TARGET = "This copy should be overwritten by the peer's newer one, but this server is Primary."


def decide(me: Copy, peer: Copy, *, features: int, resolve_conflicts: bool) -> Decision:
    """Compare generations, then let disk states and the wish to discard override."""
    if me.disk <= Disk.FAILED or peer.disk <= Disk.FAILED:
        return Decision(Direction.NONE)
    found = compare(me.side, peer.side, features=features, resolve_conflicts=resolve_conflicts)
    verdict, full = _by_disks(found.verdict, me.disk, peer.disk)
    if verdict in {Verdict.SPLIT_BRAIN, Verdict.SPLIT_BRAIN_AMBIGUOUS}:
        if me.discard == peer.discard:
            return Decision(Direction.REFUSE, rule=found.rule, split_brain=True, sentence=SPLIT_BRAIN)
        full = verdict is Verdict.SPLIT_BRAIN_AMBIGUOUS
        verdict = Verdict.TARGET if me.discard else Verdict.SOURCE
    if verdict is Verdict.UNRELATED:
        return Decision(Direction.REFUSE, rule=found.rule, sentence=UNRELATED)
    if verdict is Verdict.EQUAL:
        return Decision(Direction.NONE, rule=found.rule, corrected=found.corrected)
    return _resync(me, verdict, found, full=full)


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


def _resync(me: Copy, verdict: Verdict, found: Comparison, *, full: bool) -> Decision:
    if verdict > 0:
        if me.disk <= Disk.INCONSISTENT:
            return Decision(Direction.REFUSE, rule=found.rule, sentence=NOT_A_SOURCE)
        return Decision(Direction.SOURCE, full=full, rule=found.rule, corrected=found.corrected)
    if me.side.primary:
        return Decision(Direction.REFUSE, rule=found.rule, retry=True, sentence=PRIMARY_TARGET)
    return Decision(Direction.TARGET, full=full, rule=found.rule, corrected=found.corrected)
