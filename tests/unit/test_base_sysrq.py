"""Commands that switch the machine off at once are found, and whether they could do so here."""

from __future__ import annotations

import pytest

from relevo.base import sysrq

_PROC = "22 60 0:21 / /proc rw,nosuid - proc proc rw\n"
_MASK = "90 22 0:33 /sysrq /proc/sysrq-trigger rw - tmpfs tmpfs rw\n"
_OTHER_PROC = "91 22 0:55 /sysrq-trigger /proc/sysrq-trigger rw - proc proc rw\n"


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("/usr/lib/drbd/notify-pri-on-incon-degr.sh; echo b > /proc/sysrq-trigger ; reboot -f", "sysrq-trigger"),
        ("echo o > /proc/sysrq-trigger ; halt -f", "sysrq-trigger"),
        ("sync; reboot -f", "reboot -f"),
        ("halt -p -f", "halt -p -f"),
        ("poweroff --force", "poweroff --force"),
        ("systemctl reboot -ff", "systemctl reboot -ff"),
        ("systemctl --force halt", "systemctl --force halt"),
        ("/usr/lib/drbd/notify-split-brain.sh root", ""),
        ("shutdown -r now", ""),
        ("rm -f /run/reboot-wanted", ""),
        ("", ""),
    ],
)
def test_dangerous_commands(command: str, part: str) -> None:
    assert sysrq.dangerous_part(command) == part


def test_a_mask_is_another_file_over_the_trigger() -> None:
    assert not sysrq.masked(_PROC)
    assert sysrq.masked(_PROC + _MASK)
    assert not sysrq.masked(_PROC + _OTHER_PROC), "the same file by way of another /proc"
    assert not sysrq.masked(_PROC + _MASK + _OTHER_PROC), "the last mount is the one that is seen"


_MAY_REBOOT = "CapBnd:\t000001ffffffffff\n"
_MAY_NOT = "CapBnd:\t000001ffffbfffff\n"


@pytest.mark.parametrize(
    ("trigger", "mounts", "status", "words"),
    [
        (True, _PROC, _MAY_NOT, "not masked"),
        (True, _PROC + _MASK, _MAY_NOT, ""),
        (True, _PROC + _MASK, _MAY_REBOOT, "could reboot"),
        (False, _PROC, _MAY_NOT, ""),
        (False, _PROC, _MAY_REBOOT, "could reboot"),
    ],
)
def test_no_handler_runs_where_it_could_reset_the_machine(
    monkeypatch: pytest.MonkeyPatch, trigger: bool, mounts: str, status: str, words: str
) -> None:
    texts = {"/proc/self/mountinfo": mounts, "/proc/self/status": status}
    monkeypatch.setattr(sysrq.pathlib.Path, "exists", lambda _: trigger)
    monkeypatch.setattr(sysrq.pathlib.Path, "read_text", lambda path, **_: texts[str(path)])
    monkeypatch.setenv(sysrq.MASK_VARIABLE, sysrq.REQUIRED)
    assert words in sysrq.refusal()
    assert bool(words) is bool(sysrq.refusal())


def test_a_server_of_its_own_needs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sysrq.MASK_VARIABLE)
    assert sysrq.refusal() == ""


def test_a_kernel_without_the_trigger_has_something_else_in_a_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "echo b > /proc/sysrq-trigger ; reboot -f"
    monkeypatch.setattr(sysrq.pathlib.Path, "exists", lambda _: False)
    monkeypatch.delenv(sysrq.STAND_IN_VARIABLE, raising=False)
    assert sysrq.adapted(command) == command
    monkeypatch.setenv(sysrq.STAND_IN_VARIABLE, "/run/sysrq-trigger")
    assert sysrq.adapted(command) == "echo b > /run/sysrq-trigger ; reboot -f"
    monkeypatch.setattr(sysrq.pathlib.Path, "exists", lambda _: True)
    assert sysrq.adapted(command) == command, "there the mask lies over the trigger itself"


def test_in_these_tests_no_handler_runs_outside_of_a_lab() -> None:
    """The historic handlers reboot: wherever they are configured in a test, they must not reach this machine."""
    assert "could reboot" in sysrq.refusal() or "not masked" in sysrq.refusal()
