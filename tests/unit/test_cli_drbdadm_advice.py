"""What is advised can be typed as it stands: the mirror's name is in it, and it works under whoever decides there."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess
import sys

import pytest

import drbd_conf_files as files
from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.errors import RelevoError
from relevo.cli.check_drbd import report
from relevo.cli.drbdadm.advice import advised
from relevo.cli.drbdadm.meta import InUse
from relevo.config.meta_disk import INTERNAL
from relevo.mirror import errors
from relevo.mirror.auth import Authentication, WrongSecret
from relevo.mirror.create import DiskUnusable, opened
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


def test_a_disk_that_fails_while_its_meta_data_is_written_is_a_sentence(tmp_path: pathlib.Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    with pytest.raises(DiskUnusable, match="Input/output error") as caught, opened(disk, INTERNAL, os.O_RDONLY):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert str(disk) in caught.value.what


def test_a_drbd_conf_is_checked_for_this_machine_too(tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "drbd.conf"
    conf.write_text(files.resource().replace("/dev/sda6", str(tmp_path / "disk")))
    assert any(f"There is no {tmp_path}/disk on this machine" in said for said in report(conf, "nodo1").warnings)
    (tmp_path / "disk").touch()
    assert not any("this machine" in said.lower() for said in report(conf, "nodo1").warnings)
    elsewhere = report(conf, "nodo9").warnings
    assert "This machine is called nodo9: resource r0 is of nodo1 and nodo2 and does not run here." in elsewhere


@pytest.mark.parametrize(("words", "status"), [(["status"], 1), (["up"], 1), (["up", "all"], 0)])
def test_where_no_mirror_is_this_hosts_that_is_said(tmp_path: pathlib.Path, words: list[str], status: int) -> None:
    conf = tmp_path / "drbd.conf"
    conf.write_text(files.resource())
    places = ["--etc", str(tmp_path), "--run", str(tmp_path), "--state", str(tmp_path), "--drbd-conf", str(conf)]
    command = [sys.executable, "-m", "relevo", *places, "--node", "nodo9", "mirror", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1)
    assert f"{conf} has no mirror of this host, nodo9." in done.stderr
