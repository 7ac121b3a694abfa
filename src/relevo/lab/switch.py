"""The network of a lab: a network namespace with a bridge for each of its two networks, kept by a small process.

The namespace has no address, so what arrives at a port that is in no bridge ends there in silence: that is `cut`. The
cards of the machines are veth pairs; the end called MACHINE-CARD is the port, in this namespace.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

from relevo.lab import kernel
from relevo.lab.errors import LabFailed
from relevo.lab.folder import LabFolder
from relevo.lab.process import Process, become_daemon, open_log
from relevo.lab.scene import ADDRESSES, BRIDGES, mac_address

_RECORD = "switch.json"
_CUTS = "cut.json"
SILENT = "silent"
UNPLUGGED = "unplugged"
CONNECTED = "connected"


def _ip(namespace_of: Process, lines: list[str], *, forgiving: bool = False) -> None:
    """Run a batch of `ip` commands in the network namespace of a process."""
    force = ["-force"] if forgiving else []
    argv = ["nsenter", f"--net=/proc/{namespace_of.pid}/ns/net", "ip", *force, "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(lines).encode() + b"\n", capture_output=True)
    if done.returncode != 0 and not forgiving:
        raise LabFailed(f"The lab's network refuses a command: {done.stderr.decode(errors='replace').strip()}.")


class Switch:
    """The two networks, and the cables to them."""

    def __init__(self, folder: LabFolder) -> None:
        self._folder = folder

    def start(self) -> None:
        """Make the namespace and its bridges."""
        self._folder.spawn("relevo.lab.switch", str(self._folder.path))
        lines = []
        for bridge in BRIDGES.values():
            lines += [f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up"]
        _ip(self._keeper(), lines)

    @property
    def running(self) -> bool:
        """Whether the namespace is there."""
        return self._folder.process(_RECORD) is not None

    def _keeper(self) -> Process:
        keeper = self._folder.process(_RECORD)
        if keeper is None:
            raise LabFailed(
                "The lab's network is gone: its process was killed.", f"{self._folder.order('down')}, then up again."
            )
        return keeper

    def plug_in(self, machine: str, process: Process) -> None:
        """Give a machine that was just switched on its network cards; a cable that was cut stays cut."""
        outside, inside = [], ["link set lo up"]
        for card, address in ADDRESSES[machine].items():
            mac = mac_address(self._folder.name, machine, card)
            peer = f"peer name {card} address {mac} netns {process.pid}"
            outside.append(f"link add {machine}-{card} type veth {peer}")
            inside += [f"address add {address} broadcast + dev {card}", f"link set {card} up"]
        _ip(self._keeper(), outside)
        _ip(process, inside)
        _ip(self._keeper(), [line for card in ADDRESSES[machine] for line in self._wanted(machine, card)])

    def power_off(self, machine: str) -> None:
        """No packet passes from or to a machine any more, at once; it does not notice."""
        self._try([f"link set {machine}-{card} nomaster" for card in ADDRESSES[machine]])

    def unplug(self, machine: str) -> None:
        """Take the network cards of a machine that is off away."""
        self._try([f"link del {machine}-{card}" for card in ADDRESSES[machine]])

    def _try(self, lines: list[str]) -> None:
        keeper = self._folder.process(_RECORD)
        if keeper is not None:  # without it there is no port any more
            _ip(keeper, lines, forgiving=True)

    def cut(self, machine: str, cards: list[str], *, cable: bool) -> None:
        """Cut links; `cable` means that the machine sees its carrier drop, else there is only silence."""
        self._change(machine, dict.fromkeys(cards, UNPLUGGED if cable else SILENT))

    def heal(self, machine: str, cards: list[str]) -> None:
        """Undo `cut`."""
        self._change(machine, dict.fromkeys(cards, CONNECTED))

    def _change(self, machine: str, wanted: dict[str, str]) -> None:
        cuts = self._folder.load(_CUTS, {})
        cuts.update({f"{machine}-{card}": how for card, how in wanted.items()})
        self._folder.save(_CUTS, cuts)
        present = self._ports()
        lines = [line for card in wanted if f"{machine}-{card}" in present for line in self._wanted(machine, card)]
        if lines:
            _ip(self._keeper(), lines)

    def _wanted(self, machine: str, card: str) -> list[str]:
        port = f"{machine}-{card}"
        match self.state(machine, card):
            case "silent":
                return [f"link set {port} nomaster", f"link set {port} up"]
            case "unplugged":
                return [f"link set {port} down", f"link set {port} nomaster"]
            case _:
                return [f"link set {port} master {BRIDGES[card]}", f"link set {port} up"]

    def state(self, machine: str, card: str) -> str:
        """`connected`, `silent` or `unplugged`."""
        return str(self._folder.load(_CUTS, {}).get(f"{machine}-{card}", CONNECTED))

    def _ports(self) -> set[str]:
        argv = ["nsenter", f"--net=/proc/{self._keeper().pid}/ns/net", "ip", "-json", "link", "show", "type", "veth"]
        done = subprocess.run(argv, capture_output=True)
        found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
        return {link["ifname"] for link in found}


def main(argv: list[str]) -> None:
    """Keep a network namespace until killed."""
    folder = pathlib.Path(argv[1])
    log = open_log(folder / "switch.log")
    birth = become_daemon()
    kernel.unshare(kernel.CLONE_NEWNET)
    off = pathlib.Path("/proc/sys/net/ipv6/conf")
    for which in ("all", "default"):  # a switch does not speak
        if (off / which).exists():
            (off / which / "disable_ipv6").write_text("1")
    own = Process.of(os.getpid())
    assert own is not None
    beside = folder / "switch.json.new"
    beside.write_text(json.dumps({"pid": own.pid, "start": own.start}))
    beside.replace(folder / _RECORD)
    birth.ready(log)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv)
