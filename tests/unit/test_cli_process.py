"""The process that `up` starts: its note, its last words, and that nobody else's is waited for."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from ipaddress import IPv4Address

import pytest

from relevo.base.paths import Paths
from relevo.cli.context import Context
from relevo.cli.drbdadm.process import NotStarted, StillThere, end_started, log_of, start_detached
from relevo.config.model import Endpoint, Mirror, MirrorSite


@pytest.fixture
def context(tmp_path: pathlib.Path) -> Context:
    return Context(Paths(tmp_path, tmp_path, tmp_path / "run", tmp_path / "drbd.conf"), "nodo1")


@pytest.fixture
def site() -> MirrorSite:
    end = Endpoint(address=IPv4Address("127.0.0.1"), port=7788)
    mirror = Mirror(name="r0", link="cross", secret="x")
    disk = pathlib.Path("/disk")
    return MirrorSite(mirror=mirror, cluster="c", me="nodo1", peer="nodo2", own=end, other=end, disk=disk)


def test_a_process_that_ends_at_once_is_told_with_its_last_words(context: Context, site: MirrorSite) -> None:
    with pytest.raises(NotStarted) as refused:
        start_detached(context, site)
    assert "relevo.toml" in str(refused.value), "it had no configuration"
    assert str(log_of(context, "r0")) in str(refused.value)
    assert not list(context.paths.run.glob("*.pid"))


@pytest.mark.parametrize("name", ["r1", "r", "r00"])
def test_the_process_of_another_mirror_is_not_waited_for(
    context: Context, site: MirrorSite, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("relevo.cli.drbdadm.process.END_TIMEOUT_S", 0)
    context.paths.run.mkdir()
    note = context.paths.run / "mirror-r0.pid"

    def noted(mirror: str) -> subprocess.Popen[bytes]:
        program = "import time; print(flush=True); time.sleep(1000)"
        argv = [sys.executable, "-c", program, "mirror", "run", mirror]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline(), "it is executed"
        note.write_text(f"{process.pid}\n")
        return process

    with noted(name) as other, noted("r0") as own:
        try:
            with pytest.raises(StillThere):
                end_started(context, site.mirror.name)
            note.write_text(f"{other.pid}\n")
            end_started(context, site.mirror.name)
        finally:
            other.kill()
            own.kill()
    assert not note.exists()


def test_only_its_owner_reads_the_log(context: Context, site: MirrorSite) -> None:
    with pytest.raises(NotStarted):
        start_detached(context, site)
    assert log_of(context, "r0").stat().st_mode & 0o077 == 0, "it has what handlers print"


@pytest.mark.parametrize("noted", ["", "nonsense", str(os.getpid()), "999999999"])
def test_who_is_not_ours_is_not_waited_for(context: Context, site: MirrorSite, noted: str) -> None:
    context.paths.run.mkdir()
    note = context.paths.run / "mirror-r0.pid"
    note.write_text(noted)
    end_started(context, site.mirror.name)
    assert not note.exists()
