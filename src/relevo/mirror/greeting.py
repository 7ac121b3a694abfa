"""What is said on the data socket before the mirror's core takes over: features, then the proof of the secret.

Pure: packets in, packets out. Both sides say the same things at the same time. After `Done` the sockets are the core's.
"""

from __future__ import annotations

import msgspec

from relevo.base.errors import RelevoError
from relevo.mirror import packets as p
from relevo.mirror.auth import Authentication

PROTOCOL_VERSION = 101
OUR_FEATURES = p.Feature.TRIM | p.Feature.THIN_RESYNC | p.Feature.WSAME | p.Feature.WZEROES | p.Feature.WISH_FIRST
"""WSAME stands for queue limits in P_SIZES and for one more rule about generations; these limits tell that we cannot do
the command itself."""


_PROOF_REMEDY = "Configure the same secret and hash on both servers (drbd.conf: shared-secret, cram-hmac-alg)."


class VersionsApart(RelevoError):
    """The peer does not speak the protocol of this side."""


class OutOfTurn(p.ProtocolError):
    """A packet came that has no place in the greeting."""


class Done(msgspec.Struct, frozen=True):
    """The peer knows the secret; `features` are those of both sides."""

    features: int


class Unproven(RelevoError):
    """One side wants the proof of a secret and the other does not."""


class Greeting:
    """One connection's beginning. Send `opening()`, then what `take` answers, until it answers with `Done`.

    Args:
        authentication: of this connection; None asks the peer for no proof.
    """

    def __init__(self, authentication: Authentication | None) -> None:
        self._authentication = authentication
        self._features: int | None = None
        self._responded = False
        self._verified = False

    @staticmethod
    def opening() -> list[p.Packet]:
        """What to send first (with the 8-byte header)."""
        return [p.ConnectionFeatures(PROTOCOL_VERSION, int(OUR_FEATURES), PROTOCOL_VERSION)]

    @property
    def features_known(self) -> bool:
        """Whether the peer's features have come: from then on its packets carry the 16-byte header."""
        return self._features is not None

    @property
    def responded(self) -> bool:
        """Whether this side has answered the peer's challenge: a peer that leaves now is not content with it."""
        return self._responded

    def take(self, packet: p.Packet) -> list[p.Packet | Done]:
        """What the peer's packet calls for: packets to be sent (16-byte header), `Done` at the end.

        Raises:
            VersionsApart: no common protocol.
            WrongSecret: the peer's proof is wrong.
            ChallengeReflected: the peer sent our own challenge.
            Unproven: the peer has no secret configured.
            OutOfTurn: anything else.
        """
        if self._features is None and isinstance(packet, p.ConnectionFeatures):
            return self._take_features(packet)
        assert self._authentication is not None, "without authentication the features are the last word"
        if self._features is not None and not self._responded and isinstance(packet, p.AuthChallenge):
            self._responded = True
            return [p.AuthResponse(self._authentication.respond(packet.challenge))]
        if self._responded and not self._verified and isinstance(packet, p.AuthResponse):
            self._authentication.verify(packet.response)
            self._verified = True
            assert self._features is not None
            return [Done(self._features)]
        if self._features is not None and isinstance(packet, p.Protocol):
            raise Unproven("The peer does not prove that it knows the secret.", _PROOF_REMEDY)
        raise OutOfTurn(f"The peer sent {type(packet).__name__} in the middle of the greeting.", p.UPGRADE_REMEDY)

    def _take_features(self, packet: p.ConnectionFeatures) -> list[p.Packet | Done]:
        highest = packet.protocol_max or packet.protocol_min
        if not packet.protocol_min <= PROTOCOL_VERSION <= highest:
            raise VersionsApart(
                f"The peer speaks DRBD protocols {packet.protocol_min} to {highest}, this side {PROTOCOL_VERSION}.",
                "Use versions on both servers that have a protocol in common.",
            )
        self._features = packet.features & OUR_FEATURES
        if self._authentication is None:
            return [Done(self._features)]
        return [p.AuthChallenge(self._authentication.challenge)]
