"""Why a mirror refuses a command, and what to do about it."""

from __future__ import annotations

from relevo.base.errors import RelevoError


def named(sentence: str, mirror: str) -> str:
    """The sentence with the mirror's name in the commands that it advises: the cores do not know it."""
    return sentence.replace(" NAME", f" {mirror}").replace("@NAME", f"@{mirror}")


class MirrorRefused(RelevoError):
    """A command was refused; nothing has changed."""


class PeerIsPrimary(MirrorRefused):
    """The peer is connected and Primary (or becomes it)."""

    def __init__(self) -> None:
        super().__init__("The peer is Primary.", "Make it Secondary first.")


class GivenByThePrimary(MirrorRefused):
    """Data goes from a Primary to a Secondary, never back: the Primary's users have read its copy."""

    def __init__(self, *, everything: bool) -> None:
        remedy = (
            "To fill the copy here from it: relevo mirror invalidate NAME."
            if everything
            else "To send it, on the other server: relevo mirror resync NAME."
        )
        super().__init__("The peer is Primary: blocks go from there to here, not over what its users see.", remedy)


class NoVerifyHere(MirrorRefused):
    """There is nothing to stop."""

    def __init__(self) -> None:
        super().__init__("No verify that was begun here runs.", "One that the peer has begun is stopped there.")


class DataNotUpToDate(MirrorRefused):
    """The copy here is not known to be the newest."""

    def __init__(self, disk: str) -> None:
        super().__init__(
            f"The copy on this server is {disk}, not UpToDate.",
            "Bring the other server up and let them connect; if its data is lost for good: relevo force.",
        )


class NeverInUse(MirrorRefused):
    """A new copy whose peer may have come into use without it."""

    def __init__(self) -> None:
        super().__init__(
            "The copy on this server is new: it has never been in use together with the other one.",
            "Bring the other server up and let them connect; to start with this copy alone: relevo force.",
        )


class NoDisk(MirrorRefused):
    """There is no usable backing disk."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"There is no usable disk here: {problem}" if problem else "There is no usable disk here.",
            "Check the backing disk and start the mirror again.",
        )


class AlreadyDenied(MirrorRefused):
    """A later vote exists."""

    def __init__(self, epoch: int, highest: int) -> None:
        super().__init__(
            f"The permission is of vote {epoch}, but vote {highest} has been seen here.", "Ask for a new permission."
        )


class DeviceBusy(MirrorRefused):
    """The device is in use."""

    def __init__(self) -> None:
        super().__init__("The device is in use.", "Unmount it and stop whoever has it open.")


class DeviceFailed(MirrorRefused):
    """The device could not be made."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"The device could not be made (error {errno}).", "Look into the log of this mirror.")


class StillPrimary(MirrorRefused):
    """Only a Secondary may do that."""

    def __init__(self) -> None:
        super().__init__("This server is Primary.", "Make it Secondary first: relevo mirror secondary NAME.")


class ConnectedOutdates(MirrorRefused):
    """A connected copy is current (drbd: SS_CONNECTED_OUTDATES, -6)."""

    def __init__(self) -> None:
        super().__init__(
            "The copy here is connected to its peer, and current: it is not marked Outdated.",
            "Disconnect first: relevo mirror disconnect NAME.",
        )


class InconsistentAnyway(MirrorRefused):
    """A copy that is Inconsistent cannot be outdated: it is worse already (drbd: SS_LOWER_THAN_OUTDATED, -16)."""

    def __init__(self) -> None:
        super().__init__(
            "The copy is Inconsistent, which is worse than Outdated.", "Let it connect: a resync mends it."
        )


class CommandInProgress(MirrorRefused):
    """Another command is under way, which has to end first."""

    def __init__(self, what: str = "Another change of role is under way.") -> None:
        super().__init__(what, "Wait for it and try again.")


