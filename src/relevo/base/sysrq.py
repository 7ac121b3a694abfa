"""Commands that reset or switch off the machine at once, and the mask that keeps them from doing so in a lab.

A handler in drbd.conf may write to /proc/sysrq-trigger: within a moment the whole machine is off. In a lab, many
"machines" share one kernel, so something else is mounted over that file there; `refusal` says when it is not.
"""

from __future__ import annotations

import os
import pathlib
import re

TRIGGER = "/proc/sysrq-trigger"
MASK_VARIABLE = "RELEVO_SYSRQ_MASK"
"""Environment variable: `required` means that no handler may run where it could reset the machine. A lab sets it."""
REQUIRED = "required"
STAND_IN_VARIABLE = "RELEVO_SYSRQ_STAND_IN"
"""Environment variable: the file that stands for `TRIGGER` on a kernel that has none. A lab sets it."""
_CAP_SYS_BOOT = 22
_POINT, _KIND = 4, 0  # fields of /proc/self/mountinfo: the fifth, and the first behind the separator
_DANGEROUS = (
    re.compile(r"sysrq(-trigger)?\b"),
    re.compile(r"\b(?:reboot|halt|poweroff|shutdown)\b(?:\s+-\S+)*\s+(?:-\w*f\w*|--force)\b"),
    re.compile(r"\bsystemctl\b[^;&|]*(?:--force|-f)\b[^;&|]*\b(?:reboot|halt|poweroff)\b"),
    re.compile(r"\bsystemctl\b[^;&|]*\b(?:reboot|halt|poweroff)\b[^;&|]*(?:--force|\s-f+)\b"),
)


def dangerous_part(command: str) -> str:
    """The part of a shell command that resets or switches off the machine without stopping anything; "" if none does.

    Finds what is written in the command itself, not what a script that it calls may do.
    """
    found = [match for pattern in _DANGEROUS if (match := pattern.search(command))]
    return min(found, key=lambda match: match.start()).group(0) if found else ""


def masked(mountinfo: str) -> bool:
    """Whether something other than the kernel's file lies at `TRIGGER`.

    Args:
        mountinfo: the text of /proc/self/mountinfo, see proc_pid_mountinfo(5).
    """
    kind = ""
    for line in mountinfo.splitlines():
        before, _, behind = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > _POINT and fields[_POINT] == TRIGGER:
            kind = behind.split(" ")[_KIND]  # the last one mounted there is the one that is seen
    return kind not in {"", "proc"}


def may_reboot(status: str) -> bool:
    """Whether a process or what it executes may call reboot(2).

    Args:
        status: the text of its /proc/PID/status, see proc_pid_status(5).
    """
    (bounding,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding, 16) >> _CAP_SYS_BOOT & 1)


def refusal() -> str:
    """Why no handler may run here, where that is demanded: it could reset the machine. "" when one may.

    The trigger has to be masked (a kernel without CONFIG_MAGIC_SYSRQ has none), and CAP_SYS_BOOT out of reach.
    """
    if os.environ.get(MASK_VARIABLE) != REQUIRED:
        return ""
    own = pathlib.Path("/proc/self")
    if pathlib.Path(TRIGGER).exists() and not masked((own / "mountinfo").read_text(errors="surrogateescape")):
        return f"{TRIGGER} is not masked here, and {MASK_VARIABLE} demands it: no handler is run."
    if may_reboot((own / "status").read_text(errors="surrogateescape")):
        return f"A handler could reboot the machine here, and {MASK_VARIABLE} forbids that: none is run."
    return ""


def adapted(command: str) -> str:
    """A handler's command as it has to be run here: in a lab on a kernel without `TRIGGER`, with what stands for it."""
    stand_in = os.environ.get(STAND_IN_VARIABLE)
    if stand_in is None or pathlib.Path(TRIGGER).exists():
        return command
    return command.replace(TRIGGER, stand_in)
