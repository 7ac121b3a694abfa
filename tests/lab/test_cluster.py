"""The whole of two servers with real processes: what the manual promises, under load, with faults of each kind."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from dav_client import OpenFile

from cluster_load import Cluster
from relevo.lab import poll
from relevo.lab.demo import polling
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import MIRROR, URL
from relevo.lab.story import Status, other_than

PROBE = "probe.txt"
DISK_BYTES = 128 << 20
PATIENT_MS = 20_000
"""Time limit of polls where nothing may fail: a pause is no failure, and a slow machine none either."""


def _count(cluster: Cluster, node: str, what: str) -> int:
    return cluster.lab.logs(node).count(what)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One lab for all tests of this file: each of them leaves both servers up, current, the service on nodo1."""
    lab = Lab(tmp_path_factory.mktemp("cluster") / "lab", Options(disk_bytes=DISK_BYTES))
    scratch = lab.shared
    try:
        lab.up()
        cluster = Cluster(lab, scratch)
        (scratch / PROBE).write_text("Relevo\n")
        lab.run("client", ["curl", "-sf", "-T", str(scratch / PROBE), URL], check=True)
        yield cluster
    finally:
        lab.erase()


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.recover()
    running.acknowledged.clear()
    return running


def test_an_orderly_hand_over_and_back(cluster: Cluster) -> None:
    with cluster.one_address(), cluster.load():
        cluster.lab.run("nodo1", ["relevo", "standby", "nodo1"], check=True, capture=True)
        cluster.story.await_service_away_from("nodo1")
        assert cluster.holders() == ["nodo2"]
        cluster.lab.run("nodo2", ["relevo", "online", "nodo1"], check=True, capture=True)
        cluster.story.await_service_on("nodo1")
        assert cluster.holders() == ["nodo1"]
    cluster.judge()


def test_an_orderly_stop_of_the_active_server(cluster: Cluster) -> None:
    with cluster.one_address(), cluster.load():
        cluster.lab.stop("nodo1")
        cluster.story.await_service_away_from("nodo1")
    with cluster.load():
        cluster.lab.boot("nodo1")
        cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_a_power_cut_of_the_active_server_and_a_second_one_right_after(cluster: Cluster) -> None:
    with cluster.one_address(), cluster.load():
        opened = OpenFile.begin(cluster.lab)
        cluster.lab.crash("nodo1")
        cluster.story.await_service_away_from("nodo1")
    with cluster.load():
        cluster.lab.boot("nodo1")
        cluster.story.await_both_current("nodo2")
        opened.say("green")
        cluster.lab.crash("nodo2")
        cluster.story.await_service_away_from("nodo2")
        cluster.lab.boot("nodo2")
        cluster.story.await_service_on("nodo1")
    opened.end("green")
    cluster.judge()


def test_a_power_cut_of_the_passive_server_is_not_noticed(cluster: Cluster) -> None:
    log = cluster.scratch / "passive.jsonl"
    with polling(cluster.lab, log, URL + PROBE, limit_ms=PATIENT_MS), cluster.one_address(), cluster.load():
        cluster.lab.crash("nodo2")
        cluster.story.await_status("nodo2 dead", "nodo1", lambda state: state["nodes"]["nodo2"]["state"] == "dead")
        cluster.lab.boot("nodo2")
        cluster.story.await_service_on("nodo1")
    polls = poll.read_polls(log)
    assert len(polls) > 0
    assert [found.why for found in polls if not found.good] == []
    cluster.judge()


def parted(state: Status) -> bool:
    """Both mirrors know that they do not reach each other."""
    return all(side["connection"] != "Connected" for side in state["mirrors"][MIRROR].values())


