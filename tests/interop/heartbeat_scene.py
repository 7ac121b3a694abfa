"""A pair of which one server runs Relevo and the other one Debian's Heartbeat 3, both from the same historic files.

Two programs stand for the services, one for each server: scripts that note outside of the machines where they run, and
complain there when they are started while they run on the other server.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

from lab_shell import put, shell
from relevo.base.control import call
from relevo.base.errors import RelevoError
from relevo.lab.lab import Lab
from relevo.lab.process import wait_until
from relevo.lab.scene import ADDRESSES, SERVERS, SERVICE_UNITS

HEARTBEAT = pathlib.Path("/usr/libexec/heartbeat/heartbeat")
STEP_S = 45.0
MEDIA = "bcast eth0\nucast eth0 {peer}"
HA_CF = """\
logfile /var/log/ha-log
keepalive {keepalive}
warntime 1
deadtime 2
initdead 5
udpport 694
{media}
auto_failback {failback}
crm no
node nodo1
node nodo2
"""
HARESOURCES = """\
nodo1 IPaddr2::192.168.0.29/24/eth0 uno
nodo2 IPaddr2::192.168.0.31/24/eth0 dos
"""
ADDRESS_OF = {"uno": "192.168.0.29", "dos": "192.168.0.31"}
HOME = {"uno": "nodo1", "dos": "nodo2"}
SCRIPT = """\
#!/bin/sh
here=$(uname -n) ledger={ledger} mark=/run/test-{name}
case $1 in
start)
    [ -e $mark ] && exit 0
    mkdir $ledger/{name} 2>/dev/null || echo "{name}: $here, and $(cat $ledger/{name}/at)" >> $ledger/twice
    echo $here > $ledger/{name}/at
    touch $mark ;;
stop)
    [ -e $mark ] || exit 0
    rm -f $mark
    rm -r $ledger/{name} ;;
