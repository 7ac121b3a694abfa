"""The end of a lab, in whatever state it is: what is left is found by mark, by record, by mount point and by name."""

from __future__ import annotations

import pathlib
import signal
import subprocess
from collections.abc import Iterable

from relevo.device.loop import LoopInfo
from relevo.lab import fusectl, loops
from relevo.lab.errors import LabFailed
from relevo.lab.folder import REMOVED, LabFolder
from relevo.lab.machine import Machine
from relevo.lab.mounts import mounts
from relevo.lab.process import marked
from relevo.lab.scene import cluster_name

ROUNDS = 5
"""How often to look for processes again: one that was just starting another may have been missed."""
END_LIMIT_S = 10.0


def _mounted_below(folder: pathlib.Path) -> list[str]:
    """Mount points of this mount namespace below the lab's folder, the innermost first."""
    return [mount.point for mount in mounts() if pathlib.Path(mount.point).is_relative_to(folder)][::-1]


def _loops(folder: LabFolder) -> tuple[LoopInfo, ...]:
    return loops.named(cluster_name(folder.name))


def anything_left(folder: LabFolder) -> bool:
    """Whether the host still has a process, a mount or a loop device of this lab."""
    return bool(marked(folder.path) or _mounted_below(folder.path) or _loops(folder))


def abort_all(folder: LabFolder) -> None:
    """Abort every FUSE connection of the lab whose owner still runs, so that nothing waits for one."""
    fusectl.abort(fusectl.mounted_below(folder.path))
    for process in marked(folder.path):
        fusectl.abort(fusectl.mounted(process.pid))


def clean(folder: LabFolder, machines: Iterable[Machine]) -> None:
    """End everything and remove what is in the folder but logs and the shared folder.

    Raises:
        LabFailed: something does not end; the sentence names it.
    """
    machines = tuple(machines)
    abort_all(folder)
    for machine in machines:
        machine.clean_up()
    for machine in machines:
        if machine.disk is not None:
            machine.disk.destroy()
    _end_processes(folder)
    for point in _mounted_below(folder.path):
        subprocess.run(["umount", "--lazy", point], capture_output=True)
    for loop in _loops(folder):
        loops.detach(loop)
    for machine in machines:
        machine.erase()
    for name in REMOVED:
        (folder.path / name).unlink(missing_ok=True)
    if anything_left(folder):
        what = [f"process {found.pid}" for found in marked(folder.path)]
        what += [f"mount {point}" for point in _mounted_below(folder.path)]
        what += [f"/dev/loop{loop.number}" for loop in _loops(folder)]
        raise LabFailed(
            f"Of the lab in {folder.path} is left: {', '.join(what)}.", f"Try {folder.order('down')} again."
        )


def _end_processes(folder: LabFolder) -> None:
    for _ in range(ROUNDS):
        left = marked(folder.path)
        if not left:
            return
        for process in left:
            process.send(signal.SIGKILL)
        for process in left:
            process.wait_gone(END_LIMIT_S)
