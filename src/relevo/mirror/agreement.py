"""What both sides of a mirror have to be configured alike: replication protocol, after-sb policies, digest of payloads.

Protocol A completes a write when it is on this disk and on its way to the peer, B when the peer has received it, C when
the peer's disk has it. In each of them a flush waits until the peer's disk has made everything before it stable.
"""

from __future__ import annotations

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import packets as p
from relevo.mirror.policies import MIRRORED, POLICY_NAMES, WIRE_NUMBERS

PROTOCOL_NUMBERS = {"A": 1, "B": 2, "C": 3}
"""As P_PROTOCOL has them."""
_LETTERS = {number: letter for letter, number in PROTOCOL_NUMBERS.items()}
RECEIVE_ACK = int(p.DataFlag.SEND_RECEIVE_ACK)
WRITE_ACK = int(p.DataFlag.SEND_WRITE_ACK)
ANSWER_FLAGS = {"A": 0, "B": RECEIVE_ACK, "C": WRITE_ACK}
"""Which answer to a write a Primary asks for."""


DISCARD_FLAG = 1
DRY_RUN_FLAG = 2
"""Bits of `Protocol.conn_flags`."""


def told(options: DrbdOptions, *, discard: bool, dry_run: bool) -> p.Protocol:
    """What this side says of its settings."""
    return p.Protocol(
        protocol=PROTOCOL_NUMBERS[options.protocol],
        after_sb_0p=WIRE_NUMBERS[options.after_sb_0pri],
        after_sb_1p=WIRE_NUMBERS[options.after_sb_1pri],
        after_sb_2p=WIRE_NUMBERS[options.after_sb_2pri],
        conn_flags=(DISCARD_FLAG if discard else 0) | (DRY_RUN_FLAG if dry_run else 0),
        two_primaries=0,
        integrity_alg=options.data_integrity_alg,
    )


def disagreement(mine: p.Protocol, theirs: p.Protocol) -> str:
    """What differs between this side's settings and the peer's although it must not, as a sentence; empty: nothing."""
    if theirs.protocol != mine.protocol:
        peers = _LETTERS.get(theirs.protocol, str(theirs.protocol))
        return f"The peer replicates with protocol {peers}, this side with protocol {_LETTERS[mine.protocol]}."
    for name, here, there in (
        ("after-sb-0pri", mine.after_sb_0p, theirs.after_sb_0p),
        ("after-sb-1pri", mine.after_sb_1p, theirs.after_sb_1p),
        ("after-sb-2pri", mine.after_sb_2p, theirs.after_sb_2p),
    ):
        wanted, found = POLICY_NAMES[here], POLICY_NAMES.get(there, f"unknown ({there})")
        if MIRRORED.get(found, found) != wanted:
            fitting = MIRRORED.get(wanted, wanted)
            return f"The peer's {name} is {found}, this side's is {wanted}: the peer's would have to be {fitting}."
    if theirs.two_primaries:
        return "The peer allows two Primaries; this side does not."
    if theirs.integrity_alg != mine.integrity_alg:
        own, peers = (name or "none" for name in (mine.integrity_alg, theirs.integrity_alg))
        return f"The peer's data-integrity-alg is {peers}, this side's is {own}."
    if mine.conn_flags & theirs.conn_flags & DISCARD_FLAG:
        return "Both sides want to give up their changes (discard-my-data): only one may."
    return ""