status) [ -e $mark ] && echo running || {{ echo stopped; exit 3; }} ;;
esac
"""
RUN_FOLDERS = """
install -d -o hacluster -g haclient -m 750 /run/heartbeat /run/heartbeat/crm /run/heartbeat/ccm /run/heartbeat/dopd
install -d -m 1755 /run/heartbeat/rsctmp /run/resource-agents
"""


class MixedPair:
    """Both servers, nothing started yet.

    Args:
        lab: its machines are up.
        ours: the server that runs Relevo.
        failback: what ha.cf says.
        keepalive: of ha.cf.
        media: its lines that say where heartbeats go.
    """

    def __init__(
        self, lab: Lab, *, ours: str, failback: str = "on", keepalive: str = "200ms", media: str = MEDIA
    ) -> None:
        self.lab = lab
        self._ledger = lab.shared
        self._legacy = failback == "legacy"
        self.relevo = {ours}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._defined: set[str] = set()
        self._on: set[str] = set()
        for node in SERVERS:
            peer = next(other for other in SERVERS if other != node)
            address = ADDRESSES[peer]["eth0"].partition("/")[0]
            lines = media.format(peer=address)
            put(self.lab, node, "/etc/ha.d/ha.cf", HA_CF.format(media=lines, failback=failback, keepalive=keepalive))
            put(self.lab, node, "/etc/ha.d/haresources", HARESOURCES)
            put(self.lab, node, "/etc/ha.d/authkeys", "auth 1\n1 sha1 sesame\n")
            for name in HOME:
                script = SCRIPT.format(name=name, ledger=self._ledger)
                put(self.lab, node, f"/etc/ha.d/resource.d/{name}", script, "755")
            self.shell(node, "rm -rf /var/lib/heartbeat/hb_* /var/log/ha-log")
            self.install(node)

    # --- machines -----------------------------------------------------------------------------------------------------

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a shell script in a machine; what it printed."""
        return shell(self.lab, node, script, check=check)

    def install(self, node: str) -> None:
        """Relevo's configuration, from the historic files."""
        where = " ".join(f"--address {name}=192.168.0.{27 + number}" for number, name in enumerate(SERVERS))
        self.shell(node, "rm -f /etc/relevo/relevo.toml /etc/relevo/authkeys")
        self.shell(node, f"relevo import /etc/ha.d {where} --into /etc/relevo && relevo check")

    # --- start, stop, crash -------------------------------------------------------------------------------------------

    def start(self, *nodes: str) -> None:
        """Start what a server runs."""
        for node in nodes:
            self._on.add(node)
            if node in self.relevo:
                if node not in self._defined:
                    self.lab.define(node, [unit for unit in SERVICE_UNITS if unit.name in {"heartbeat", "node"}])
                    self._defined.add(node)
                for name in ("heartbeat", "node"):
                    self.lab.unit(node, name, "start")
            else:
                self.shell(node, RUN_FOLDERS)
                argv = ["sh", "-c", f"exec {HEARTBEAT} -f >/dev/null 2>&1"]
                self._daemons[node] = self.lab.popen(node, argv, stdin=subprocess.DEVNULL)

    def stop(self, node: str) -> None:
        """An orderly stop, as an administrator does it."""
        self._on.discard(node)
        if node in self.relevo:
            self.shell(node, "relevo leave")
            for name in ("node", "heartbeat"):
                self.lab.unit(node, name, "stop")
        else:
            self.shell(node, f"{HEARTBEAT} -k >/dev/null 2>&1 </dev/null")
            self._daemons.pop(node).wait(STEP_S)

    def crash(self, node: str) -> None:
        """Cut the power; what ran there runs no more."""
        here = [name for name, where in self.places().items() if where == node]
        self._on.discard(node)
        self.lab.crash(node)
        if (daemon := self._daemons.pop(node, None)) is not None:
            daemon.wait(STEP_S)
        for name in here:
            (self._ledger / name / "at").unlink()
            (self._ledger / name).rmdir()

    def boot(self, node: str) -> None:
        """Power on; the start of what it runs included."""
        self.lab.boot(node)
        self._on.add(node)
        if node not in self.relevo:
            self.start(node)

    def close(self) -> None:
        """End what was started."""
        self.lab.down()
        for daemon in self._daemons.values():
            daemon.wait(STEP_S)

    # --- what is ------------------------------------------------------------------------------------------------------

    @property
    def ours(self) -> str:
        """A server with Relevo."""
        return min(self.relevo)

    @property
    def original(self) -> str:
        """The server with Heartbeat 3; the other one where there is none."""
        return next(node for node in reversed(SERVERS) if node != self.ours)

    def places(self) -> dict[str, str]:
        """Service -> the server on which its script says that it runs; empty: nowhere."""
        found = {}
        for name in HOME:
            try:
                found[name] = (self._ledger / name / "at").read_text().strip()
            except FileNotFoundError:
                found[name] = ""
        return found

    def twice(self) -> str:
        """The complaints of the scripts."""
        path = self._ledger / "twice"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any]:
        """Relevo's view."""
        return self._ask("node")

    def talk(self) -> dict[str, Any]:
        """What our heartbeats know of the original."""
        return dict(self._ask("heartbeat").get("peers", {}).get(self.original, {}))

    def _ask(self, daemon: str, node: str = "") -> dict[str, Any]:
        with contextlib.suppress(RelevoError):
            return call(self.lab.path(node or self.ours, f"/run/relevo/{daemon}.sock"), "status", timeout_s=10)
        return {}

    def log(self) -> str:
        """What the original wrote."""
        return self.shell(self.original, "cat /var/log/ha-log", check=False)

    def sent(self) -> int:
        """How many copies of the original's messages came: each is sent by bcast and by ucast."""
        counters = self._ask("heartbeat").get("counters", {})
        return int(counters.get("duplicate", 0))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Nothing announces what Heartbeat does."""
        assert wait_until(condition, STEP_S), f"not in {STEP_S} s: {what}\n{self.tell()}"

    def settled(self, **places: str) -> None:
        """Wait until the services are where they should be, for good, and never were on both."""
        if not wait_until(lambda: self.places() == places and not self._restless(places), STEP_S):
            where = f"{self.places()} instead of {places}, {self._restless(places)}"
            raise AssertionError(f"not in {STEP_S} s: {where}\n{self.tell()}")
        assert not self.twice(), f"{self.twice()}\n{self.tell()}"

    def _restless(self, places: dict[str, str]) -> str:
        """What is still on its way, as either side knows it; empty: nothing."""
        if not self.running >= self._on:
            return f"{self._on - self.running} is not there yet"
        if len(self.relevo) == len(SERVERS) or len(self._on) < len(SERVERS):
            return ""
        told = self.talk().get("original") or {}
        held = {group: "held" if places[name] == self.original else "free" for name, group in self._groups().items()}
        if told.get("talk") != "not" or told.get("groups") != held:
            return f"ours knows {told}"
        if self._legacy:
            return ""  # it does not know what it holds
        said = self.shell(self.original, "/usr/bin/cl_status rscstatus", check=False).strip()
        return "" if said == self._word(places) else f"the original says {said!r}"

    def _groups(self) -> dict[str, str]:
        return {name: "ours" if home == self.ours else "theirs" for name, home in HOME.items()}

    def _word(self, places: dict[str, str]) -> str:
        """As the original calls what it holds."""
        mine = {
            "local" if HOME[name] == self.original else "foreign" for name, at in places.items() if at == self.original
        }
        return "all" if len(mine) == len(HOME) else next(iter(mine), "none")

    @property
    def running(self) -> set[str]:
        """The servers whose software runs, as far as this side knows."""
        return set(self._daemons) | {node for node in self.relevo if self._ask("node", node)}

    def tell(self) -> str:
        """What helps when a case fails."""
        with contextlib.suppress(Exception):
            status = self.shell(self.ours, "relevo status; relevo heartbeat status", check=False)
            return f"{self.places()} {self.twice()}\n{status}\n{self.log()[-6000:]}\n{self.lab.logs(self.ours)[-3000:]}"
        return "nothing can be told"
