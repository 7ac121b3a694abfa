"""Agent of a file system: mount and unmount what lies on a device. Nothing here ever makes a file system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import stat
from collections.abc import Awaitable, Callable

import structlog

from relevo.agents import superblock
from relevo.agents.aside import aside
from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, failed
from relevo.agents.daemon import ask
from relevo.agents.mounts import Mount, User, identify, mounted_at, mounts_below, users_of
from relevo.agents.tools import run_tool
from relevo.base.paths import Paths
from relevo.config.model import FilesystemResource

DeviceSource = Callable[[], Awaitable[pathlib.Path]]

LIMIT_SHARE = 0.95
"""Share of an operation's time that its tools may use: the sentence of a tool says more than the caller's."""
ASK_SHARE = 0.3
"""Share of the stop's time that users have to end after SIGTERM."""
KILL_SHARE = 0.2
"""Share of the stop's time that users have to end after SIGKILL."""
MAX_ASK_S = 5.0
BUSY_POLL_S = 0.05
"""Between looks whether a mount is still in use: the kernel sends no event for that."""
E2FSCK_CORRECTED = 0x3
"""Exit status bits of e2fsck that mean: there was damage, there is none now."""
_log = structlog.get_logger()


def mirror_device(resource: FilesystemResource, paths: Paths) -> DeviceSource:
    """Where the device of the resource's mirror is: asked from the mirror at each start."""

    async def device() -> pathlib.Path:
        limit_s = resource.operation.start_timeout_ms / 1000
        status = await ask(paths.socket(f"mirror-{resource.mirror}"), "status", limit_s=limit_s)
        if not status.get("device"):
            raise AgentFailed(f"Mirror {resource.mirror} has no device here: it is {status['role']}.")
        return pathlib.Path(status["device"])

    return device


