"""The scene that it all began with: Heartbeat's and drbd's own files, imported, and a real Apache2 behind one address.

ha.cf's times are shorter here than in the original (2 s, 30 s and 120 s), and the disk is the lab's; the rest is as it
stands in tests/data/historic.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
from labtools import LabMaker

from lab_shell import put, shell
from relevo.lab.lab import Lab
from relevo.lab.process import wait_until
from relevo.lab.scene import SERVERS, SERVICE_UNITS, VIRTUAL_IP
from relevo.lab.service import mirror_status

HISTORIC = pathlib.Path(__file__).parent.parent / "data" / "historic"
APACHE = pathlib.Path("/etc/init.d/apache2")
LIMIT_S = 170.0
STEP_S = 60.0
DATA = "/home/jorge/datos"
QUICK = {
    "keepalive 2": "keepalive 200ms",
    "deadtime 30": "deadtime 2",
    "warntime 10": "warntime 1",
    "initdead 120": "initdead 4",
}
UNITS = [unit for unit in SERVICE_UNITS if unit.name != "files"]
WITHOUT_DISK = "nodo1 IPaddr2::192.168.0.29/24/eth0 apache2\n"
pytestmark = pytest.mark.skipif(not APACHE.exists(), reason="Debian's package apache2 is not installed.")


def read(lab: Lab, path: str = "/") -> str:
    """What the client gets at the virtual IP."""
    return shell(lab, "client", f"curl -s -m 2 http://{VIRTUAL_IP}{path}", check=False)


def wait_for(condition: Callable[[], bool], what: str, lab: Lab) -> None:
    """The client is told nothing, it has to look."""
    if not wait_until(condition, STEP_S):
        told = "\n".join(
            shell(lab, node, "relevo status; tail -5 /var/log/apache2/error.log", check=False) for node in SERVERS
        )
        raise AssertionError(f"not in {STEP_S} s: {what}\n{told}")


@pytest.fixture
def lab(make_lab: LabMaker) -> Lab:
    """Both servers with the historic files; nothing runs yet."""
    made = make_lab(limit_s=LIMIT_S, disk_bytes=64 << 20)
    made.up(service=False)
    ha_cf = (HISTORIC / "ha.d" / "ha.cf").read_text()
    for before, after in QUICK.items():
        assert before in ha_cf
        ha_cf = ha_cf.replace(before, after)
    resource = (HISTORIC / "drbd.d" / "r0.res").read_text().replace("/dev/sda6", "/dev/relevo/r0")
    for node, other in zip(SERVERS, ("192.168.0.28", "192.168.0.27"), strict=True):
        put(made, node, "/etc/ha.d/ha.cf", ha_cf.replace("192.168.0.28", other))
        put(made, node, "/etc/ha.d/authkeys", "auth 1\n1 crc\n")
        put(made, node, "/etc/drbd.conf", (HISTORIC / "drbd.conf").read_text())
        put(made, node, "/etc/drbd.d/global_common.conf", (HISTORIC / "drbd.d" / "global_common.conf").read_text())
        put(made, node, "/etc/drbd.d/r0.res", resource)
        shell(made, node, "rm /etc/relevo/relevo.toml /etc/relevo/authkeys; rm -f /etc/ha.d/resource.d/apache2")
        made.define(node, UNITS)
    return made


def imported(lab: Lab, haresources: str, *more: str) -> None:
    """Both servers get the configuration that means the same."""
    for node in SERVERS:
        put(lab, node, "/etc/ha.d/haresources", haresources)
        shell(lab, node, f"relevo import /etc/ha.d {' '.join(more)} --into /etc/relevo && relevo check")


def start(lab: Lab, node: str, *names: str) -> None:
    """Start daemons."""
    for name in names:
        lab.unit(node, name, "start")


def stop(lab: Lab, node: str) -> None:
    """As `/etc/init.d/heartbeat stop`: leave in order."""
    shell(lab, node, "relevo leave")
    for name in ("node", "heartbeat"):
        lab.unit(node, name, "stop")


def test_two_servers_one_address_and_apache(lab: Lab) -> None:
    imported(lab, WITHOUT_DISK, "--address nodo1=192.168.0.27", "--address nodo2=192.168.0.28")
    for number, node in enumerate(SERVERS, 1):
        put(lab, node, "/var/www/html/index.html", f"CLUSTER 0{number} Funciona\n", "644")
        start(lab, node, "heartbeat", "node")
    wait_for(lambda: read(lab) == "CLUSTER 01 Funciona\n", "nodo1's page", lab)
    stop(lab, "nodo1")
    wait_for(lambda: read(lab) == "CLUSTER 02 Funciona\n", "nodo2's page", lab)
    assert "apache2" not in shell(lab, "nodo1", "ps -e -o comm", check=False)
    start(lab, "nodo1", "heartbeat", "node")
    wait_for(lambda: read(lab) == "CLUSTER 01 Funciona\n", "nodo1's page again", lab)


def test_the_same_files_on_both_behind_apache(lab: Lab) -> None:
    imported(lab, (HISTORIC / "ha.d" / "haresources").read_text(), "/etc/drbd.conf")
    folder = f"<Directory {DATA}/www>\nRequire all granted\nOptions Indexes\n</Directory>\n"
    site = f"<VirtualHost *:80>\nDocumentRoot {DATA}/www\n{folder}</VirtualHost>\n"
    for node in SERVERS:
        put(lab, node, "/etc/apache2/sites-enabled/000-default.conf", site, "644")
        shell(lab, node, f"mkdir -p {DATA}; relevo mirror create r0 --zeroed")
        start(lab, node, "mirror")
    assert wait_until(lambda: mirror_status(lab, "nodo1") is not None, 20)  # started is not yet there
    shell(lab, "nodo1", "relevo mirror wait-connect r0; relevo volume format r0 --yes")
    shell(lab, "nodo1", f"relevo mirror primary r0 && mount /dev/drbd0 {DATA} && mkdir {DATA}/www && umount {DATA}")
    shell(lab, "nodo1", "relevo mirror secondary r0")
    for node in SERVERS:
        start(lab, node, "heartbeat", "node")
    wait_for(lambda: "Index of /" in read(lab), "an empty folder", lab)
    shell(lab, "nodo1", f"touch {DATA}/www/hola.txt; sync -f {DATA}/www")
    assert "hola.txt" in read(lab)
    lab.crash("nodo1")
    wait_for(lambda: "hola.txt" in read(lab), "the file on nodo2", lab)
    shell(lab, "nodo2", f"touch {DATA}/www/segundo.txt; sync -f {DATA}/www")
    lab.boot("nodo1")
    wait_for(lambda: DATA in shell(lab, "nodo1", "cat /proc/mounts", check=False), "nodo1 as the active one", lab)
    wait_for(lambda: {"hola.txt", "segundo.txt"} <= set(read(lab).replace('"', " ").split()), "both files", lab)
