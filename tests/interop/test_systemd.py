"""Both servers run by a real systemd through the unit files that `relevo units install` writes."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

import systemd_machine
from lab_maker import LabMaker
from relevo.lab import service
from relevo.lab.lab import Lab, Unit
from relevo.lab.scene import CLIENT, SERVERS, URL
from systemd_machine import SystemdMachine

pytestmark = pytest.mark.skipif(
    bool(systemd_machine.missing()), reason=f"cannot run: {systemd_machine.missing() or 'it can'}"
)
LIMIT_S = 60.0


def wait(condition: Callable[[], Any], what: str, tell: Callable[[], str]) -> None:
    """Wait for something that comes over a process that cannot be waited for."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not come\n{tell()}"
        time.sleep(0.1)


RESOURCE = """
[[services.web.resources]]
type = "systemd"
id = "program"
unit = "program.service"
"""
PROGRAM = "[Service]\nExecStart=sleep 1000\nRestart=always\n"


class Servers:
    """Both servers with their units installed, the volume made, and everything started by `relevo.target`.

    The service has a unit of systemd among its resources.
    """

    def __init__(self, lab: Lab, folder: pathlib.Path) -> None:
        self.lab = lab
        lab.up(service=False, units=[Unit(name="idle", argv=("sleep", "infinity"))])
        for name in SERVERS:
            toml = lab.path(name, "etc/relevo/relevo.toml")
            before, address, after = toml.read_text().rpartition('\n[[services.web.resources]]\ntype = "address"')
            toml.write_text(before + RESOURCE + address + after)
            lab.path(name, "etc/systemd/system/program.service").write_text(PROGRAM)
            lab.run(name, ["relevo", "mirror", "create", "r0", "--zeroed"], check=True)
            lab.run(name, ["relevo", "units", "install"], check=True)
        self.machines = {name: SystemdMachine(lab, name, folder / f"{name}.systemd") for name in SERVERS}
        for machine in self.machines.values():
            machine.systemctl("start", "relevo-mirror@r0")
        wait(self._connected, "a connection", self.journals)
        self.machines["nodo1"].run("relevo", "volume", "format", "r0", "--yes", check=True)
        for machine in self.machines.values():
            machine.systemctl("start", "relevo.target")
        wait(lambda: service.answer(lab) == "200", "the service", self.journals)
        self.wait_up_to_date()

    def mirror(self, name: str) -> dict[str, Any]:
        return service.mirror_status(self.lab, name) or {}

    def _connected(self) -> bool:
        return all(self.mirror(name).get("connection") == "Connected" for name in SERVERS)

    def wait_up_to_date(self) -> None:
        wait(lambda: all(self.mirror(name).get("disk") == "UpToDate" for name in SERVERS), "UpToDate", self.journals)

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.machines[name].run("relevo", "status", "--json").stdout or b"{}")
        return found

    def journals(self) -> str:
        return "\n".join(machine.journal() for machine in self.machines.values())


