"""Units of a real systemd, PID 1 in a lab machine, run by our agent."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest

import systemd_machine
from lab_maker import LabMaker
from relevo.lab.lab import Unit
from systemd_machine import SystemdMachine

pytestmark = pytest.mark.skipif(bool(systemd_machine.missing()), reason=systemd_machine.missing() or "it can")
ACT = """
import asyncio, json, sys
from relevo.agents.base import StartContext
from relevo.agents.systemd import SystemdAgent
from relevo.config.model import SystemdResource

async def act(agent, action):
    try:
        found = await (agent.start(StartContext(epoch=1)) if action == "start" else getattr(agent, action)())
    except Exception as error:
        return f"{type(error).__name__}: {error.what}"
    return found.state.value + ": " + found.reason if found else "done"

async def main(unit, *actions):
    agent = SystemdAgent(SystemdResource(id="web", unit=unit))
    return [await act(agent, action) for action in actions]

print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
"""
UNITS = {
    "web": "[Service]\nExecStart=sleep 1000\nRestart=always\n",
    "bad": "[Service]\nType=oneshot\nExecStart=false\n",
    "short": "[Service]\nType=oneshot\nExecStart=true\n",
    "slow": "[Service]\nType=notify\nExecStart=sleep 1000\nTimeoutStartSec=300ms\n",
    "silent": "[Service]\nType=notify\nExecStart=sleep 1000\nTimeoutStartSec=60s\n",
}


@pytest.fixture
def machine(make_lab: LabMaker, tmp_path: pathlib.Path) -> Any:
    lab = make_lab(disk_bytes=16 << 20)
    lab.up(service=False, units=[Unit(name="idle", argv=("sleep", "infinity"))])
    made = SystemdMachine(lab, "nodo1", tmp_path / "systemd")
    for name, text in UNITS.items():
        lab.run("nodo1", ["tee", f"/etc/systemd/system/{name}.service"], stdin=text.encode(), capture=True, check=True)
    made.run("ln", "-s", "/dev/null", "/etc/systemd/system/off.service", check=True)
    made.systemctl("daemon-reload")
    yield made
    lab.down()
    made.close()


def test_units_of_systemd(machine: SystemdMachine) -> None:
    def act(unit: str, *actions: str) -> list[str]:
        done = machine.run(sys.executable, "-c", ACT, f"{unit}.service", *actions, check=True)
        said: list[str] = json.loads(done.stdout)
        return said

    assert act("web", "probe", "start", "start", "monitor") == ["stopped: ", "done", "done", "running: "]
    assert machine.show("web", "Restart") == "no", "only one of the two restarts it"
    assert "relevo-leave.service" in machine.show("web", "Before"), "a shutdown does not stop it before its turn"
    machine.systemctl("kill", "--kill-whom", "main", "--signal", "KILL", "web")
    machine.run("sh", "-c", "while systemctl is-active --quiet web; do sleep 0.02; done", check=True)
    assert act("web", "monitor") == ["failed: web: web.service has failed: signal, status 9."]
    assert act("web", "start", "monitor", "stop", "stop") == ["done", "running: ", "done", "done"]
    assert machine.systemctl("is-active", "web", check=False) == "inactive"
    assert machine.show("web", "Restart") == "always", "it is as it was"

    started, health, stopped, after = act("bad", "start", "monitor", "stop", "monitor")
    assert started == "AgentFailed: web: bad.service failed at start: exit-code, status 1 (job: failed)"
    assert (health[:7], stopped, after) == ("failed:", "done", "stopped: ")
    assert "ended at once" in act("short", "start")[0]
    assert "failed at start: timeout" in act("slow", "start")[0]
    assert act("none", "start", "monitor", "stop") == [
        "AgentFailed: web: systemd has no unit none.service.",
        "stopped: ",
        "done",
    ]
    assert "it is masked" in act("off", "start")[0]

    start = "import sys; from relevo.cli.init_system import start_unit; print([start_unit(x) for x in sys.argv[1:]])"
    done = machine.run(sys.executable, "-c", start, "web.service", "none.service", "bad.service", check=True)
    assert done.stdout == b"[True, False, False]\n"

    starting = machine.popen(sys.executable, "-c", ACT, "silent.service", "start", "monitor", "stop")
    machine.run("sh", "-c", "until [ $(systemctl show --value -p ActiveState silent) = activating ]; do :; done")
    machine.run("pkill", "-KILL", "-x", "dbus-daemon", check=True)
    assert json.loads(starting.communicate()[0]) == [
        "BusFailed: The system bus hung up while silent.service was waited for.",
        "running: silent.service is activating (start).",
        "done",
    ], "the next operation has a new connection"