@pytest.mark.parametrize("link", ["eth0", "eth1"])
@pytest.mark.parametrize("node", ["nodo1", "nodo2"])
def test_one_cut_link_splits_nothing(cluster: Cluster, node: str, link: str) -> None:
    name = {"eth0": "users", "eth1": "cross"}[link]
    other = other_than(node)
    with cluster.one_address():
        cluster.lab.cut(node, link)
        state = cluster.story.await_status(
            f"{name} down", other, lambda state: state["nodes"][node]["links"][name] == "down"
        )
        assert state["nodes"][node]["state"] == "alive"
        assert state["services"]["web"]["node"] == "nodo1"
        if link == "eth1":
            cluster.story.await_status("no mirror link", "nodo1", parted)  # which takes its own time
            refused = cluster.lab.run("nodo1", ["relevo", "standby", "nodo1"], capture=True)
            assert refused.returncode == 1
            assert b"web would run nowhere" in refused.stderr
        if not (node == "nodo1" and link == "eth0"):  # then no client reaches the active server, and it stays
            with cluster.load():
                pass
        cluster.lab.heal(node)
        cluster.story.await_service_on("nodo1", seen_from=other)
        with cluster.load():
            pass
    cluster.judge()


def test_a_pulled_users_cable_moves_the_service(cluster: Cluster) -> None:
    with cluster.one_address(), cluster.load():
        cluster.lab.cut("nodo1", "eth0", cable=True)
        cluster.story.await_service_away_from("nodo1")
        cluster.lab.heal("nodo1")
        cluster.lab.run("nodo1", ["relevo", "cleanup", "web"], check=True, capture=True)
        cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_both_links_cut_is_a_split_brain_that_keeps_everything_until_it_is_resolved(cluster: Cluster) -> None:
    with cluster.load():
        cluster.lab.cut("nodo1")
        cluster.story.await_service_away_from("nodo1")
        lonely = "echo 'only nodo1 has this' > /srv/relevo/lonely.txt && sync -f /srv/relevo/lonely.txt"
        cluster.lab.run("nodo1", ["sh", "-c", lonely], check=True)
    kept = list(cluster.acknowledged)
    cluster.lab.heal("nodo1")
    state = cluster.story.await_status(
        "Exactly one server",
        "nodo2",
        lambda state: (
            state["mirrors"][MIRROR]["nodo2"]["split_brain"]
            and sorted(state["services"]["web"]["states"].values()) == ["started", "stopped"]
        ),
    )
    serving = state["services"]["web"]["node"]
    assert cluster.holders() == [serving]
    resolve = ["relevo", "mirror", "resolve", "--keep", "nodo2"]
    shown = cluster.lab.run("nodo1", ["relevo", "mirror", "status", MIRROR], check=True).stdout.decode()
    assert "apart since 20" in shown, "since when, and how much each side wrote"
    assert "changed here" in shown
    unsure = cluster.lab.run("nodo2", resolve, capture=True)
    assert (unsure.returncode, b"nodo1 LOSES its changes: " in unsure.stdout) == (1, True)
    assert b"--yes" in unsure.stderr
    said = cluster.lab.run("nodo2", [*resolve, "--yes"], check=True, capture=True).stdout.decode()
    cluster.story.await_service_on("nodo1")
    listed = cluster.lab.run("nodo1", ["relevo", "mirror", "saved", "list"], check=True).stdout.decode()
    assert "split-brain" in listed, "what nodo1 gave up was kept"
    assert recovered(cluster.lab, said, listed.split()[0], "lonely.txt") == b"only nodo1 has this\n"
    cluster.acknowledged = kept
    cluster.judge()


def recovered(lab: Lab, said: str, copy: str, name: str) -> bytes:
    """A file out of the saved copy, by the commands that `resolve` told people to give."""
    commands = [line.split("#")[0].replace("COPY", copy).strip() for line in said.splitlines() if line.startswith("  ")]
    (make,) = [line for line in commands if line.startswith("relevo mirror saved image")]
    made = lab.run("nodo1", ["sh", "-c", f"cd /srv && {make}"], check=True, capture=True).stdout.decode()
    (mount,) = [line.partition(": ")[2] for line in made.splitlines() if line.startswith("Look into it: ")]
    # a lab's machine has no nodes of loop devices but those of its mirrors
    nodes = "for n in $(seq 0 255); do mknod /dev/loop$n b 7 $n; done"
    script = ["set -e", nodes, "cd /srv", mount, f"cat /mnt/{name}", "umount /mnt", "rm old.img"]
    return lab.run("nodo1", ["sh", "-c", "\n".join(script)], check=True, capture=True).stdout