@pytest.fixture
def servers(make_lab: LabMaker, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Any:
    made = Servers(make_lab(limit_s=170.0, disk_bytes=64 << 20), tmp_path)
    yield made
    if getattr(request.node, "failed", False):
        for name in SERVERS:
            if made.lab.machine(name).process is not None:
                print(f"---- {name}\n{made.machines[name].journal()}")
    made.lab.down()
    for machine in made.machines.values():
        machine.close()


def test_a_daemon_that_dies_is_started_again_and_the_mirror_stays(servers: Servers) -> None:
    active = servers.machines["nodo1"]
    before = {name: active.show(name, "MainPID") for name in ("relevo-mirror@r0", "relevo-node", "relevo-heartbeat")}
    policy = active.run("chrt", "--pid", before["relevo-heartbeat"]).stdout
    assert b"SCHED_RR" in policy
    assert b"priority: 1" in policy
    answers = []
    active.systemctl("kill", "--kill-whom", "main", "--signal", "KILL", "relevo-node")
    wait(lambda: active.show("relevo-node", "MainPID") not in {before["relevo-node"], "0"}, "a new one", active.journal)
    wait(lambda: answers.append(service.answer(servers.lab)) or servers.status("nodo1"), "its word", active.journal)
    active.systemctl("restart", "relevo-node")
    wait(lambda: answers.append(service.answer(servers.lab)) or servers.status("nodo1"), "its word", active.journal)
    assert active.show("relevo-heartbeat", "MainPID") == before["relevo-heartbeat"]
    active.systemctl("restart", "relevo-heartbeat")
    before["relevo-heartbeat"] = active.show("relevo-heartbeat", "MainPID")

    def seen() -> bool:
        answers.append(service.answer(servers.lab))
        told = servers.status("nodo2")
        return bool(
            told["nodes"]["nodo1"]["state"] == "alive" and told["services"]["web"]["states"]["nodo1"] == "started"
        )

    wait(seen, "nodo1 as it was", servers.journals)
    assert set(answers) == {"200"}
    assert active.show("relevo-mirror@r0", "MainPID") == before["relevo-mirror@r0"]
    assert active.show("relevo-heartbeat", "MainPID") == before["relevo-heartbeat"]


def test_a_shutdown_leaves_in_order(servers: Servers) -> None:
    put = ["relevo", "put", "/etc/services", URL]
    servers.lab.run(CLIENT, put, check=True)
    assert servers.machines["nodo1"].systemctl("is-active", "program") == "active"
    servers.machines["nodo1"].power_off()
    wait(
        lambda: service.answer(servers.lab) == "200",
        "the service on the other server",
        servers.machines["nodo2"].journal,
    )
    seen = servers.status("nodo2")
    assert seen["nodes"]["nodo1"]["state"] == "left"
    assert seen["services"]["web"]["states"]["nodo2"] == "started"
    assert servers.machines["nodo2"].systemctl("is-active", "program") == "active"
    said = servers.machines["nodo1"].journal()
    steps = ("Stopping relevo-leave", "Stopped program", "relevo-leave.service: Deactivated", "Stopped relevo-node")
    places = [said.find(step) for step in steps]
    assert -1 not in places, said
    assert places == sorted(places), said
    assert servers.mirror("nodo2")["peer_disk"] == "Outdated"
    got = servers.lab.run(CLIENT, ["curl", "--silent", "--fail", f"{URL}services"], capture=True, check=True)
    assert got.stdout == pathlib.Path("/etc/services").read_bytes()


def test_stopping_the_target_is_leaving_and_starting_it_is_coming_back(servers: Servers) -> None:
    first, second = servers.machines["nodo1"], servers.machines["nodo2"]
    first.systemctl("stop", "relevo.target")
    units = ("relevo-leave", "relevo-node", "relevo-files@files", "relevo-heartbeat", "relevo-mirror@r0")
    assert [first.show(unit, "ActiveState") for unit in units] == ["inactive"] * 5
    ends = [int(first.show(unit, "InactiveEnterTimestampMonotonic")) for unit in units]
    assert ends == sorted(ends), dict(zip(units, ends, strict=True))
    wait(lambda: service.answer(servers.lab) == "200", "the service on the other server", second.journal)
    assert servers.status("nodo2")["nodes"]["nodo1"]["state"] == "left"
    first.systemctl("start", "relevo.target")
    servers.wait_up_to_date()

    def back() -> bool:
        states = servers.status("nodo1").get("services", {}).get("web", {}).get("states", {})
        return bool(states.get("nodo1") == "started" and service.answer(servers.lab) == "200")

    wait(back, "the failback", servers.journals)


def test_a_shutdown_without_the_node_daemon_unmounts_before_the_mirror_ends(servers: Servers) -> None:
    servers.machines["nodo1"].systemctl("stop", "relevo-node")
    assert service.answer(servers.lab) == "200", "what runs goes on"
    servers.lab.run(CLIENT, ["relevo", "put", "/etc/services", URL], check=True)
    servers.machines["nodo1"].power_off()
    said = servers.machines["nodo1"].journal()
    steps = ("Stopped relevo-files@files.service", "Unmounted srv-relevo.mount", "Stopped relevo-mirror@r0.service")
    places = [said.find(step) for step in steps]
    assert -1 not in places, said
    assert places == sorted(places), said
    assert "Failed unmounting" not in said, said
    assert "worker_killed" not in said, said