class DiskDoesNotAnswer(MirrorRefused):
    """The disk that is to be attached hangs, or the one before it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            "Look into the kernel's log: it can be attached when it answers, and so can another disk in its place.",
        )


class AttemptsHang(MirrorRefused):
    """So many attempts to read a disk have not come back that no further one is made."""

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"{attempts} attempts to attach a disk hang, and no more are made until one of them ends.",
            "Look into the kernel's log: they end when the disk answers, or with the mirror's process.",
        )


class BackingUnreadable(MirrorRefused):
    """The system does not let the backing disk be read."""

    def __init__(self, path: str, error: Exception) -> None:
        super().__init__(f"{path} cannot be read ({error}).", "Check the disk and the kernel's log.")


class PeerLost(MirrorRefused):
    """The connection was lost while the peer was asked."""

    def __init__(self) -> None:
        super().__init__("The connection was lost while the peer was asked.", "Try again.")


class PeerNotFenced(MirrorRefused):
    """The configuration demands that a lost peer is fenced first."""

    def __init__(self) -> None:
        super().__init__(
            "The handler fence-peer has not fenced the peer.",
            "See the log; to go on in spite of that: relevo force, or relevo mirror resume-io where I/O is suspended.",
        )


class NotAttached(MirrorRefused):
    """The mirror is still reading its disk, or is going down."""

    def __init__(self) -> None:
        super().__init__("The mirror is starting or stopping.", "Try again in a moment.")


class CannotResume(RelevoError):
    """The device that a dead process has left in use cannot be served from this disk."""

    def __init__(self, obstacle: str) -> None:
        super().__init__(f"The device in use cannot be served again: {obstacle}.", "See the log of the mirror.")


class CannotResize(MirrorRefused):
    """The mirror cannot take another size now."""


class AlreadySet(MirrorRefused):
    """What is asked for is so already."""


class LastCopy(MirrorRefused):
    """The disk is needed: there is no other copy to go on with."""

    def __init__(self) -> None:
        super().__init__(
            "This server is Primary and works with the disk here.",
            "Make it Secondary first: relevo mirror secondary NAME.",
        )


class NeedStandAlone(MirrorRefused):
    """A new generation begins only without the peer."""

    def __init__(self) -> None:
        super().__init__(
            "A new generation begins only without the peer.",
            "Disconnect first; two new copies that are connected need --clear-bitmap.",
        )


class DiskOfAnotherSize(MirrorRefused):
    """The disk that was put in does not hold the mirror."""

    def __init__(self, mirror_bytes: int, disk_bytes: int) -> None:
        super().__init__(
            f"The mirror has {mirror_bytes} bytes, the disk that was put in {disk_bytes}.",
            "Take a disk that is large enough, and write its meta-data anew: relevo mirror create NAME.",
        )


class NoDataToCompare(MirrorRefused):
    """This Primary has no data: neither a disk nor a peer."""

    def __init__(self) -> None:
        super().__init__(
            "This server is Primary without data: nothing says whether the disk fits what was in use.",
            "Connect to the peer first, or make this server Secondary.",
        )


class LinkChanged(MirrorRefused):
    """What was asked for rests on a link that has been lost; there is another one, or has been."""

    def __init__(self) -> None:
        super().__init__(
            "There is another link to the peer since this was asked for.", "Ask again if it is still wanted."
        )


class NotNow(MirrorRefused):
    """The connection is not in the state for it."""

    def __init__(self, connection: str) -> None:
        alone = connection == "StandAlone"
        super().__init__(
            f"That needs two connected copies at rest; the connection is {connection}.",
            "Connect them first: relevo mirror connect NAME." if alone else "Wait for it and try again.",
        )


class PeerRefused(MirrorRefused):
    """The peer did not agree."""

    def __init__(self, retcode: int) -> None:
        reason = _RETCODES.get(retcode, f"answer {retcode}")
        super().__init__(f"The peer does not agree: {reason}.", "Look into the peer's log and try again.")


class PeerNotUpToDate(MirrorRefused):
    """The copy of the peer is not one to compare with, or to take over."""

    def __init__(self, disk: str) -> None:
        super().__init__(f"The peer's copy is {disk}, not UpToDate.", "Wait for its resync and try again.")


class NoVerifyAlgorithm(MirrorRefused):
    """Copies are compared by digests, and no algorithm is configured."""

    def __init__(self) -> None:
        super().__init__("No algorithm is configured to compare the copies with.", 'Set verify_alg, such as "sha256".')


class NothingToVerify(MirrorRefused):
    """The part of the device that was named is empty."""

    def __init__(self) -> None:
        super().__init__("There is nothing to compare between these places.", "Name a start before the stop.")


class ResyncBegins(MirrorRefused):
    """A resync has begun while the peer was asked."""

    def __init__(self) -> None:
        super().__init__("A resync has begun meanwhile.", "Wait for it and try again.")


_RETCODES = {
    -1: "both servers would be Primary",
    -2: "it needs access to an UpToDate copy",
    -4: "it has no disk",
    -8: "a resync or verify is running there",
    -14: "no algorithm is configured there to compare the copies with",
    -18: "its state is changing",
    -19: "it is about to change its state, too",
}
"""What drbd's state change replies mean."""