def test_the_node_daemon_dies_and_nobody_notices(cluster: Cluster) -> None:
    log = cluster.scratch / "node-daemon.jsonl"
    with polling(cluster.lab, log, URL + PROBE, limit_ms=PATIENT_MS), cluster.one_address(), cluster.load():
        for node in ("nodo1", "nodo2"):
            cluster.lab.unit(node, "node", "kill")
            cluster.story.await_service_on("nodo1", seen_from=node)
    polls = poll.read_polls(log)
    assert len(polls) > 0
    assert [found.why for found in polls if not found.good] == []
    cluster.judge()


def test_a_mirror_process_dies_and_nobody_notices(cluster: Cluster) -> None:
    """Its device waits for the next one; neither the agent nor the node takes that for a failure."""
    log = cluster.scratch / "mirror-worker.jsonl"
    resumed = _count(cluster, "nodo1", '"event": "resumed"')
    with polling(cluster.lab, log, URL + PROBE, limit_ms=PATIENT_MS), cluster.one_address(), cluster.load():
        for node in ("nodo1", "nodo2"):
            cluster.lab.run(node, ["pkill", "-KILL", "-f", "relevo.mirror.worker"], check=True)
            cluster.story.await_both_current("nodo1")
    polls = poll.read_polls(log)
    assert len(polls) > 0
    assert [found.why for found in polls if not found.good] == []
    assert _count(cluster, "nodo1", '"event": "resumed"') == resumed + 1
    cluster.judge()


@pytest.mark.parametrize("unit", ["heartbeat", "files", "mirror"])
@pytest.mark.parametrize("node", ["nodo1", "nodo2"])
def test_a_killed_daemon_loses_nothing(cluster: Cluster, node: str, unit: str) -> None:
    with cluster.one_address(), cluster.load():
        cluster.lab.unit(node, unit, "kill")
        cluster.story.await_both_current("nodo1")
    cluster.lab.run("nodo1", ["relevo", "cleanup", "web"], check=True, capture=True)
    cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_a_power_cut_right_after_each_201(cluster: Cluster) -> None:
    """The acknowledged file is there although the power went the moment after its answer."""
    active = "nodo1"
    for number in range(3):
        name = f"after-201-{number}.bin"
        data = f"{number}".encode() * 100_000
        command = ["curl", "-sf", "-o", "/dev/null", "-T", "-", URL + name]
        assert cluster.lab.run("client", command, stdin=data, capture=True).returncode == 0
        cluster.lab.crash(active)
        cluster.story.await_service_away_from(active)
        got = cluster.lab.run("client", ["curl", "-sf", URL + name], capture=True)
        assert got.stdout == data
        cluster.lab.boot(active)
        cluster.story.await_service_on("nodo1")
    with cluster.load():
        pass
    cluster.judge()


def test_a_large_upload_and_a_large_download_run_through_a_failover(cluster: Cluster) -> None:
    """Each client is held (SIGSTOP) when a part has gone over, so that the power is cut in the middle for certain."""
    large = cluster.scratch / "large.bin"
    large.write_bytes(b"".join(number.to_bytes(8, "big") for number in range(6 << 20)))
    fetched = cluster.scratch / "fetched.bin"
    part_kib = large.stat().st_size // 10 // 1024
    with cluster.one_address():
        up = cluster.lab.popen("client", ["relevo", "put", "--quiet", str(large), URL])
        cluster.hold_when("nodo1", "/srv/relevo", part_kib, "relevo put")
        assert up.poll() is None
        cluster.lab.crash("nodo1")
        up.send_signal(signal.SIGCONT)
        assert up.wait(timeout=90) == 0
        cluster.lab.boot("nodo1")
        cluster.story.await_service_on("nodo1")
        down = cluster.lab.popen("client", ["relevo", "get", "--quiet", URL + "large.bin", str(fetched)])
        cluster.hold_when("client", str(cluster.scratch), part_kib, "relevo get")
        assert down.poll() is None
        cluster.lab.crash("nodo1")
        down.send_signal(signal.SIGCONT)
        assert down.wait(timeout=90) == 0
        assert fetched.read_bytes() == large.read_bytes()
        cluster.lab.boot("nodo1")
        cluster.story.await_service_on("nodo1")
    with cluster.load():
        pass
    cluster.judge()
