"""Two lab machines run by the real Pacemaker and Corosync, with our agents for the mirror and the file service.

Both are started by hand, or by a real systemd; `/etc/corosync`, `/var/lib/pacemaker` and `/run` are each
machine's own. A node is fenced by cutting its power from outside: the agent `fence_lab` asks for that with a file.
"""

from __future__ import annotations

import pathlib
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

from relevo.base.errors import RelevoError
from relevo.lab import service
from relevo.lab.lab import Lab, Unit
from relevo.lab.scene import ADDRESSES, CLIENT, SERVERS, VIRTUAL_IP
from systemd_machine import SystemdMachine

PROGRAMS = {"pacemakerd": "pacemaker", "corosync": "corosync", "crm_mon": "pacemaker-cli-utils"}
"""Program -> Debian package."""
FILESYSTEM = pathlib.Path("/usr/lib/ocf/resource.d/heartbeat/Filesystem")
LIMIT_S = 90.0
PAUSE_S = 0.2
LOG = "var/log/pacemaker.log"
CLUSTER_UNITS = ("corosync.service", "pacemaker.service", "resource-agents-deps.target")
UNITS = (
    Unit(name="corosync", argv=("corosync", "-f")),
    Unit(name="pacemaker", argv=("sh", "-c", f"PCMK_logfile=/{LOG} PCMK_logpriority=none exec pacemakerd")),
)
_NODE = "node {{\n name: {name}\n nodeid: {number}\n ring0_addr: {cross}\n ring1_addr: {users}\n}}\n"
_COROSYNC = """\
totem {{
 version: 2
 cluster_name: oficina
 transport: knet
 token: 1000
 crypto_cipher: none
 crypto_hash: none
}}
nodelist {{
{nodes}}}
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
_CIB = """\
<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1">
<configuration>
<crm_config><cluster_property_set id="options">
<nvpair id="o1" name="stonith-enabled" value="{fencing}"/>
<nvpair id="o2" name="dc-deadtime" value="2s"/>
<nvpair id="o3" name="election-timeout" value="10s"/>
<nvpair id="o4" name="stonith-action" value="off"/>
</cluster_property_set></crm_config>
<nodes/>
<resources>
<clone id="r0-clone"><meta_attributes id="m1">
<nvpair id="m11" name="promotable" value="true"/><nvpair id="m12" name="notify" value="true"/>
<nvpair id="m13" name="clone-max" value="2"/><nvpair id="m14" name="interleave" value="true"/></meta_attributes>
<primitive id="r0" class="ocf" provider="relevo" type="mirror"><instance_attributes id="i1">
<nvpair id="i11" name="mirror" value="r0"/></instance_attributes><operations>
<op id="r0-start" name="start" interval="0" timeout="60s"/><op id="r0-stop" name="stop" interval="0" timeout="60s"/>
<op id="r0-promote" name="promote" interval="0" timeout="60s"/>
<op id="r0-demote" name="demote" interval="0" timeout="60s"/>
<op id="r0-m1" name="monitor" interval="3s" timeout="30s" role="Promoted"/>
<op id="r0-m2" name="monitor" interval="4s" timeout="30s" role="Unpromoted"/></operations></primitive></clone>
<group id="web">
<primitive id="fs" class="ocf" provider="heartbeat" type="Filesystem"><instance_attributes id="i2">
<nvpair id="i21" name="device" value="/run/relevo/mirror/r0/device"/>
<nvpair id="i22" name="directory" value="/srv/relevo"/><nvpair id="i23" name="fstype" value="ext4"/>
</instance_attributes><operations><op id="fs-m" name="monitor" interval="5s" timeout="30s"/></operations></primitive>
<primitive id="files" class="ocf" provider="relevo" type="files"><instance_attributes id="i3">
<nvpair id="i31" name="name" value="files"/></instance_attributes>
<operations><op id="files-m" name="monitor" interval="5s" timeout="30s"/></operations></primitive>
<primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="i4">
<nvpair id="i41" name="ip" value="{address}"/><nvpair id="i42" name="cidr_netmask" value="24"/>
</instance_attributes><operations><op id="ip-m" name="monitor" interval="5s" timeout="30s"/></operations></primitive>
</group>{fence}
</resources>
<constraints>
<rsc_colocation id="c1" rsc="web" with-rsc="r0-clone" with-rsc-role="Promoted" score="INFINITY"/>
<rsc_order id="c2" first="r0-clone" first-action="promote" then="web" then-action="start" kind="Mandatory"/>
<rsc_location id="c3" rsc="r0-clone" role="Promoted" node="nodo1" score="50"/>
</constraints>
<rsc_defaults><meta_attributes id="d1"><nvpair id="d11" name="resource-stickiness" value="100"/></meta_attributes>
</rsc_defaults>
</configuration><status/></cib>
"""
_FENCE = """
<primitive id="fence" class="stonith" type="fence_lab"><instance_attributes id="i5">
<nvpair id="i51" name="pcmk_delay_base" value="nodo1:0s;nodo2:15s"/></instance_attributes></primitive>"""
"""When both try to fence each other nodo2 wins."""
_FENCE_LAB = """\
#!/bin/sh
# Fencing in the lab: whoever is outside cuts the power when there is a file of that name, and says so with another one.
folder={folder}
action=off node=
while IFS='=' read -r name value; do
    case $name in action) action=$value ;; nodename | plug | port) node=$value ;; esac