class FilesystemAgent(Agent):
    """Mounts the file system of a mirror at its mountpoint."""

    def __init__(self, resource: FilesystemResource, device: DeviceSource) -> None:
        super().__init__(resource.id)
        self._resource = resource
        self._device = device
        self._point = resource.mountpoint

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - the mirror has checked the epoch
        """Mount; first repair what is marked as damaged (`e2fsck -p`). Mounted already is fine.

        Raises:
            AgentFailed: no file system or another one is there, it cannot be repaired, or the mount fails.
        """
        end = _Deadline(self._resource.operation.start_timeout_ms)
        device = await self._device()
        number = await aside(lambda: _block_device(device))
        mount = mounted_at(self._point)
        if mount is not None:
            self._adopt(mount, number)
            return
        found = await self._look(device, end)
        if found.check:
            await self._repair(device, end)
        self._point.mkdir(parents=True, exist_ok=True)
        argv = ("mount", "-t", self._resource.fstype, "-o", self._options(), str(device), str(self._point))
        done = await run_tool(*argv, limit_s=end.left_s())
        if done.status:
            raise AgentFailed(f"{device} cannot be mounted at {self._point}: {done.words}.", "See the kernel's log.")
        mount = mounted_at(self._point)
        if mount is None or not mount.writable:
            raise AgentFailed(f"{device} was mounted at {self._point}, but takes no writes.", "See the kernel's log.")

    def _options(self) -> str:
        # Only a note for the init system: at a shutdown it is unmounted while network and mirror are still there.
        options = f"{self._resource.options},_netdev"
        # A damaged ext4 must be seen by `monitor`, not written on.
        if self._resource.fstype in {"ext4", "ext3"} and "errors=" not in options:
            options += ",errors=remount-ro"
        return options

    def _adopt(self, mount: Mount, number: tuple[int, int]) -> None:
        if mount.device != number:
            raise AgentFailed(
                f"At {self._point} another device is mounted ({mount.source}).", f"Unmount it: umount {self._point}."
            )
        if not mount.writable:
            raise AgentFailed(f"{self._point} is mounted, but takes no writes.", f"Unmount it: umount {self._point}.")

    async def _look(self, device: pathlib.Path, end: _Deadline) -> superblock.Found:
        mirror, wanted = self._resource.mirror, self._resource.fstype
        head = await read_head(device, end.left_s())
        found = superblock.identify(head)
        if found is None:
            what = "is blank" if superblock.is_blank(head) else "holds no file system that is known here"
            raise AgentFailed(
                f"The volume of mirror {mirror} {what}.",
                f"If it shall be used (what is on it is lost): relevo volume format {mirror}.",
            )
        if found.fstype != wanted:
            remedy = f'Write fstype = "{found.fstype}", if that is meant.'
            raise AgentFailed(f"The volume of mirror {mirror} holds {found.fstype}, not {wanted}.", remedy)
        return found

    async def _repair(self, device: pathlib.Path, end: _Deadline) -> None:
        _log.warning("filesystem_check", resource=self.id, device=str(device))
        done = await run_tool("e2fsck", "-p", str(device), limit_s=end.left_s())
        _log.warning("filesystem_checked", resource=self.id, status=done.status, output=done.words)
        if done.status & ~E2FSCK_CORRECTED:
            raise AgentFailed(
                f"The file system of mirror {self._resource.mirror} is damaged and e2fsck -p does not repair it: "
                f"{done.words}.",
                f"Put the node on standby, make the mirror primary and run e2fsck {device} by hand.",
            )

    async def stop(self) -> None:
        """Unmount: ask busy users to end, wait, kill, and then give up; never lazily.

        Raises:
            AgentFailed: it is still mounted; the sentence names who holds it.
        """
        end = _Deadline(self._resource.operation.stop_timeout_ms)
        for sent, share in ((None, 0.0), (signal.SIGTERM, ASK_SHARE), (signal.SIGKILL, KILL_SHARE)):
            if sent is not None:
                await self._clear(sent, end.share_s(share), end)
            if await self._unmounted(end):
                return
        mount = mounted_at(self._point)
        if mount is not None:
            holders = await aside(lambda: _holders(mount))
            raise AgentFailed(f"{self._point} cannot be unmounted: it is held by {holders}.", "End what holds it.")

    async def _unmounted(self, end: _Deadline) -> bool:
        """Unmount what is at the mountpoint, also if it was mounted twice; false when it is busy."""
        while mounted_at(self._point) is not None:
            done = await run_tool("umount", str(self._point), limit_s=end.left_s())
            if done.status and mounted_at(self._point) is not None:
                if b"busy" in done.output:
                    return False
                raise AgentFailed(f"{self._point} cannot be unmounted: {done.words}.", "See the kernel's log.")
        return True

    async def _clear(self, sent: signal.Signals, patience_s: float, end: _Deadline) -> None:
        """Send a signal to every user of the mount, and wait until none is left or the patience is over."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + min(patience_s, MAX_ASK_S, end.left_s())
        told: set[User] = set()
        while (mount := mounted_at(self._point)) is not None:
            users = await aside(lambda mount=mount: users_of(mount))  # type: ignore[misc]
            for user in set(users) - told:
                _log.warning("filesystem_user", resource=self.id, pid=user.pid, name=user.name, signal=sent.name)
                _signal(user, sent)
            told.update(users)
            if not users or loop.time() >= give_up:
                return
            await asyncio.sleep(BUSY_POLL_S)

    async def monitor(self) -> Health:
        """Mounted, taking writes, and answering to statfs."""
        mount = mounted_at(self._point)
        if mount is None:
            return STOPPED
        if not mount.writable:
            return failed(f"{self._point} has become read-only: the device below failed or the data is damaged.")
        limit_s = LIMIT_SHARE * self._resource.operation.monitor_timeout_ms / 1000
        try:
            done = await run_tool("stat", "--file-system", str(self._point), limit_s=limit_s)
        except AgentFailed as error:
            return failed(str(error))
        return failed(f"{self._point} does not answer: {done.words}.") if done.status else RUNNING


async def read_head(device: pathlib.Path, limit_s: float) -> bytes:
    """The first bytes of a device, read by a process that can be given up.

    Raises:
        AgentFailed: it cannot be read in time.
    """
    count = superblock.NEEDED_BYTES // 4096
    done = await run_tool("dd", f"if={device}", "bs=4096", f"count={count}", "status=none", limit_s=limit_s)
    if done.status:
        raise AgentFailed(f"{device} cannot be read: {done.words}.", "See the log of the mirror.")
    return done.output


def _block_device(path: pathlib.Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise AgentFailed(
            f"The device {path} is not there ({error.strerror}).", "See the log of the mirror."
        ) from error
    if not stat.S_ISBLK(status.st_mode):
        raise AgentFailed(f"{path} is not a block device.", "See the log of the mirror.")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _signal(user: User, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(user.pid)
        try:
            if identify(user.pid) == user:  # the id may belong to another process by now
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _holders(mount: Mount) -> str:
    names = [f"{user.name} (process {user.pid})" for user in users_of(mount)]
    names += [f"the mount {other.point}" for other in mounts_below(mount)]
    return ", ".join(names) or "the kernel (a loop device, swap or an export of a file on it)"


class _Deadline:
    """The end of an operation's time."""

    def __init__(self, limit_ms: int) -> None:
        self._whole_s = LIMIT_SHARE * limit_ms / 1000
        self._end = asyncio.get_running_loop().time() + self._whole_s

    def left_s(self) -> float:
        """What is left, in seconds."""
        return max(self._end - asyncio.get_running_loop().time(), BUSY_POLL_S)

    def share_s(self, share: float) -> float:
        """A share of the whole, in seconds."""
        return share * self._whole_s
