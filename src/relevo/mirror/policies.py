"""What the configuration says about two copies that both went on alone: the after-sb policies of drbd 8.4.

Pure. Both sides come to mirrored verdicts, also when the other one is a kernel's drbd. Facts: drbd.conf(5), and what
the kernel's `drbd_asb_recover_0p`, `_1p` and `_2p` do.
"""

from __future__ import annotations

import dataclasses

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror.states import Disk
from relevo.mirror.uuids import PRIMARY_BIT, Side, Verdict

WIRE_NUMBERS = {
    "disconnect": 0,
    "discard-younger-primary": 1,
    "discard-older-primary": 2,
    "discard-zero-changes": 3,
    "discard-least-changes": 4,
    "discard-local": 5,
    "discard-remote": 6,
    "consensus": 7,
    "discard-secondary": 8,
    "call-pri-lost-after-sb": 9,
    "violently-as0p": 10,
}
"""How P_PROTOCOL tells a policy."""
POLICY_NAMES = {number: name for name, number in WIRE_NUMBERS.items()}
MIRRORED = {"discard-local": "discard-remote", "discard-remote": "discard-local"}
"""The peer's local is remote here."""
_TIMED = {"discard-younger-primary": 1, "discard-older-primary": -1}
"""The sign of the verdict for the side that was Primary when the two parted."""
UNDECIDED = Verdict.SPLIT_BRAIN_AMBIGUOUS


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One side as it goes into the decision.

    Attributes:
        side: generations and role.
        disk: what the copy is worth.
        discard: it wants to give up its changes.
        changed_bits: blocks that it has marked as changed, as P_UUIDS tells it.
    """

    side: Side
    disk: Disk
    discard: bool
    changed_bits: int = 0

    @property
    def parted_as_primary(self) -> bool:
        """It was Primary when the two parted: the lowest bit of its bitmap generation remembers it."""
        return bool(self.side.uuids.bitmap & PRIMARY_BIT)


@dataclasses.dataclass(frozen=True, slots=True)
class Recovery:
    """What the policies say.

    `verdict` is SOURCE, TARGET or UNDECIDED. `give_up_role`: this side would have to become Secondary first, and its
    administrator is called if it cannot (call-pri-lost-after-sb).
    """

    verdict: Verdict
    give_up_role: bool = False


def recover(me: Copy, peer: Copy, options: DrbdOptions, *, resolve_conflicts: bool) -> Recovery:
    """Which side gives up its changes, by the number of Primaries there are now."""
    primaries = me.side.primary + peer.side.primary
    if primaries == 0:
        return Recovery(_none(me, peer, options.after_sb_0pri, resolve_conflicts=resolve_conflicts))
    policy: str = options.after_sb_1pri if primaries == 1 else options.after_sb_2pri
    if policy == "disconnect":
        return Recovery(UNDECIDED)
    if policy == "discard-secondary":
        return Recovery(Verdict.SOURCE if me.side.primary else Verdict.TARGET)
    verdict = _none(me, peer, options.after_sb_0pri, resolve_conflicts=resolve_conflicts)
    if policy == "consensus":
        return Recovery(verdict if verdict is (Verdict.SOURCE if me.side.primary else Verdict.TARGET) else UNDECIDED)
    if policy == "call-pri-lost-after-sb" and verdict is Verdict.TARGET and me.side.primary:
        return Recovery(verdict, give_up_role=True)
    return Recovery(verdict)


def _none(me: Copy, peer: Copy, policy: str, *, resolve_conflicts: bool) -> Verdict:
    """As if nobody were Primary."""
    if policy == "disconnect":
        return UNDECIDED
    if policy in {"discard-local", "discard-remote"}:
        return Verdict.TARGET if policy == "discard-local" else Verdict.SOURCE
    if policy in _TIMED and me.parted_as_primary is not peer.parted_as_primary:
        return Verdict(_TIMED[policy] if me.parted_as_primary else -_TIMED[policy])
    mine, theirs = me.changed_bits, peer.changed_bits
    if mine == 0 or theirs == 0 or policy != "discard-zero-changes":
        if mine != theirs:
            return Verdict.SOURCE if mine > theirs else Verdict.TARGET
        return Verdict.TARGET if resolve_conflicts else Verdict.SOURCE
    return UNDECIDED
