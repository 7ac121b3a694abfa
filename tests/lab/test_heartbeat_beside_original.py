"""Our heartbeat on one server, Debian's Heartbeat 3 on the other: joining, losses on the way, a lost link."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from labtools import LabMaker

from lab_shell import shell
from relevo.lab.lab import Lab
from relevo.lab.process import wait_until
from relevo.lab.scene import SERVICE_UNITS

HEARTBEAT = pathlib.Path("/usr/libexec/heartbeat/heartbeat")
NFT = pathlib.Path("/usr/sbin/nft")
LIMIT_S = 120.0
STEP_S = 30.0
KEEPALIVE_MS = 100
TIMES = {"keepalive": f"{KEEPALIVE_MS} ms", "warntime": "1 s", "deadtime": "2 s", "initdead": "10 s"}
HA_CF = f"""\
logfile /var/log/ha-log
keepalive {KEEPALIVE_MS}ms
warntime 1
deadtime 2
initdead 10
udpport 694
bcast eth0 eth1
auto_failback on
crm no
node nodo1
node nodo2
"""
SET_UP = f"""
set -e
printf %s {shlex.quote(HA_CF)} > /etc/ha.d/ha.cf
: > /etc/ha.d/haresources
rm -rf /var/lib/heartbeat/hb_* /var/log/ha-log
install -d -o hacluster -g haclient -m 750 /run/heartbeat /run/heartbeat/crm /run/heartbeat/ccm /run/heartbeat/dopd
install -d -m 1755 /run/heartbeat/rsctmp /run/resource-agents
"""
LOSS = """nft -f - <<'END'
table inet loss {
chain input {
type filter hook input priority 0
udp dport 694 numgen random mod 100 < 60 drop
}
}
END"""
"""With two links a message is lost if both copies are: about every third."""
LOST_MESSAGES = 15
"""So many must have been asked for and come: with that loss, in some seconds."""


class Pair:
    """nodo1 is ours, nodo2 the original."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self, method: str) -> None:
        """Both, with one key."""
        keys = f"auth 1\n1 {method}\n" if method == "crc" else f"auth 1\n1 {method} sesame\n"
        for node, path in (("nodo1", "/etc/relevo/authkeys"), ("nodo2", "/etc/ha.d/authkeys")):
            self.shell(node, f"printf %s {shlex.quote(keys)} > {path}; chmod 600 {path}")
        self.shell("nodo2", SET_UP)
        self.original()
        self.lab.unit("nodo1", "heartbeat", "start")

    def original(self) -> None:
        """Start Heartbeat, as a boot does."""
        argv = ["sh", "-c", f"exec {HEARTBEAT} -f >/dev/null 2>&1"]
        self.daemons.append(self.lab.popen("nodo2", argv, stdin=subprocess.DEVNULL))

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a shell script in a machine; what it printed."""
        return shell(self.lab, node, script, check=check)

    def peer(self) -> dict[str, Any]:
        """The original as ours sees it."""
        text = self.shell("nodo1", "relevo heartbeat status", check=False)
        try:
            return dict(json.loads(text)["peers"]["nodo2"])
        except (ValueError, KeyError):
            return {"state": "not told", "answer": text}

    def seen(self) -> str:
        """Ours as the original sees it."""
        return self.shell("nodo2", "/usr/bin/cl_status nodestatus nodo1", check=False).strip()

    def log(self) -> str:
        """What the original wrote."""
        return self.shell("nodo2", "cat /var/log/ha-log", check=False)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Nothing announces what Heartbeat does."""
        assert wait_until(condition, STEP_S), (
            f"not in {STEP_S} s: {what}\n{self.peer()} {self.seen()!r}\n{self.log()[-5000:]}"
        )

    def joined(self) -> None:
        """Each counts the other as active."""
        self.wait(lambda: self.peer()["state"] == "active" and self.seen() == "active", "both active")


@pytest.fixture
def pair(make_lab: LabMaker) -> Iterator[Pair]:
    """Nothing runs yet but the machines."""
    if not HEARTBEAT.exists():
        pytest.skip(f"Debian's package heartbeat is not installed ({HEARTBEAT} is missing).")
    lab = make_lab(limit_s=LIMIT_S, disk_bytes=64 << 20, heartbeat=TIMES)
    lab.up(service=False)
    made = Pair(lab)
    lab.define("nodo1", [unit for unit in SERVICE_UNITS if unit.name == "heartbeat"])
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            print(made.log()[-5000:])  # shown when the test fails
        lab.down()
        for daemon in made.daemons:
            daemon.wait(20)


@pytest.mark.parametrize("method", ["crc", "md5"])
def test_they_join(pair: Pair, method: str) -> None:
    pair.start(method)
    pair.joined()


@pytest.mark.skipif(not NFT.exists(), reason="Debian's package nftables is not installed.")
def test_losses_a_lost_link_and_our_goodbye(pair: Pair) -> None:
    pair.start("sha1")
    pair.joined()

    for node in ("nodo1", "nodo2"):
        pair.shell(node, LOSS)
    pair.wait(lambda: pair.peer()["recovered"] >= LOST_MESSAGES, "lost messages of the original")
    pair.wait(lambda: "No pkts missing from nodo1" in pair.log(), "lost messages of ours")
    for node in ("nodo1", "nodo2"):
        pair.shell(node, "nft delete table inet loss")
    assert pair.peer()["given_up"] == 0

    pair.lab.cut("nodo1", "eth1")
    pair.wait(lambda: pair.peer()["links"] == {"users": "up", "cross": "down"}, "one link down")
    assert pair.peer()["state"] == "active"
    pair.lab.heal("nodo1", "eth1")
    pair.wait(lambda: pair.peer()["links"] == {"users": "up", "cross": "up"}, "both links up")

    pair.lab.unit("nodo1", "heartbeat", "stop")
    pair.wait(lambda: pair.seen() == "dead", "our goodbye")
