"""What is advised can be typed as it stands: the mirror's name is in it, and it works under whoever decides there."""

from __future__ import annotations

import pytest

from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.errors import RelevoError
from relevo.cli.drbdadm.advice import advised
from relevo.cli.drbdadm.meta import InUse
from relevo.mirror import errors


def told(error: RelevoError) -> Refused:
    """As it comes over the control socket."""
    return Refused(type(error).__name__, error.what, error.remedy)


@pytest.mark.parametrize(
    ("error", "decided", "words"),
    [
        (errors.StillPrimary(), False, "relevo mirror secondary r0."),
        (errors.StillPrimary(), True, "relevo move SERVICE"),
        (errors.LastCopy(), True, "relevo move SERVICE"),
        (errors.DeviceBusy(), False, "Unmount it"),
        (errors.DeviceBusy(), True, "relevo move SERVICE"),
        (errors.DataNotUpToDate("Inconsistent"), False, "relevo mirror primary --force r0."),
        (errors.DataNotUpToDate("Inconsistent"), True, "relevo force"),
        (errors.NeverInUse(), False, "relevo mirror primary --force r0."),
        (errors.NotNow("StandAlone"), False, "relevo mirror connect r0."),
        (errors.NotNow("SyncSource"), False, "Wait for it"),
        (errors.GivenByThePrimary(everything=False), False, "on the other server: relevo mirror resync r0"),
        (errors.GivenByThePrimary(everything=True), True, "relevo mirror invalidate r0"),
    ],
)
def test_what_a_mirrors_process_refuses(error: RelevoError, decided: bool, words: str) -> None:
    said = advised(told(error), "r0", decided=decided)
    assert said.startswith(error.what)
    assert words in said
    assert "NAME" not in said


def test_what_is_found_here() -> None:
    up = InUse("The mirror is up: /dev/sdb is in use.", "Take it down first: relevo mirror down r0.")
    assert "relevo mirror down r0" in advised(up, "r0", decided=False)
    assert "relevo leave" in advised(up, "r0", decided=True), "there `down` only leaves the peer"
    silent = DaemonUnreachable("The daemon mirror-r0 does not answer.", "Is `relevo mirror run r0` running here?")
    assert advised(silent, "r0", decided=False).endswith("Start it: relevo mirror up r0.")
    assert advised(silent, "r0", decided=True).endswith("Start it: systemctl start relevo-mirror@r0.")
