"""Two real heartbeat daemons in two network namespaces, joined by two bridges in a third."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from heartbeat_support import DATA, two_nodes
from relevo.base import control
from relevo.base.paths import Paths
from relevo.heartbeat import wire
from relevo.heartbeat.wire import Message

TESTS = DATA.parent
LIMIT_S = 20.0
State = dict[str, Any]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Scene:
    """Namespaces nodo1 and nodo2, each with eth0 and eth1, and a hub with a bridge for each pair of cards."""

    def __init__(self) -> None:
        self.space = {name: f"relevo-hb-{os.getpid()}-{name}" for name in ("nodo1", "nodo2", "hub")}

    def build(self) -> None:
        for space in self.space.values():
            ip("netns", "add", space)
        for card, prefix in (("eth0", "192.168.0"), ("eth1", "10.27.0")):
            ip("-n", self.space["hub"], "link", "add", f"br-{card}", "up", "type", "bridge")
            for number in (1, 2):
                space, port = self.space[f"nodo{number}"], f"{card}-{number}"
                ip("-n", self.space["hub"], "link", "add", port, "type", "veth", "peer", "name", card, "netns", space)
                ip("-n", self.space["hub"], "link", "set", port, "master", f"br-{card}", "up")
                ip("-n", space, "address", "add", f"{prefix}.{number}/24", "broadcast", "+", "dev", card)
                ip("-n", space, "link", "set", card, "up")

    def remove(self) -> None:
        for space in self.space.values():
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)

    def silence(self, card: str, node: str) -> None:
        """The carrier stays, nothing passes."""
        ip("-n", self.space["hub"], "link", "set", f"{card}-{node[-1]}", "nomaster")

    def heal(self, card: str, node: str) -> None:
        ip("-n", self.space["hub"], "link", "set", f"{card}-{node[-1]}", "master", f"br-{card}")

    def inject(self, node: str, datagram: bytes) -> None:
        """Send a datagram from a node's namespace to the other one, over eth1."""
        address = f"10.27.0.{3 - int(node[-1])}"
        code = (
            "import socket,sys;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
            f"s.sendto(sys.stdin.buffer.read(),('{address}',694))"
        )
        command = ["ip", "netns", "exec", self.space[node], sys.executable, "-c", code]
        subprocess.run(command, input=datagram, check=True)


class Daemon:
    """One `relevo heartbeat run` in its namespace."""

    def __init__(self, scene: Scene, node: str, folder: pathlib.Path, key_text: str = "HI!") -> None:
        self.scene, self.node, self.folder = scene, node, folder
        self.socket = Paths(run=folder / "run").socket("heartbeat")
        self.key_text = key_text
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Daemon:
        command = ["ip", "netns", "exec", self.scene.space[self.node], sys.executable]
        command += [str(TESTS / "heartbeat_node.py"), self.node, str(self.folder), self.key_text]
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(TESTS)})
        return self

    def signal(self, number: int) -> int:
        """Send it a signal and wait for its end; gives the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, do: str, **arguments: object) -> State:
        return control.call(self.socket, do, timeout_s=LIMIT_S, **arguments)

    def wait_until_it_answers(self, deadline: float) -> None:
        """No event tells of a socket's birth."""
        while True:
            try:
                self.ask("status")
            except control.DaemonUnreachable:
                assert time.monotonic() < deadline, self.log()
                assert self.process is not None
                assert self.process.poll() is None, self.log()
                time.sleep(0.02)
            else:
                return

    def wait_until(self, holds: Callable[[State], bool]) -> State:
        """Watch until a state fulfils the condition; gives that state."""
        deadline = time.monotonic() + LIMIT_S
        self.wait_until_it_answers(deadline)
        state: State = {}
        with contextlib.closing(control.watch(self.socket, timeout_s=LIMIT_S)) as states:
            for state in states:
                if holds(state):
                    return state
                if time.monotonic() > deadline:
                    break
        raise AssertionError(f"{state}\n{self.log()}")


def peer(state: State) -> State:
    return next(iter(state["peers"].values()))


def both_up(state: State) -> bool:
    return peer(state)["state"] == "active" and set(peer(state)["links"].values()) == {"up"} and peer(state)["hears_us"]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    scene = Scene()
    try:
        scene.build()
        yield scene
    finally:
        scene.remove()


