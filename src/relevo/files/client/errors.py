"""Why a transfer failed."""

from __future__ import annotations

from relevo.base.errors import RelevoError


class TransferFailed(RelevoError):
    """A file was not transferred."""


class GaveUp(TransferFailed):
    """There was no progress for too long."""


class ServerRefused(TransferFailed):
    """The server says that it cannot be done; `status` is its answer."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(what)
        self.status = status


class CertificateNotTrusted(TransferFailed):
    """Nobody whom this machine trusts vouches for the server's certificate."""


class ChecksumDiffers(TransferFailed):
    """What is there is not what was sent, or what came is not what is there."""


class SourceChanged(TransferFailed):
    """The file was changed while it was being sent."""


class Interrupted(Exception):
    """This attempt is over; another one may succeed."""
