"""The three cluster managers that are compared: an address and Apache, nothing else, on two lab servers.

All with the same agents (IPaddr2 or what takes its place, Debian's /etc/init.d/apache2), the same page, the same
silence after which a server counts as dead. Heartbeat and Relevo read the same historic ha.cf and haresources;
Pacemaker gets a group of the same two resources, and Corosync a token that is lost after the same time.
"""

from __future__ import annotations

import abc
import pathlib
import shutil
import subprocess

from lab_shell import put, shell
from relevo.lab.lab import Lab, Unit
from relevo.lab.process import wait_until
from relevo.lab.scene import ADDRESSES, SERVERS, SERVICE_UNITS, VIRTUAL_IP

DEADTIME_S = 2
STEP_LIMIT_S = 60.0
HEARTBEAT = pathlib.Path("/usr/libexec/heartbeat/heartbeat")
APACHE = "/etc/init.d/apache2"
HISTORIC = pathlib.Path(__file__).parent.parent / "tests" / "data" / "historic" / "ha.d"
TIMES = {
    "keepalive 2": "keepalive 200ms",
    "deadtime 30": f"deadtime {DEADTIME_S}",
    "warntime 10": "warntime 1",
    "initdead 120": "initdead 4",
}
ADDRESS_WORD = f"IPaddr2::{VIRTUAL_IP}/24/eth0"
RUN_FOLDERS = """
install -d -o hacluster -g haclient -m 750 /run/heartbeat /run/heartbeat/crm /run/heartbeat/ccm /run/heartbeat/dopd
install -d -m 1755 /run/heartbeat/rsctmp /run/resource-agents
"""
COROSYNC = f"""\
totem {{
 version: 2
 cluster_name: oficina
 transport: knet
 token: {DEADTIME_S * 1000}
 crypto_cipher: none
 crypto_hash: none
}}
nodelist {{
@NODES@}}
quorum {{
 provider: corosync_votequorum
 two_node: 1
 wait_for_all: 0
}}
logging {{
 to_stderr: yes
 to_logfile: no
 to_syslog: no
}}
"""
NODE = " node {{\n  name: {name}\n  nodeid: {number}\n  ring0_addr: {address}\n }}\n"
CIB = f"""\
<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1"><configuration>
<crm_config><cluster_property_set id="options"><nvpair id="o1" name="stonith-enabled" value="false"/>
<nvpair id="o2" name="dc-deadtime" value="2s"/></cluster_property_set></crm_config><nodes/>
<resources><group id="web">
<primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="i1">
<nvpair id="i11" name="ip" value="{VIRTUAL_IP}"/><nvpair id="i12" name="cidr_netmask" value="24"/>
</instance_attributes></primitive>
<primitive id="apache" class="lsb" type="apache2"/></group></resources>
<constraints><rsc_location id="c1" rsc="web" node="nodo1" score="50"/></constraints>
</configuration><status/></cib>
"""


class Contender(abc.ABC):
    """One cluster manager on both servers of a lab that is up and runs nothing yet."""

    name: str

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @abc.abstractmethod
    def prepare(self) -> None:
        """Write the configuration on both servers."""

    @abc.abstractmethod
    def start(self, node: str) -> None:
        """Start its daemons on a server that is on."""

    @abc.abstractmethod
    def leave(self, node: str) -> None:
        """Begin to hand everything over and stop on one server, as an administrator does before maintenance."""

    @abc.abstractmethod
    def ended(self, node: str) -> None:
        """Wait until the daemons of a server that leaves are gone, so that they can be started again."""

    @classmethod
    def missing(cls) -> str:
        """The Debian packages that it needs and that are not there."""
        return ""

    @abc.abstractmethod
    def close(self) -> None:
        """After the lab is down."""

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a shell script in a machine; what it printed."""
        return shell(self.lab, node, script, check=check)

    def put(self, node: str, path: str, text: str, mode: str = "600") -> None:
        """Write a file in a machine."""
        put(self.lab, node, path, text, mode)

    def holds(self, node: str) -> bool:
        """Whether the address is on a server."""
        return f" {VIRTUAL_IP}/" in self.shell(node, "ip -br -4 address show dev eth0", check=False)

    def wait_for_service(self, node: str) -> None:
        """Until the address is on a server and its web server answers there."""
        ask = f"curl -s -o /dev/null -m 1 -w '%{{http_code}}' http://{VIRTUAL_IP}/"

        def up() -> bool:
            return self.holds(node) and self.shell("client", ask, check=False) == "200"

        assert wait_until(up, STEP_LIMIT_S), f"{self.name}: no service on {node} after {STEP_LIMIT_S} s"

    def pages(self) -> None:
        """Each server has its page."""
        for number, node in enumerate(SERVERS, 1):
            self.put(node, "/var/www/html/index.html", f"CLUSTER 0{number} Funciona\n", "644")


class Historic(Contender):
    """Both that read Heartbeat's files."""

    words = f"nodo1 {ADDRESS_WORD} apache2\n"

    def prepare(self) -> None:
        """The historic files, with shorter times."""
        ha_cf = (HISTORIC / "ha.cf").read_text()
        for before, after in TIMES.items():
            assert before in ha_cf
            ha_cf = ha_cf.replace(before, after)
        for node, other in zip(SERVERS, ("192.168.0.28", "192.168.0.27"), strict=True):
            self.put(node, "/etc/ha.d/ha.cf", ha_cf.replace("192.168.0.28", other))
            self.put(node, "/etc/ha.d/authkeys", "auth 1\n1 crc\n")
            self.put(node, "/etc/ha.d/haresources", self.words)
        self.pages()


