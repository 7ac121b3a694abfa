"""The watchdog device of this server: hardware, or the module softdog, that resets it when nobody pets it in time.

Numbers and behaviour are those of <linux/watchdog.h> and of the kernel's Documentation/watchdog/watchdog-api.rst:
opening the device starts it, writing anything pets it, a `V` written last before it is closed stops it where the driver
can (magic close). Nothing here runs by itself: the daemon pets after a completed round, so a loop that hangs does not.
"""

from __future__ import annotations

import abc
import fcntl
import os
import stat
import struct

import structlog

from relevo.base.control import Message
from relevo.base.units import format_duration_ms
from relevo.config.watchdog import LEAST_TIMEOUT_MS, WatchdogDevice

WDIOC_GETSUPPORT = 0x8028_5700
"""_IOR('W', 0, struct watchdog_info)"""
WDIOC_SETTIMEOUT = 0xC004_5706
"""_IOWR('W', 6, int): seconds; the driver writes back what it took."""
WDIOC_GETTIMEOUT = 0x8004_5707
"""_IOR('W', 7, int)"""
WDIOF_MAGICCLOSE = 0x0100
_INFO = struct.Struct("=II32s")
"""struct watchdog_info: options, firmware_version, identity."""
_INT = struct.Struct("=i")
_PET, _MAGIC = b"\0", b"V"
RETRY_MS = 5000
"""Pause after the device could not be opened."""
_log = structlog.get_logger()


class Watchdog(abc.ABC):
    """What is petted after each completed round.

    Attributes:
        trouble: why it protects nothing, one sentence; empty when it does, or when there is none.
    """

    trouble = ""

    @abc.abstractmethod
    def pet(self, now_ms: int) -> None:
        """A round is complete. `now_ms` is this server's clock."""

    @abc.abstractmethod
    def close(self, *, disarm: bool) -> None:
        """The daemon ends. Disarmed it resets nobody; else the next daemon has to pet it in time."""

    @abc.abstractmethod
    def state(self) -> Message | None:
        """Part of the status; None where there is none."""


class Null(Watchdog):
    """There is none."""

    def pet(self, now_ms: int) -> None:
        """Nothing to do."""

    def close(self, *, disarm: bool) -> None:
        """Nothing to do."""

    def state(self) -> Message | None:
        """None."""
        return None


class Device(Watchdog):
    """A device file, or a FIFO in its place whose reader does the job (the lab's is one).

    Args:
        settings: which, and how long it waits.
    """

    def __init__(self, settings: WatchdogDevice) -> None:
        self._settings = settings
        self._fd = -1
        self._identity = ""
        self._timeout_ms = 0
        self._stoppable = False
        self._verdict = ""
        self._tried_ms: int | None = None

    def pet(self, now_ms: int) -> None:
        """Arms it the first time."""
        if self._fd < 0:
            if self._tried_ms is not None and now_ms - self._tried_ms < RETRY_MS:
                return
            self._tried_ms = now_ms
            self._open()
        if self._fd >= 0:
            self._write(_PET)

    def close(self, *, disarm: bool) -> None:
        """Magic close, where nothing is protected any more."""
        if self._fd < 0:
            return
        if disarm:
            self._write(_MAGIC)
        else:
            _log.warning("watchdog_goes_on", timeout_ms=self._timeout_ms)
        os.close(self._fd)
        self._fd = -1

    def state(self) -> Message | None:
        """Device, what the driver calls itself, timeout, whether it runs, what is wrong."""
        return {
            "device": str(self._settings.device),
            "identity": self._identity,
            "timeout_ms": self._timeout_ms,
            "armed": self._fd >= 0,
            "stoppable": self._stoppable,
            "trouble": self.trouble,
        }

    def _open(self) -> None:
        device = self._settings.device
        fd = -1
        try:
            mode = device.stat().st_mode
            if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
                self._note("is no device: nothing is written to it.")
                return
            fd = os.open(device, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if stat.S_ISCHR(mode):
                options, _, identity = _INFO.unpack(fcntl.ioctl(fd, WDIOC_GETSUPPORT, bytes(_INFO.size)))
        except OSError as error:  # EBUSY: somebody else has it, such as systemd (RuntimeWatchdogSec)
            self._note(f"cannot be used ({error.strerror or error}).")
            if fd >= 0:
                os.close(fd)  # it is no watchdog, and gets nothing written
            return
        self._fd = fd
        if stat.S_ISFIFO(mode):
            self._identity, self._timeout_ms, self._stoppable = "FIFO", self._settings.timeout_ms, True
        else:
            self._identity = identity.partition(b"\0")[0].decode(errors="replace")
            self._stoppable = bool(options & WDIOF_MAGICCLOSE)
            self._timeout_ms = self._set_timeout()
        self._judge()

    def _set_timeout(self) -> int:
        """How long it waits from now on, in milliseconds; 0: it does not say."""
        try:
            fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, _INT.pack(self._settings.timeout_ms // 1000))
        except OSError as error:  # one that waits as long as it was built for; what counts is what it says next
            _log.warning("watchdog_timeout_not_set", why=error.strerror)
        try:
            (seconds,) = _INT.unpack(fcntl.ioctl(self._fd, WDIOC_GETTIMEOUT, bytes(_INT.size)))
        except OSError:
            return 0
        return int(1000 * seconds)

    def _judge(self) -> None:
        """One that does not do what it was asked for is named; one that would reset a healthy server is stopped."""
        waits = (
            f"waits {format_duration_ms(self._timeout_ms)}" if self._timeout_ms else "does not say how long it waits"
        )
        self._verdict = ""
        if self._timeout_ms < LEAST_TIMEOUT_MS:
            self._verdict = f"{waits} and may reset a busy server: it is not used."
            self.close(disarm=True)
        elif self._timeout_ms > self._settings.longest_ms:
            longest = format_duration_ms(self._settings.longest_ms)
            self._verdict = (
                f"{waits}, longer than deadtime less keepalive ({longest}): the other node takes over before."
            )
        self._note(self._verdict)
        if self._fd >= 0:
            _log.info("watchdog_armed", identity=self._identity, timeout_ms=self._timeout_ms)

    def _write(self, what: bytes) -> None:
        try:
            os.write(self._fd, what)
        except OSError as error:
            self._note(f"does not take what is written to it ({error.strerror or error}).")
        else:
            self._note(self._verdict)

    def _note(self, what: str) -> None:
        trouble = f"The watchdog {self._settings.device} {what}" if what else ""
        if trouble and trouble != self.trouble:
            _log.warning("watchdog_useless", why=trouble)
        self.trouble = trouble


def watchdog_of(settings: WatchdogDevice | None) -> Watchdog:
    """The one that is configured."""
    return Null() if settings is None else Device(settings)
