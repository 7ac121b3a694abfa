"""Generation identifiers: how they move, and what two sets of them say about two copies (drbd.md, rules 10 to 100).

Each set is current, bitmap, history0, history1. The lowest bit of *current* says "is Primary"; comparisons ignore it.
"""

from __future__ import annotations

import dataclasses
import enum

from relevo.mirror.packets import Feature

JUST_CREATED = 4
"""The current generation of a copy that never was in use."""
PRIMARY_BIT = 1
SYNC_OFFSET = 0x0001_0000_0000_0000
"""What a source adds to its bitmap generation when a resync starts."""
_U64 = 0xFFFF_FFFF_FFFF_FFFF


@dataclasses.dataclass(slots=True)
class Generations:
    """One copy's identifiers."""

    current: int
    bitmap: int
    history0: int
    history1: int

    def copy(self) -> Generations:
        """An independent copy."""
        return Generations(self.current, self.bitmap, self.history0, self.history1)

    def new_current(self, random: int, *, primary: bool) -> None:
        """The copy goes on without its peer: what was current is what the peer has.

        Its lowest bit stays: after a split brain it tells who was Primary when the two parted.
        """
        if self.bitmap:
            self._push(self.bitmap)
        self.bitmap = self.current
        self.current = _usable(random)
        self.mark_primary(primary=primary)

    def first_current(self, random: int, *, primary: bool) -> None:
        """Two just created, equal copies come into use. History stays, as in the kernel: both have the same."""
        self.current, self.bitmap, self.history0 = _usable(random), 0, self.history0 or JUST_CREATED
        self.mark_primary(primary=primary)

    def mark_primary(self, *, primary: bool) -> None:
        """Set or clear the lowest bit of *current*."""
        self.current = self.current & ~PRIMARY_BIT | (PRIMARY_BIT if primary else 0)

    def start_as_source(self) -> int:
        """A resync starts; returns the generation that the target takes as its current one.

        Without a bitmap generation DRBD takes a random one; ours follows from the current one, so that a source can
        tell after a crash that a resync had begun (`peer_may_have_current`). To the peer it is opaque.
        """
        old = self.bitmap
        if old:
            self._push(old)
        base = old if old & ~PRIMARY_BIT not in {0, JUST_CREATED} else self.current & ~PRIMARY_BIT
        self.bitmap = (base + SYNC_OFFSET) & _U64
        return self.bitmap

    @property
    def peer_may_have_current(self) -> bool:
        """The peer may be of the current generation: it was when last met, or a resync began whose end was not seen."""
        bases = {_mask(self.history0), _mask(self.current)} - {0}
        return self.bitmap == 0 or any((base + SYNC_OFFSET) & _U64 == _mask(self.bitmap) for base in bases)

    def start_as_target(self, sync_uuid: int) -> None:
        """A resync starts: until its end this copy is of the source's sync generation."""
        self.current, self.bitmap = sync_uuid & ~PRIMARY_BIT, 0

    def end_as_source(self) -> None:
        """The peer has everything: the bitmap's generation is history."""
        if self.bitmap:
            self._push(self.bitmap)
            self.bitmap = 0

    def end_as_target(self, source: Generations) -> None:
        """This copy now is what the source is; the sync generation is the newest history of both."""
        sync_uuid = self.current
        self.bitmap, self.history0, self.history1 = 0, source.history0, source.history1
        if source.bitmap and _mask(source.bitmap) != _mask(sync_uuid):
            self._push(source.bitmap)
        if _mask(sync_uuid) != _mask(self.history0):
            self._push(sync_uuid)
        self.current = source.current & ~PRIMARY_BIT

    def _push(self, uuid: int) -> None:
        self.history1, self.history0 = self.history0, uuid


def _usable(random: int) -> int:
    """A random number that is neither zero nor `JUST_CREATED` with the lowest bit masked."""
    value = random & ~PRIMARY_BIT & _U64
    return value if value not in {0, JUST_CREATED} else SYNC_OFFSET


