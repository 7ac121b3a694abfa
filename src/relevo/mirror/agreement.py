"""What both sides of a mirror have to be configured alike: the replication protocol and the digest of every payload.

Protocol A completes a write when it is on this disk and on its way to the peer, B when the peer has received it, C when
the peer's disk has it. In each of them a flush waits until the peer's disk has made everything before it stable.
"""

from __future__ import annotations

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import packets as p

PROTOCOL_NUMBERS = {"A": 1, "B": 2, "C": 3}
"""As P_PROTOCOL has them."""
_LETTERS = {number: letter for letter, number in PROTOCOL_NUMBERS.items()}
RECEIVE_ACK = int(p.DataFlag.SEND_RECEIVE_ACK)
WRITE_ACK = int(p.DataFlag.SEND_WRITE_ACK)
ANSWER_FLAGS = {"A": 0, "B": RECEIVE_ACK, "C": WRITE_ACK}
"""Which answer to a write a Primary asks for."""


def disagreement(options: DrbdOptions, packet: p.Protocol) -> str:
    """What differs between this side's configuration and the peer's, as a sentence; empty: nothing of these."""
    if packet.protocol != PROTOCOL_NUMBERS[options.protocol]:
        theirs = _LETTERS.get(packet.protocol, str(packet.protocol))
        return f"The peer replicates with protocol {theirs}, this side with protocol {options.protocol}."
    if packet.two_primaries:
        return "The peer allows two Primaries; this side does not."
    mine, theirs = (name or "none" for name in (options.data_integrity_alg, packet.integrity_alg))
    if mine != theirs:
        return f"The peer's data-integrity-alg is {theirs}, this side's is {mine}."
    return ""
