"""A real systemd as PID 1 of a PID namespace inside a machine of the lab, with the few units of its own that it needs.

It sees the machine's files, network and `/run`; what it mounts, the machine sees too, so a power cut of the machine
takes it away like everything else. Nothing of it reaches the host: it has a control group tree and a `/proc` of its
own, and its search path holds no unit that would touch the kernel (sysctl, modules, udev).
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess

from relevo.lab.lab import Lab
from relevo.lab.process import wait_until

PROGRAM = pathlib.Path("/lib/systemd/systemd")
_VENDOR = pathlib.Path("/lib/systemd/system")
_UNITS = (
    *(
        "basic",
        "default",
        "final",
        "local-fs-pre",
        "local-fs",
        "multi-user",
        "network-online",
        "network-pre",
        "network",
    ),
    *("paths", "poweroff", "remote-fs-pre", "remote-fs", "shutdown", "slices", "sockets", "swap", "sysinit", "timers"),
    *("umount", "dbus.service", "dbus.socket", "system-systemd.slice", "systemd-poweroff.service"),
    *("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"),
)
"""Those without an ending are targets."""
_NAMES = " ".join(name if "." in name else f"{name}.target" for name in _UNITS)
_FOLDER = "/run/systemd-units"
_BOOT = f"""
set -e
mount --make-rprivate /proc
mount --make-rprivate /sys
mount -t proc proc /proc
[ ! -e /proc/sysrq-trigger ] || mount --bind /run/sysrq-trigger /proc/sysrq-trigger
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p {_FOLDER} /etc/systemd /etc/systemd/journald.conf.d
for unit in {_NAMES} $MORE_UNITS; do [ ! -e {_VENDOR}/$unit ] || ln -s {_VENDOR}/$unit {_FOLDER}/$unit; done
ln -sf multi-user.target {_FOLDER}/default.target
for unit in systemd-journald.service dbus.socket; do
    mkdir -p {_FOLDER}/sysinit.target.wants; ln -s {_VENDOR}/$unit {_FOLDER}/sysinit.target.wants/
done
cat > /etc/systemd/system.conf <<END
[Manager]
DefaultEnvironment="RELEVO_SYSRQ_MASK=required" "RELEVO_SYSRQ_STAND_IN=/run/sysrq-trigger" "PATH=$PATH"
END
printf '[Journal]\\nAudit=no\\nReadKMsg=no\\nStorage=volatile\\n' > /etc/systemd/journald.conf.d/lab.conf
export container=lab SYSTEMD_UNIT_PATH=/run/systemd/system:/etc/systemd/system:{_FOLDER} SYSTEMD_GENERATOR_PATH=
exec {PROGRAM} --system --log-target=journal --show-status=no
"""
_START_LIMIT_S = 20.0


def missing() -> str:
    """Why it cannot be had here; empty when it can."""
    if not PROGRAM.exists():
        return "the package systemd is not installed"
    if shutil.which("dbus-daemon") is None:
        return "the package dbus is not installed"
    probe = ["unshare", "--mount", "--cgroup", "mount", "-t", "cgroup2", "cgroup2", "/mnt"]
    done = subprocess.run(probe, capture_output=True, check=False)
    return "" if done.returncode == 0 else "no control group tree (cgroup2) can be mounted here"


class SystemdMachine:
    """systemd in a machine of a lab that is on.

    Args:
        lab: the lab.
        name: the machine.
        log: a file that gets what it says before it has a journal.
        more: further units of the distribution that it may find.
    """

    def __init__(self, lab: Lab, name: str, log: pathlib.Path, more: tuple[str, ...] = ()) -> None:
        self.name = name
        self._lab = lab
        lab.run(name, ["mount", "--make-rshared", "/"], check=True)
        unshare = ["unshare", "--mount", "--propagation", "unchanged", "--pid", "--cgroup", "--fork", "--kill-child"]
        with log.open("ab") as output:
            self._process = lab.popen(
                name, [*unshare, "sh", "-c", _BOOT], stdout=output, stderr=output, env={"MORE_UNITS": " ".join(more)}
            )
        self._pid = 0
        assert wait_until(self._is_there, _START_LIMIT_S, 0.05), log.read_text()

    def _is_there(self) -> bool:
        if not self._pid:
            self._pid = self._find()
        return bool(self._pid) and self.run("systemctl", "is-active", "dbus.socket").returncode == 0

    def _find(self) -> int:
        """Its number as the machine counts: the process whose program is systemd and whose parent is `unshare`."""
        done = self._lab.run(self.name, ["pgrep", "-x", "systemd"], capture=True)
        numbers = done.stdout.split()
        return int(numbers[0]) if numbers else 0

    def run(self, *argv: str, check: bool = False, timeout_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run a command beside its units."""
        enter = ["nsenter", "-t", str(self._pid), "-m", "-p", "-C", "--"]
        return self._lab.run(self.name, [*enter, *argv], capture=True, check=check, timeout_s=timeout_s)

    def popen(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command beside its units."""
        enter = ["nsenter", "-t", str(self._pid), "-m", "-p", "-C", "--"]
        return self._lab.popen(self.name, [*enter, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run systemctl; what it prints."""
        return self.run("systemctl", *words, check=check).stdout.decode().strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def journal(self) -> str:
        """Everything that it and its units have said, also after its end."""
        read = ["journalctl", "--no-pager", "--output", "short-monotonic", "--directory", "/run/log/journal"]
        return self._lab.run(self.name, read, capture=True).stdout.decode(errors="replace")

    def close(self) -> None:
        """When the machine's power was cut: nothing of it is left."""
        self._process.wait(_START_LIMIT_S)

    def power_off(self, limit_s: float = 90.0) -> None:
        """`systemctl poweroff`, and wait until it is off."""
        self.run("systemctl", "poweroff")
        self._process.wait(limit_s)
