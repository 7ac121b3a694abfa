"""A node daemon that stands still has its server reset by the watchdog, and the other server takes over after that."""

from __future__ import annotations

from lab_maker import LabMaker
from relevo.lab.process import wait_until
from relevo.lab.story import Story

TIMEOUT = "5 s"
DEADTIME = {"keepalive": "200 ms", "warntime": "2 s", "deadtime": "6 s", "initdead": "10 s"}
RESET_LIMIT_S = 60.0


def test_a_frozen_node_daemon_is_reset_and_an_orderly_stop_is_not(make_lab: LabMaker) -> None:
    lab = make_lab(name="watchdog", limit_s=120.0, disk_bytes=64 << 20, heartbeat=DEADTIME, watchdog=TIMEOUT)
    lab.up()
    story = Story(lab)
    state = story.status("nodo1")
    assert state["watchdog"]["armed"]
    assert not [sentence for sentence in state["alarms"] if "watchdog" in sentence]
    frozen = lab.machine("nodo1")
    lab.unit("nodo1", "node", "freeze")
    assert story.status("nodo2")["nodes"]["nodo1"]["state"] == "alive", "its heartbeats go on"
    assert wait_until(lambda: frozen.process is None, RESET_LIMIT_S), "nobody pets: its power is cut"
    story.await_service_away_from("nodo1")
    lab.stop("nodo2")
    assert "watchdog" not in (lab.dir / "machines" / "nodo2" / "watchdog.log").read_text()
