"""What is advised can be typed as it stands: the mirror's name is in it, and it works under whoever decides there."""

from __future__ import annotations

import pytest

from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.errors import RelevoError
from relevo.cli.drbdadm.advice import advised
from relevo.cli.drbdadm.meta import InUse
from relevo.mirror import errors
from relevo.mirror.auth import Authentication, WrongSecret
from relevo.mirror.errors import named
from relevo.mirror.handshake import UNRELATED
from relevo.mirror.link import PEER_TOO_SMALL
from relevo.mirror.packets import CHALLENGE_BYTES


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


@pytest.mark.parametrize("sentence", [PEER_TOO_SMALL, UNRELATED])
def test_what_keeps_two_copies_apart_ends_with_the_way_back(sentence: str) -> None:
    assert named(sentence, "r0").endswith("relevo mirror connect r0.")
    assert "NAME" not in named(sentence, "r0")


def test_a_wrong_secret_is_mended_where_either_configuration_has_it() -> None:
    alone = Authentication("s", "sha1", b"x" * CHALLENGE_BYTES)
    with pytest.raises(WrongSecret) as caught:
        alone.verify(b"no")
    assert "secrets.toml; shared-secret in a drbd.conf" in caught.value.remedy
    assert "relevo mirror adjust r0" in named(caught.value.remedy, "r0")
