"""Network namespaces on one switch, for tests and measurements of programs that talk to each other."""

from __future__ import annotations

import itertools
import os
import subprocess

_numbers = itertools.count()


def run(*command: str, check: bool = True, limit_s: float = 30.0) -> str:
    """Run a command; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, stdin=subprocess.DEVNULL)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Cable:
    """One namespace for each name, with the card eth1, all on one switch.

    Args:
        addresses: name -> IPv4 address (/24).
    """

    def __init__(self, addresses: dict[str, str]) -> None:
        number = f"{os.getpid()}-{next(_numbers)}"
        self.namespaces = {name: f"rm{number}{name[-1]}" for name in addresses}
        self._switch = f"rm{number}s"
        run("ip", "netns", "add", self._switch)
        run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", "bridge", "up")
        for name, address in addresses.items():
            namespace = self.namespaces[name]
            run("ip", "netns", "add", namespace)
            peer = ("peer", "name", "eth1", "netns", namespace)
            run("ip", "-n", self._switch, "link", "add", name, "type", "veth", *peer)
            run("ip", "-n", self._switch, "link", "set", name, "master", "bridge", "up")
            run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth1")
            for card in ("lo", "eth1"):
                run("ip", "-n", namespace, "link", "set", card, "up")

    def cut(self, name: str) -> None:
        """Silence on one's cable: no packet passes, no connection is closed."""
        run("ip", "-n", self._switch, "link", "set", name, "nomaster")

    def heal(self, name: str) -> None:
        """Packets pass again."""
        run("ip", "-n", self._switch, "link", "set", name, "master", "bridge")

    def close(self) -> None:
        """Take everything away."""
        for namespace in (*self.namespaces.values(), self._switch):
            run("ip", "netns", "del", namespace, check=False)
