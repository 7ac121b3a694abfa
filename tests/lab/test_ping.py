"""The ping target of two real servers: out of reach for one of them the service moves, for both it stays."""

from __future__ import annotations

from lab_maker import LabMaker
from relevo.lab.scene import ADDRESSES, CLIENT
from relevo.lab.story import Status, Story

TARGET = "clients"
SETTINGS = f"""
[ping]
interval = "200 ms"
deadping = "3 s"
settle = "1 s"
[ping.targets]
{TARGET} = ["{ADDRESSES[CLIENT]["eth0"].partition("/")[0]}"]
"""


def _words(state: Status) -> tuple[str, ...]:
    return tuple(state["ping"][TARGET]["nodes"].values())


def test_a_target_lost_on_the_active_server_alone_moves_the_service_and_on_both_nothing(make_lab: LabMaker) -> None:
    lab = make_lab(name="ping", limit_s=120.0, disk_bytes=64 << 20, further=SETTINGS)
    lab.up()
    story = Story(lab)
    story.await_status("Both reach the client", "nodo1", lambda state: _words(state) == ("reached", "reached"))
    lab.cut("nodo1", "eth0")
    state = story.await_service_away_from("nodo1")
    assert _words(state)[0] == "lost"
    assert state["nodes"]["nodo1"]["state"] == "alive", "the other link carries the heartbeats"
    assert any("take no witness's place" in sentence for sentence in state["risks"])
    lab.heal("nodo1")
    story.await_service_on("nodo1")
    lab.cut(CLIENT)
    state = story.await_status("Both have lost it", "nodo1", lambda state: _words(state) == ("lost", "lost"))
    lab.heal(CLIENT)
    state = story.await_status("Both reach it again", "nodo1", lambda state: _words(state) == ("reached", "reached"))
    assert state["services"]["web"]["node"] == "nodo1"
    moves = [event["what"] for event in state["history"] if "It moves" in event["what"]]
    assert len(moves) == 1
    assert "nodo1 has lost the ping target clients, which nodo2 reaches" in moves[0]
    told = lab.run("nodo1", ["relevo", "explain", "web"], capture=True, check=True).stdout.decode()
    assert "Ping target clients" in told