@pytest.fixture
def pair(scene: Scene, tmp_path: pathlib.Path) -> Iterator[tuple[Daemon, Daemon]]:
    daemons = (Daemon(scene, "nodo1", tmp_path / "nodo1"), Daemon(scene, "nodo2", tmp_path / "nodo2"))
    try:
        yield daemons
    finally:
        for daemon in daemons:
            daemon.end()


def test_they_find_each_other_and_facts_arrive_at_once(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    state = two.wait_until(both_up)
    assert state["me"] == "nodo2"
    assert list(state["peers"]) == ["nodo1"]
    assert state["boot_id"] != peer(state)["boot_id"] == one.ask("status")["boot_id"]
    assert peer(state)["relevo"]
    assert peer(state)["config_same"]
    large = {"services": {"web": "started"}, "note": "ñ" * 30_000}  # nearly the limit: many fragments
    with contextlib.closing(control.watch(two.socket, timeout_s=LIMIT_S)) as states:
        next(states)
        begin = time.monotonic()
        one.ask("publish", facts=large)
        received = next(state for state in states if peer(state)["facts"] is not None)
        elapsed_s = time.monotonic() - begin
    assert peer(received)["facts"] == large
    assert peer(received)["facts_no"] == 1
    assert elapsed_s < 0.15, "it did not wait for a heartbeat"
    with pytest.raises(control.Refused, match="cannot be published") as refused:
        one.ask("publish", facts={"note": "x" * 100_000})
    assert refused.value.error == "FactsTooLarge"
    assert one.ask("suspect", peer="nodo2")["ok"]
    with pytest.raises(control.Refused, match="not a peer"):
        one.ask("suspect", peer="nodo1")


def test_a_killed_one_is_dead_after_deadtime_and_returns_as_a_new_generation(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    before = two.wait_until(both_up)
    one.signal(signal.SIGKILL)
    begin = time.monotonic()
    late = two.wait_until(lambda state: peer(state)["late"])
    assert peer(late)["state"] == "active"
    dead = two.wait_until(lambda state: peer(state)["state"] == "dead")
    assert 0.9 < time.monotonic() - begin < 5, "deadtime is 1.2 s"
    assert peer(dead)["silent_ms"] >= 1200
    one.start()
    after = two.wait_until(both_up)
    assert peer(after)["generation"] == peer(before)["generation"] + 1
    assert peer(after)["boot_id"] == peer(before)["boot_id"], "only the daemon began anew, not the server"


def test_a_restarted_one_accepts_the_live_peer_at_once(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    two.ask("publish", facts={"web": 1})
    one.signal(signal.SIGKILL)
    one.start()
    state = one.wait_until(lambda state: both_up(state) and peer(state)["facts"] is not None)
    assert not state["initdead_passed"], "it was heard before anything could be decided without it"
    assert peer(state)["facts"] == {"web": 1}


def test_goodbye_by_signal_and_by_request(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    two.wait_until(both_up)
    assert one.signal(signal.SIGTERM) == 0
    left = two.wait_until(lambda state: peer(state)["state"] != "active")
    assert peer(left)["state"] == "left"
    assert not one.socket.exists()
    one.start()
    one.wait_until(both_up)
    before = two.wait_until(both_up)
    one.ask("leave")
    assert one.ask("status")["state"] == "left"
    two.wait_until(lambda state: peer(state)["state"] == "left")
    one.ask("join")
    after = two.wait_until(both_up)
    assert peer(after)["generation"] == peer(before)["generation"] + 1


def test_no_goodbye_by_signal_while_the_node_daemon_says_that_something_runs(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    two.wait_until(both_up)
    one.ask("publish", facts={"web": 1}, runs=True)
    assert one.signal(signal.SIGTERM) == 0
    gone = two.wait_until(lambda state: peer(state)["state"] != "active")
    assert peer(gone)["state"] == "dead", "a goodbye would have the other start what still runs here"


def test_a_wrong_key_is_counted_and_named(scene: Scene, pair: tuple[Daemon, Daemon], tmp_path: pathlib.Path) -> None:
    one, _ = pair
    stranger = Daemon(scene, "nodo2", tmp_path / "other", key_text="wrong")
    one.start()
    stranger.start()
    try:
        state = one.wait_until(lambda state: state["initdead_passed"])
    finally:
        stranger.end()
    assert peer(state)["state"] == "dead"
    assert state["counters"]["bad_signature"] > 10
    assert state["last_dropped"]["reason"] == "bad_signature"
    assert state["last_dropped"]["sender"] in ("192.168.0.2", "10.27.0.2")
    assert "bad_signature" in one.log()


def test_one_link_silent_then_both_then_healed(scene: Scene, pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    two.wait_until(both_up)
    scene.silence("eth1", "nodo1")
    try:
        state = two.wait_until(lambda state: peer(state)["links"]["cross"] == "down")
        assert peer(state)["state"] == "active"
        assert peer(state)["links"]["users"] == "up"
        assert state["links"] == {"users": "up", "cross": "up"}, "the carrier is still there"
        scene.silence("eth0", "nodo1")
        try:
            two.wait_until(lambda state: peer(state)["state"] == "dead")
            one.wait_until(lambda state: peer(state)["state"] == "dead")
        finally:
            scene.heal("eth0", "nodo1")
        generation = peer(two.wait_until(lambda state: peer(state)["state"] == "active"))["generation"]
        assert generation == peer(state)["generation"]
    finally:
        scene.heal("eth1", "nodo1")
    two.wait_until(both_up)


def test_a_card_that_goes_down_and_one_that_vanishes(scene: Scene, pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    space, hub = scene.space["nodo1"], scene.space["hub"]
    ip("-n", space, "link", "set", "eth1", "down")
    try:
        state = one.wait_until(lambda state: state["links"]["cross"] == "down")
        assert peer(state)["links"] == {"users": "up", "cross": "down"}
    finally:
        ip("-n", space, "link", "set", "eth1", "up")
    one.wait_until(both_up)
    ip("-n", space, "link", "delete", "eth1")
    try:
        one.wait_until(lambda state: state["links"]["cross"] == "down")
        state = two.wait_until(lambda state: peer(state)["links"]["cross"] == "down")
        assert peer(state)["state"] == "active"
    finally:
        ip("-n", hub, "link", "add", "eth1-1", "type", "veth", "peer", "name", "eth1", "netns", space)
        ip("-n", hub, "link", "set", "eth1-1", "master", "br-eth1", "up")
        ip("-n", space, "address", "add", "10.27.0.1/24", "broadcast", "+", "dev", "eth1")
        ip("-n", space, "link", "set", "eth1", "up")
    one.wait_until(both_up)
    two.wait_until(both_up)


def test_a_frozen_one_is_dead_for_the_other_and_does_not_accuse_it_afterwards(pair: tuple[Daemon, Daemon]) -> None:
    one, two = pair
    one.start()
    two.start()
    one.wait_until(both_up)
    assert one.process is not None
    with contextlib.closing(control.watch(one.socket, timeout_s=LIMIT_S)) as states:
        one.process.send_signal(signal.SIGSTOP)
        two.wait_until(lambda state: peer(state)["state"] == "dead")
        one.process.send_signal(signal.SIGCONT)
        two.wait_until(both_up)
        one.ask("publish", facts={"after": "pause"})
        one.ask("leave")  # changes the state once more, so that the loop below ends
        seen = []
        for state in states:
            seen.append(peer(state)["state"])
            if state["state"] == "left":
                break
    assert set(seen) == {"active"}
    assert one.ask("status")["pauses"] == 1


def test_a_recorded_datagram_is_refused_now_and_after_a_restart(scene: Scene, pair: tuple[Daemon, Daemon]) -> None:
    two = pair[1]
    key = two_nodes().authkeys.signing
    fields = (("t", "status"), ("st", "active"), ("src", "nodo1"), ("srcuuid", b"u" * 16), ("hg", "10"), ("ts", "1"))
    recorded = [wire.encode(Message((*fields, ("seq", str(number)))), key) for number in (1, 2)]
    two.start()
    two.wait_until(lambda state: peer(state)["state"] == "unknown")
    for datagram in recorded:
        scene.inject("nodo1", datagram)
    two.wait_until(lambda state: peer(state)["generation"] == 0x10)  # their mark is stable, so they were accepted
    two.signal(signal.SIGKILL)
    two.start()
    two.wait_until(lambda state: peer(state)["state"] == "unknown")
    for datagram in recorded:
        scene.inject("nodo1", datagram)
    scene.inject("nodo1", recorded[0].replace(b"active", b"actibe"))
    state = two.wait_until(lambda state: state["initdead_passed"])
    assert peer(state)["state"] == "dead"
    assert state["counters"]["replayed"] == len(recorded)
    assert state["counters"]["bad_signature"] == 1