done
case $action in
metadata)
    cat <<END
<?xml version="1.0"?>
<resource-agent name="fence_lab" shortdesc="cuts the power of a lab machine"><longdesc>-</longdesc>
<parameters><parameter name="action"><content type="string" default="off"/></parameter>
<parameter name="plug"><content type="string"/></parameter></parameters>
<actions><action name="off"/><action name="reboot"/><action name="on"/><action name="status"/><action name="list"/>
<action name="monitor"/><action name="metadata"/></actions></resource-agent>
END
    ;;
list) printf 'nodo1,\\nnodo2,\\n' ;;
monitor | on | status) ;;
*)
    rm -f "$folder/$node.off"
    touch "$folder/$node.cut"
    until [ -e "$folder/$node.off" ]; do sleep 0.05; done
    ;;
esac
"""


def missing() -> str:
    """What has to be installed for it; empty when all is there."""
    found = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    found += [] if FILESYSTEM.exists() and shutil.which("ocf-tester") else ["resource-agents"]
    return " ".join(found)


class PacemakerScene:
    """Both servers, the volume made, the cluster started and the service up.

    Args:
        lab: not up yet.
        fencing: whether the cluster fences what is lost.
        systemd: a folder for its logs, if systemd runs the daemons.
    """

    def __init__(self, lab: Lab, *, fencing: bool, systemd: pathlib.Path | None = None) -> None:
        self.lab = lab
        self._systemd = systemd
        self.machines: dict[str, SystemdMachine] = {}
        self._done = threading.Event()
        self._fence_folder = lab.shared / "fence"
        self.fenced: list[str] = []
        self._fencer = threading.Thread(target=self._fence, daemon=True)
        lab.up(service=False, units=[Unit(name="mirror", argv=("relevo", "mirror", "run", "r0"))])
        service.found(lab)
        for name in SERVERS:
            lab.unit(name, "mirror", "stop")
            self._prepare(name, fencing=fencing)
        self._fence_folder.mkdir(exist_ok=True)
        self._fencer.start()
        for name in SERVERS:
            self.start(name)
        self.wait(lambda: self.serves("nodo1"), "the service on nodo1")
        self.wait_in_sync()

    def _prepare(self, name: str, *, fencing: bool) -> None:
        root = self.lab.path(name, "")
        nodes = "".join(
            _NODE.format(
                name=other,
                number=number,
                cross=ADDRESSES[other]["eth1"].partition("/")[0],
                users=ADDRESSES[other]["eth0"].partition("/")[0],
            )
            for number, other in enumerate(SERVERS, 1)
        )
        (root / "etc/corosync").mkdir(parents=True, exist_ok=True)
        (root / "etc/corosync/corosync.conf").write_text(_COROSYNC.format(nodes=nodes))
        agent = root / "usr/sbin/fence_lab"
        agent.write_text(_FENCE_LAB.replace("{folder}", str(self._fence_folder)))
        agent.chmod(0o755)
        (root / "etc/default/pacemaker").write_text(f"PCMK_logfile=/{LOG}\nPCMK_logpriority=none\n")
        cib = root / "var/lib/pacemaker/cib/cib.xml"
        words = {"fencing": str(fencing).lower(), "fence": _FENCE if fencing else "", "address": VIRTUAL_IP}
        cib.write_text(_CIB.format(**words))
        for command in (
            ["relevo", "ocf", "install"],
            *([["relevo", "units", "install"]] if self._systemd else []),
            ["chown", "hacluster:haclient", f"/{cib.relative_to(root)}"],
            ["crm_verify", "--xml-file", f"/{cib.relative_to(root)}"],
        ):
            self.lab.run(name, command, capture=True, check=True)
        self.lab.define(name, UNITS)

    def start(self, name: str) -> None:
        """Start the cluster's daemons on a server that is on."""
        if self._systemd is not None:
            machine = SystemdMachine(self.lab, name, self._systemd / f"{name}.systemd", CLUSTER_UNITS)
            self.machines[name] = machine
            machine.systemctl("start", "pacemaker")
            return
        for unit in UNITS:
            self.lab.unit(name, unit.name, "start")

    def boot(self, name: str) -> None:
        """Switch a server on again."""
        self.lab.boot(name, units=False)
        self.start(name)

    def _fence(self) -> None:
        """Whoever is outside: cuts the power of what is to be fenced."""
        while not self._done.wait(PAUSE_S / 4):
            for request in self._fence_folder.glob("*.cut"):
                name = request.stem
                if self.lab.machine(name).process is not None:
                    self.lab.crash(name)
                self.fenced.append(name)
                request.unlink()
                (self._fence_folder / f"{name}.off").touch()

    def close(self) -> None:
        """Fence nobody any more."""
        self._done.set()
        self._fencer.join()
        if self.machines:
            self.lab.down()
        for machine in self.machines.values():
            machine.close()

    # ---- looking

    def mirror(self, name: str) -> dict[str, Any]:
        """What a server's mirror says of itself."""
        return service.mirror_status(self.lab, name) or {}

    def serves(self, name: str) -> bool:
        """Whether the service answers, and the address is on this server."""
        held = self.lab.run(name, ["ip", "-br", "address", "show", "dev", "eth0"], capture=True).stdout
        return f" {VIRTUAL_IP}/".encode() in held and service.answer(self.lab) == "200"

    def roles(self, asked: str) -> dict[str, str]:
        """Server -> role of its mirror, as Pacemaker sees them."""
        done = self.lab.run(asked, ["crm_mon", "--one-shot", "--as-xml"], capture=True)
        root = ET.fromstring(done.stdout or b"<nothing/>")  # noqa: S314 - what the cluster prints
        return {
            str(resource.find("node").get("name")): str(resource.get("role"))  # type: ignore[union-attr]
            for resource in root.iterfind("resources/clone/resource")
            if resource.get("active") == "true"
        }

    def scores(self, asked: str) -> dict[str, int]:
        """Server -> its promotion score; without one it is left out."""
        done = self.lab.run(asked, ["crm_mon", "--one-shot", "--as-xml", "--show-node-attributes"], capture=True)
        root = ET.fromstring(done.stdout or b"<nothing/>")  # noqa: S314 - what the cluster prints
        return {
            str(node.get("name")): int(attribute.get("value", ""))
            for node in root.iterfind("node_attributes/node")
            for attribute in node.iterfind("attribute[@name='master-r0']")
        }

    def run(self, name: str, *argv: str) -> str:
        """Run a command on a server."""
        return self.lab.run(name, list(argv), capture=True, check=True).stdout.decode()

    def client(self, *argv: str) -> bytes:
        """Run a command on the client."""
        return self.lab.run(CLIENT, list(argv), capture=True, check=True).stdout

    def wait(self, condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> None:
        """Wait for what no process can be waited for."""
        end_s = time.monotonic() + limit_s
        while not self._true(condition):
            assert time.monotonic() < end_s, f"{what} did not come in {limit_s} s\n{self.tell()}"
            time.sleep(PAUSE_S)

    def _true(self, condition: Callable[[], Any]) -> bool:
        try:
            return bool(condition())
        except (RelevoError, ET.ParseError):  # a server is off, or its cluster not there yet
            return False

    def wait_in_sync(self) -> None:
        """Both copies are current and connected."""
        self.wait(lambda: all(self.mirror(name).get("disk") == "UpToDate" for name in SERVERS), "UpToDate on both")
        self.wait(lambda: all(self.mirror(name).get("connection") == "Connected" for name in SERVERS), "Connected")

    def tell(self) -> str:
        """What Pacemaker says, and what the agents said."""
        told = []
        for name in SERVERS:
            try:
                told.append(self.lab.run(name, ["crm_mon", "--one-shot", "--failcounts"], capture=True).stdout.decode())
                log = self.lab.path(name, LOG).read_text(errors="replace").splitlines()
            except (RelevoError, OSError) as error:
                told.append(f"{name}: {error}")
                continue
            told += [line for line in log if "r0" in line or "relevo" in line or "error" in line][-80:]
        return "\n".join(told)
