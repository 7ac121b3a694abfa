"""The original Heartbeat over our mirror: drbd.conf, the historic commands, haresources with drbddisk::r0."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from labtools import LabMaker

from lab_shell import shell
from relevo.lab.lab import Lab, Unit
from relevo.lab.process import wait_until
from relevo.lab.scene import SERVERS

HEARTBEAT = pathlib.Path("/usr/libexec/heartbeat/heartbeat")
ADDRESS = "192.168.0.29"
LIMIT_S = 170.0
STEP_S = 45.0
CONF = """\
global { usage-count no; }
resource r0 {
  protocol C;
  net { cram-hmac-alg sha1; shared-secret "sesame"; timeout 10; ping-int 1; ping-timeout 3; connect-int 1; }
  device /dev/drbd0;
  disk /dev/relevo/r0;
  meta-disk internal;
  on nodo1 { address 10.27.0.1:7788; }
  on nodo2 { address 10.27.0.2:7788; }
}
"""
HA_CF = """\
logfile /var/log/ha-log
keepalive 200ms
warntime 1
deadtime 2
initdead 4
udpport 694
bcast eth0 eth1
auto_failback on
crm no
node nodo1
node nodo2
"""
RESOURCES = f"nodo1 drbddisk::r0 Filesystem::/dev/drbd0::/srv/data::ext4 IPaddr2::{ADDRESS}/24/eth0\n"
SET_UP = f"""
set -e
rm -f /etc/relevo/relevo.toml
cat > /etc/drbd.conf <<'END'
{CONF}END
cat > /etc/ha.d/ha.cf <<'END'
{HA_CF}END
printf '%s' '{RESOURCES}' > /etc/ha.d/haresources
printf 'auth 1\\n1 sha1 key\\n' > /etc/ha.d/authkeys
chmod 600 /etc/ha.d/authkeys
rm -rf /var/lib/heartbeat/hb_* /var/log/ha-log
mkdir -p /srv/data
{sys.executable} -m relevo mirror shims --into /usr/local/sbin --heartbeat /etc/ha.d/resource.d --replace
"""


RUN_FOLDERS = """
install -d -o hacluster -g haclient -m 750 /run/heartbeat /run/heartbeat/crm /run/heartbeat/ccm /run/heartbeat/dopd
install -d -m 1755 /run/heartbeat/rsctmp /run/resource-agents
"""
"""What systemd-tmpfiles makes at boot."""
DRBDDISK = "/etc/ha.d/resource.d/drbddisk"
LOOK = "tail -60 /var/log/ha-log; cat /run/relevo/*.log; tail -3 /proc/mounts; relevo mirror proc"


class Cluster:
    """Two servers with drbd.conf and Heartbeat's files."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.daemons: list[subprocess.Popen[bytes]] = []

    def heartbeat(self, node: str) -> None:
        """Start Heartbeat, as a boot does."""
        shell(self.lab, node, RUN_FOLDERS)
        argv = ["sh", "-c", f"exec {HEARTBEAT} -f >/dev/null 2>&1"]
        self.daemons.append(self.lab.popen(node, argv, stdin=subprocess.DEVNULL))


@pytest.fixture
def cluster(make_lab: LabMaker) -> Iterator[Cluster]:
    """Nothing runs yet but the machines."""
    if not HEARTBEAT.exists():
        pytest.skip(f"Debian's package heartbeat is not installed ({HEARTBEAT} is missing).")
    lab = make_lab(limit_s=LIMIT_S, disk_bytes=64 << 20)
    lab.up(service=False, units=[Unit(name="idle", argv=("sleep", "infinity"))])
    made = Cluster(lab)
    try:
        for node in SERVERS:
            shell(lab, node, SET_UP)
        yield made
    finally:
        for node in SERVERS:  # shown when the test fails
            with contextlib.suppress(Exception):
                print(f"---- {node}\n{shell(lab, node, LOOK, check=False)}")
        lab.down()
        for daemon in made.daemons:
            daemon.wait(20)


def answers(lab: Lab, node: str) -> bool:
    """Whether it is this server that answers at the address, as the client sees it."""
    probe = f"ping -c 1 -W 1 {ADDRESS} >/dev/null && ip neigh show {ADDRESS} | sed 's/.*lladdr //; s/ .*//'"
    seen = shell(lab, "client", f"ip neigh flush all; {probe}", check=False).strip()
    return bool(seen) and seen == shell(lab, node, "cat /sys/class/net/eth0/address").strip()


def serves(lab: Lab, node: str) -> bool:
    """Whether a server has everything that belongs to the service."""
    mounted = "drbd0 /srv/data" in shell(lab, node, "cat /proc/mounts", check=False)
    primary = shell(lab, node, "drbdadm role r0", check=False).startswith("Primary/")
    return mounted and primary and ADDRESS in shell(lab, node, "ip -4 address", check=False)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Nothing announces what Heartbeat does."""
    assert wait_until(condition, STEP_S), f"not in {STEP_S} s: {what}"


def test_start_failover_and_failback(cluster: Cluster) -> None:
    lab = cluster.lab
    for node in SERVERS:
        shell(lab, node, "echo yes | drbdadm create-md r0; drbdadm up r0")
    for node in SERVERS:
        shell(lab, node, "drbdadm wait-connect r0")
    assert shell(lab, "nodo1", "drbdadm -- --overwrite-data-of-peer primary r0") == ""
    shell(lab, "nodo1", "drbdadm wait-connect r0")  # forced: the copies meet once more
    shell(lab, "nodo1", "mkfs.ext4 -q /dev/drbd0")
    assert shell(lab, "nodo1", f"drbdadm role r0; {DRBDDISK} r0 status") == "Primary/Secondary\nrunning (Primary)\n"
    shell(lab, "nodo1", "relevo mirror wait-sync r0; drbdadm secondary r0; test ! -e /dev/drbd0")
    assert shell(lab, "nodo2", "drbdadm dstate r0") == "UpToDate/UpToDate\n"

    for node in SERVERS:
        cluster.heartbeat(node)
    wait_for(lambda: serves(lab, "nodo1"), "the service on nodo1")
    assert answers(lab, "nodo1")
    assert not serves(lab, "nodo2")
    shell(lab, "nodo1", "echo kept > /srv/data/file; sync -f /srv/data/file")

    lab.crash("nodo1")
    wait_for(lambda: serves(lab, "nodo2"), "the service on nodo2")
    assert answers(lab, "nodo2")
    assert shell(lab, "nodo2", "cat /srv/data/file") == "kept\n"
    shell(lab, "nodo2", "echo more >> /srv/data/file; sync -f /srv/data/file")

    lab.boot("nodo1")
    shell(lab, "nodo1", "drbdadm up r0; relevo mirror wait-sync r0")
    assert shell(lab, "nodo1", "drbdadm dstate r0") == "UpToDate/UpToDate\n"
    cluster.heartbeat("nodo1")
    wait_for(lambda: serves(lab, "nodo1"), "the service back on nodo1")
    assert shell(lab, "nodo1", "cat /srv/data/file") == "kept\nmore\n"
    wait_for(lambda: "stopped" in shell(lab, "nodo2", f"{DRBDDISK} r0 status", check=False), "its end on nodo2")
    assert answers(lab, "nodo1")