class Verdict(enum.IntEnum):
    """What comparing generations says; the sign is the direction (positive: this side is the source)."""

    TARGET_FULL = -2
    TARGET = -1
    EQUAL = 0
    SOURCE = 1
    SOURCE_FULL = 2
    SPLIT_BRAIN = 100
    """Both sides changed the same generation: policies may decide."""
    SPLIT_BRAIN_AMBIGUOUS = -100
    UNRELATED = -1000


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """What one side brings into the comparison."""

    uuids: Generations
    primary: bool = False
    crashed_primary: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict, the number of the rule that gave it, and my identifiers as they have to be corrected (or None)."""

    verdict: Verdict
    rule: int
    corrected: Generations | None = None


def _mask(uuid: int) -> int:
    return uuid & ~PRIMARY_BIT


def compare(me: Side, peer: Side, *, features: int, resolve_conflicts: bool) -> Comparison:
    """Compare two copies; both sides come to mirrored verdicts.

    Rule 91 is ours: a resync that resolves a split brain was cut off before its P_SYNC_UUID arrived.
    """
    mine, theirs = _mask(me.uuids.current), _mask(peer.uuids.current)
    if mine in {0, JUST_CREATED} and theirs in {0, JUST_CREATED}:
        return Comparison(Verdict.EQUAL, 10)
    if mine in {0, JUST_CREATED}:
        return Comparison(Verdict.TARGET_FULL, 20)
    if theirs in {0, JUST_CREATED}:
        return Comparison(Verdict.SOURCE_FULL, 30)
    if mine == theirs:
        return _equal_currents(me, peer, features=features, resolve_conflicts=resolve_conflicts)
    return _different_currents(me.uuids, peer.uuids)


def _equal_currents(me: Side, peer: Side, *, features: int, resolve_conflicts: bool) -> Comparison:
    a, b = me.uuids, peer.uuids
    if b.bitmap == 0 and a.bitmap != 0:
        if _mask(a.bitmap) == _mask(b.history0) and _mask(a.history0) == _mask(b.history1):
            corrected = a.copy()
            corrected.end_as_source()
            return Comparison(Verdict.SOURCE, 34, corrected)
        return Comparison(Verdict.SOURCE, 36)
    if a.bitmap == 0 and b.bitmap != 0:
        seen = _mask(b.bitmap) == _mask(a.history0) and _mask(b.history0) == _mask(a.history1)
        return Comparison(Verdict.TARGET, 35 if seen else 37)
    if not me.crashed_primary and not peer.crashed_primary:
        return Comparison(Verdict.EQUAL, 40)
    if features & Feature.WSAME and (me.primary or peer.primary):
        if me.primary and peer.primary:
            return Comparison(Verdict.SPLIT_BRAIN_AMBIGUOUS, 41)
        return Comparison(Verdict.SOURCE if me.primary else Verdict.TARGET, 41)
    if me.crashed_primary and peer.crashed_primary:
        return Comparison(Verdict.TARGET if resolve_conflicts else Verdict.SOURCE, 41)
    return Comparison(Verdict.SOURCE if me.crashed_primary else Verdict.TARGET, 41)


def _different_currents(a: Generations, b: Generations) -> Comparison:
    mine, theirs = _mask(a.current), _mask(b.current)
    if mine == _mask(b.bitmap):
        return Comparison(Verdict.TARGET, 50)
    if mine == _mask(b.history0) and _lost_sync_uuid(b):
        return Comparison(Verdict.TARGET, 51)
    if mine in {_mask(b.history0), _mask(b.history1)}:
        return Comparison(Verdict.TARGET_FULL, 60)
    if theirs == _mask(a.bitmap):
        return Comparison(Verdict.SOURCE, 70)
    if theirs == _mask(a.history0) and _lost_sync_uuid(a):
        return Comparison(Verdict.SOURCE, 71, _undone(a))
    if theirs in {_mask(a.history0), _mask(a.history1)}:
        return Comparison(Verdict.SOURCE_FULL, 80, _undone(a) if _lost_sync_uuid(a) else None)
    if a.bitmap and _mask(a.bitmap) == _mask(b.bitmap):
        return Comparison(Verdict.SPLIT_BRAIN, 90)
    if a.bitmap and _lost_sync_uuid(b) and _mask(a.bitmap) == _mask(b.history0):
        return Comparison(Verdict.SPLIT_BRAIN, 91)
    if b.bitmap and _lost_sync_uuid(a) and _mask(b.bitmap) == _mask(a.history0):
        return Comparison(Verdict.SPLIT_BRAIN, 91, _undone(a))
    common = {_mask(a.history0), _mask(a.history1)} & {_mask(b.history0), _mask(b.history1)} - {0}
    if common or (_began_here(a) and _began_here(b)):
        return Comparison(Verdict.SPLIT_BRAIN_AMBIGUOUS, 100)
    return Comparison(Verdict.UNRELATED, 100)


def _began_here(uuids: Generations) -> bool:
    """The present generation came straight from a just created copy: a forced start may have made two of them."""
    return JUST_CREATED in {_mask(uuids.bitmap), _mask(uuids.history0)}


def _lost_sync_uuid(source: Generations) -> bool:
    """The source began a resync; if its P_SYNC_UUID never arrived, that step is taken back."""
    return source.history0 != 0 and (_mask(source.history0) + SYNC_OFFSET) & _U64 == _mask(source.bitmap)


def _undone(source: Generations) -> Generations:
    return Generations(source.current, source.history0, source.history1, 0)
