"""Machines: what they have of their own, how their PID 1 behaves, how they go off and on."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import sys

import pytest
from labtools import ECHO, PORT, answer_of, end, python, start

from relevo.base.control import Refused
from relevo.lab.errors import LabRunning, MachineOff, MachineOn
from relevo.lab.folder import program_folders
from relevo.lab.lab import Lab, Unit
from relevo.lab.process import wait_until
from relevo.lab.scene import ADDRESSES, MACHINES, SERVERS

LIMIT_S = 10.0


def test_names_addresses_and_masks(lab: Lab) -> None:
    for name in MACHINES:
        assert lab.run(name, ["uname", "-n"], capture=True).stdout == f"{name}\n".encode()
        found = json.loads(lab.run(name, ["ip", "-json", "-4", "address"], capture=True).stdout)
        seen = {card["ifname"]: f"{a['local']}/{a['prefixlen']}" for card in found for a in card["addr_info"]}
        assert seen == {"lo": "127.0.0.1/8", **ADDRESSES[name]}
    looked = python(
        lab,
        "nodo1",
        "import json, os, glob, stat\n"
        "print(json.dumps({'watchdog': glob.glob('/dev/watchdog*'), 'power': os.listdir('/sys/power'),"
        " 'sysrq': [os.path.exists(t) and not stat.S_ISFIFO(os.stat(t).st_mode) for t in"
        " ('/proc/sysrq-trigger', '/run/sysrq-trigger')],"
        " 'pids': [p for p in os.listdir('/proc') if p.isdigit()], 'tmp': os.listdir('/tmp')}))",
    )
    assert looked["watchdog"] == looked["power"] == []
    assert looked["sysrq"] == [False, False]
    assert "1" in looked["pids"]
    assert len(looked["pids"]) <= 5, "the host's processes are not to be seen"
    own = [lab.dir, *map(pathlib.Path, program_folders(("/tmp",)))]  # this project itself may lie there
    assert not (set(looked["tmp"]) - {path.parts[2] for path in own if path.parts[1] == "tmp"}), "of the host's /tmp"


def test_machines_reach_each_other_on_every_link(lab: Lab) -> None:
    echoes = [start(lab, name, ECHO, str(PORT)) for name in SERVERS]
    assert answer_of(lab, "client", "192.168.0.27") == "nodo1"
    assert answer_of(lab, "client", "192.168.0.28") == "nodo2"
    assert answer_of(lab, "nodo1", "192.168.0.28") == "nodo2"
    assert answer_of(lab, "nodo1", "10.27.0.2") == "nodo2"
    assert answer_of(lab, "nodo2", "10.27.0.1") == "nodo1"
    for process in echoes:
        end(process)


def test_what_a_machine_writes_stays_its_own(lab: Lab) -> None:
    lab.run("nodo1", ["sh", "-c", "echo mine > /srv/mark; echo x > /tmp/mark; echo x > /dev/shm/mark"], check=True)
    assert not pathlib.Path("/srv/mark").exists()
    assert lab.run("nodo2", ["test", "-e", "/srv/mark"]).returncode == 1
    lab.crash("nodo1")
    lab.boot("nodo1")
    assert lab.run("nodo1", ["cat", "/srv/mark"], capture=True).stdout == b"mine\n"
    assert lab.run("nodo1", ["test", "-e", "/tmp/mark"]).returncode == 1
    (lab.shared / "letter").write_text("from outside")
    assert lab.run("client", ["cat", str(lab.shared / "letter")], capture=True).stdout == b"from outside"
    assert lab.run("nodo1", ["test", "-e", str(lab.image("nodo2"))]).returncode == 1


def test_configuration_and_secrets_are_there(lab: Lab) -> None:
    for name in SERVERS:
        listed = lab.run(name, ["stat", "-c", "%a %n", "/etc/relevo/authkeys", "/etc/relevo/secrets.toml"], check=True)
        assert all(line.startswith("600 ") for line in listed.stdout.decode().splitlines())
    texts = {lab.run(name, ["cat", "/etc/relevo/relevo.toml"], check=True).stdout for name in SERVERS}
    assert len(texts) == 1
    assert lab.run("nodo1", ["sh", "-c", "command -v relevo"], check=True).stdout.decode().strip() == str(
        pathlib.Path(sys.executable).parent / "relevo"
    )
    loaded = python(
        lab,
        "nodo1",
        "import json\nfrom relevo.base.paths import Paths\nfrom relevo.config.load import load\n"
        "c = load(Paths().config)\n"
        "print(json.dumps([sorted(c.nodes), c.mirrors['r0'].alone, c.heartbeat.deadtime_ms]))",
    )
    assert loaded == [["nodo1", "nodo2"], "risk", 2000]


def test_every_boot_has_its_own_boot_id(lab: Lab) -> None:
    ask = ["cat", "/proc/sys/kernel/random/boot_id"]
    ids = [lab.run(name, ask, check=True).stdout for name in MACHINES]
    lab.crash("nodo1")
    lab.boot("nodo1")
    ids.append(lab.run("nodo1", ask, check=True).stdout)
    assert len(set(ids)) == 4


def test_pid_1_restarts_a_killed_unit_and_waits_longer_each_time(lab: Lab) -> None:
    first = lab.unit("nodo1", "idle", "kill")
    assert wait_until(lambda: _unit(lab, "idle")["state"] == "running" and _unit(lab, "idle")["pid"] != first, LIMIT_S)
    assert _unit(lab, "idle")["restarts"] == 1
    assert _unit(lab, "idle")["last_exit"] == "signal SIGKILL"
    lab.define("nodo1", [Unit(name="broken", argv=("sh", "-c", "echo I fail; exit 3"))])
    lab.unit("nodo1", "broken", "start")
    assert wait_until(lambda: _unit(lab, "broken")["restarts"] >= 4, LIMIT_S)
    assert _unit(lab, "broken")["last_exit"] == "exit status 3"
    log = lab.logs("nodo1")
    assert re.search(r"^\d{4}-\d\d-\d\dT\S+Z broken\[\d+\]: I fail$", log, re.MULTILINE)
    starts = re.findall(r"T\d\d:\d\d:(\d\d\.\d+)Z init: broken started", log)
    gaps = [(float(b) - float(a)) % 60 for a, b in itertools.pairwise(starts)]
    assert gaps[2] > gaps[0]


def _unit(lab: Lab, name: str) -> dict[str, object]:
    return next(unit for unit in lab.units("nodo1") if unit["name"] == name)


def test_units_are_stopped_started_and_refused(lab: Lab) -> None:
    before = _unit(lab, "idle")["pid"]
    lab.unit("nodo1", "idle", "stop")
    assert _unit(lab, "idle")["state"] == "stopped"
    with pytest.raises(Refused, match="not running"):
        lab.unit("nodo1", "idle", "kill")
    with pytest.raises(Refused, match="no unit"):
        lab.unit("nodo1", "nothing", "start")
    assert lab.unit("nodo1", "idle", "start") != before
    assert lab.unit("nodo1", "idle", "restart") == _unit(lab, "idle")["pid"]
    stubborn = Unit(name="stubborn", argv=("sh", "-c", "trap '' TERM; while :; do sleep 1; done"), stop_limit_ms=100)
    lab.define("nodo1", [stubborn])
    lab.unit("nodo1", "stubborn", "start")
    lab.unit("nodo1", "stubborn", "stop")
    assert _unit(lab, "stubborn")["state"] == "stopped"


def test_an_orderly_power_off_says_goodbye_and_stops_in_reverse(lab: Lab) -> None:
    ending = "trap 'echo {0} ends; exit 0' TERM; echo {0} runs; while :; do sleep 0.02; done"
    units = [
        Unit(name=name, argv=("sh", "-c", ending.format(name)), goodbye=("echo", "goodbye", name)) for name in "ab"
    ]
    lab.define("nodo1", units)
    lab.start_units("nodo1")
    assert wait_until(lambda: "a runs" in lab.logs("nodo1") and "b runs" in lab.logs("nodo1"), LIMIT_S)
    lab.stop("nodo1")
    log = lab.logs("nodo1")
    order = [log.index(text) for text in ("goodbye a", "goodbye b", "b ends", "a ends", "init: power-off\n")]
    assert order == sorted(order)
    with pytest.raises(MachineOff):
        lab.run("nodo1", ["true"])
    lab.boot("nodo1")
    assert {unit["state"] for unit in lab.units("nodo1")} == {"running"}


def test_states_that_cannot_be_are_refused(lab: Lab) -> None:
    with pytest.raises(LabRunning):
        lab.up(service=False)
    with pytest.raises(MachineOn):
        lab.boot("nodo1")
    lab.crash("nodo1")
    with pytest.raises(MachineOff):
        lab.crash("nodo1")
    status = lab.status()
    assert status["machines"]["nodo1"]["power"] == "off"
    assert status["machines"]["nodo2"]["power"] == "on"
