"""The two sides of a connection prove to each other that they know the same secret: HMAC over the other's challenge."""

from __future__ import annotations

import hmac

from relevo.base.errors import RelevoError
from relevo.mirror.packets import CHALLENGE_BYTES

_REMEDY = (
    "Write the same secret for this mirror on both servers (secrets.toml; shared-secret in a drbd.conf), then on each: "
    "relevo mirror adjust NAME."
)


class WrongSecret(RelevoError):
    """The peer does not know the secret of this mirror."""


class ChallengeReflected(RelevoError):
    """The peer sent our own challenge back, so that we would compute its answer."""


class Authentication:
    """One connection's authentication. Send `challenge`; answer the peer's with `respond`; `verify` its answer.

    Args:
        secret: the shared secret.
        algorithm: `sha1`, `sha256`, `md5`, as in DRBD's cram-hmac-alg.
        challenge: `CHALLENGE_BYTES` random bytes, never used before.
    """

    def __init__(self, secret: str, algorithm: str, challenge: bytes) -> None:
        assert len(challenge) == CHALLENGE_BYTES
        self.challenge = challenge
        self._secret = secret.encode()
        self._algorithm = algorithm

    def _sum(self, challenge: bytes) -> bytes:
        return hmac.digest(self._secret, challenge, self._algorithm)

    def respond(self, challenge: bytes) -> bytes:
        """The answer to the peer's challenge.

        Raises:
            ChallengeReflected: it is our own.
        """
        if challenge[:CHALLENGE_BYTES] == self.challenge:
            raise ChallengeReflected(
                "The peer sent our own challenge back.", "Check who answers at the peer's address."
            )
        return self._sum(challenge)

    def verify(self, response: bytes) -> None:
        """Check the peer's answer to our challenge.

        Raises:
            WrongSecret: it is not the answer of one who knows the secret.
        """
        if not hmac.compare_digest(response, self._sum(self.challenge)):
            raise WrongSecret("The peer answered our challenge wrongly: its secret or hmac differs.", _REMEDY)