class Ours(Historic):
    """Relevo, configured by `relevo import`."""

    name = "Relevo"

    def prepare(self) -> None:
        """Import what Heartbeat would read."""
        super().prepare()
        where = " ".join(f"--address {node}={ADDRESSES[node]['eth0'].partition('/')[0]}" for node in SERVERS)
        for node in SERVERS:
            self.shell(node, "rm -f /etc/relevo/relevo.toml /etc/relevo/authkeys /etc/ha.d/resource.d/apache2")
            self.shell(node, f"relevo import /etc/ha.d {where} --into /etc/relevo && relevo check")
            self.lab.define(node, [unit for unit in SERVICE_UNITS if unit.name in {"heartbeat", "node"}])

    def start(self, node: str) -> None:
        for name in ("heartbeat", "node"):
            self.lab.unit(node, name, "start")

    def leave(self, node: str) -> None:
        self.shell(node, "relevo leave")

    def ended(self, node: str) -> None:
        for name in ("node", "heartbeat"):
            self.lab.unit(node, name, "stop")

    def close(self) -> None:
        """Nothing is left."""


class OursApacheOnBoth(Ours):
    """Relevo with the address as its only resource: the web server runs on both servers all the time."""

    name = "Relevo, Apache kept running on both"
    words = f"nodo1 {ADDRESS_WORD}\n"

    def start(self, node: str) -> None:
        self.shell(node, f"{APACHE} status >/dev/null || {APACHE} start")
        super().start(node)


class Original(Historic):
    """Debian's Heartbeat."""

    name = "Heartbeat"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._daemons: list[tuple[str, subprocess.Popen[bytes]]] = []

    @classmethod
    def missing(cls) -> str:
        return "" if HEARTBEAT.exists() else "heartbeat"

    def start(self, node: str) -> None:
        self.shell(node, RUN_FOLDERS)
        argv = ["sh", "-c", f"exec {HEARTBEAT} -f >/dev/null 2>&1"]
        self._daemons.append((node, self.lab.popen(node, argv, stdin=subprocess.DEVNULL)))

    def leave(self, node: str) -> None:
        self.lab.popen(node, [str(HEARTBEAT), "-k"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).wait()

    def ended(self, node: str) -> None:
        for name, daemon in self._daemons:
            if name == node:
                daemon.wait(STEP_LIMIT_S)

    def close(self) -> None:
        for _, daemon in self._daemons:
            daemon.wait(STEP_LIMIT_S)


class Pacemaker(Contender):
    """Debian's Pacemaker and Corosync."""

    name = "Pacemaker/Corosync"
    units = (
        Unit(name="corosync", argv=("corosync", "-f")),
        Unit(
            name="pacemaker", argv=("sh", "-c", "PCMK_logfile=/var/log/pacemaker.log exec pacemakerd >/dev/null 2>&1")
        ),
    )

    @classmethod
    def missing(cls) -> str:
        packages = {"pacemakerd": "pacemaker", "corosync": "corosync", "crm_mon": "pacemaker-cli-utils"}
        return " ".join(package for program, package in packages.items() if shutil.which(program) is None)

    def prepare(self) -> None:
        nodes = "".join(
            NODE.format(name=name, number=number, address=ADDRESSES[name]["eth0"].partition("/")[0])
            for number, name in enumerate(SERVERS, 1)
        )
        for node in SERVERS:
            self.put(node, "/etc/corosync/corosync.conf", COROSYNC.replace("@NODES@", nodes), "644")
            self.put(node, "/var/lib/pacemaker/cib/cib.xml", CIB)
            self.shell(node, "chown hacluster:haclient /var/lib/pacemaker/cib/cib.xml")
            self.lab.define(node, self.units)
        self.pages()

    def start(self, node: str) -> None:
        for unit in self.units:
            self.lab.unit(node, unit.name, "start")

    def leave(self, node: str) -> None:
        self.lab.unit(node, "pacemaker", "stop")

    def ended(self, node: str) -> None:
        self.lab.unit(node, "corosync", "stop")

    def close(self) -> None:
        """Nothing is left."""


CONTENDERS: tuple[type[Contender], ...] = (Ours, OursApacheOnBoth, Original, Pacemaker)
