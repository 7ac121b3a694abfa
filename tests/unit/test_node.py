"""The node daemon's parts: feeds, publisher, store, status; their peers are real control sockets."""

from __future__ import annotations

import asyncio
import datetime as dt
import pathlib

import msgspec
import pytest

from relevo import __version__
from relevo.base.control import ControlServer, Message
from relevo.base.paths import Paths
from relevo.cli.history import BadSince, begin_of
from relevo.config.load import load
from relevo.config.model import Config
from relevo.lab.scene import Options, configuration
from relevo.manager.executor import Executor
from relevo.manager.model import (
    UNUSABLE,
    Alive,
    Decision,
    Failure,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Plan,
    Record,
    ServiceFacts,
    ServiceState,
)
from relevo.node import views
from relevo.node.brain import DISCARD_AGAIN_MS, Brain, NotStored
from relevo.node.config_file import ConfigFile
from relevo.node.daemon import Daemon, Failures, now_ms
from relevo.node.fencer import Fencer
from relevo.node.history import MAX_EVENTS, History, read_history
from relevo.node.peers import Peers
from relevo.node.pinger import Pinger
from relevo.node.publisher import Publisher
from relevo.node.requests import CannotFence, NoSplitBrain, NothingToForce, Requests, RunsWell
from relevo.node.status import _outages, status_of
from relevo.node.store import Store


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "relevo.toml").write_text(configuration(Options()))
    for name, text in (("secrets.toml", '[mirror]\nr0 = "sesame"\n'), ("authkeys", "auth 1\n1 sha256 open\n")):
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize("damage", [b"{torn", b'{"node":"\xff"}'])
def test_the_store_puts_a_damaged_file_aside(tmp_path: pathlib.Path, damage: bytes) -> None:
    store = Store(tmp_path)
    store.save("record", Record(counter=3, node="nodo1"))
    assert store.load("record", Record, Record()) == Record(counter=3, node="nodo1")
    (tmp_path / "record.json").write_bytes(damage)
    assert store.load("record", Record, Record()) == Record()
    assert (tmp_path / "record.damaged").read_bytes() == damage


def test_history_is_bounded_and_says_a_thing_once() -> None:
    history = History()
    for _ in range(3):
        history.add_changed("web", "It runs on nodo1.")
    assert len(history.events()) == 1
    for number in range(2 * MAX_EVENTS):
        history.add(str(number))
    assert len(history.events()) == MAX_EVENTS


def _kept(path: pathlib.Path) -> list[str]:
    return [event.what for event in read_history(path)]


def test_the_history_on_disk_survives_a_restart_a_torn_line_and_a_full_disk(tmp_path: pathlib.Path) -> None:
    async def story() -> None:
        path = tmp_path / "node" / "history.jsonl"
        first = History("nodo1", path)
        task = asyncio.create_task(first.run())
        await asyncio.sleep(0)
        first.add_changed("web", "It runs on nodo1.", node="nodo1")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with path.open("ab") as file:
            file.write(b'{"at": "2026-')
        second = History("nodo1", path)
        second.add_changed("web", "It runs on nodo1.")  # known already
        second.add("Something else.")
        assert second.write()
        assert _kept(path) == ["It runs on nodo1.", "Something else."]
        path.unlink()
        path.mkdir()  # it cannot be written
        second.add("Later.")
        assert not second.write()
        path.rmdir()
        assert second.write()
        assert _kept(path) == ["Later."]

    asyncio.run(story())


def test_the_history_on_disk_is_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relevo.node.history.MAX_FILE_EVENTS", 10)
    history = History("nodo1", tmp_path / "history.jsonl")
    for number in range(57):
        history.add(str(number))
        assert history.write()
        assert len(_kept(tmp_path / "history.jsonl")) <= 10
    assert _kept(tmp_path / "history.jsonl")[-5:] == ["52", "53", "54", "55", "56"]


@pytest.mark.parametrize(
    ("since", "begin"),
    [
        ("2h", "2026-05-04T10:00:00+02:00"),
        ("2026-05-03", "2026-05-03T00:00:00+02:00"),
        ("x", ""),
        ("99999999999 d", ""),
    ],
)
def test_since_is_a_duration_or_a_date(since: str, begin: str) -> None:
    now = dt.datetime.fromisoformat("2026-05-04T12:00:00+02:00")
    if begin:
        assert begin_of(since, now).isoformat() == begin
    else:
        with pytest.raises(BadSince):
            begin_of(since, now)


def _brain(etc: pathlib.Path, history: History | None = None) -> Brain:
    paths = Paths(etc, etc / "state", etc / "run")
    store = Store(paths.state / "node")
    config = load(etc / "relevo.toml")
    history = history or History()
    fencer = Fencer(config, history, lambda: None)
    return Brain(
        config=config,
        me="nodo1",
        boot_id="b",
        store=store,
        paths=paths,
        history=history,
        fencer=fencer,
        pinger=Pinger(config.ping, now_ms, lambda: None),
    )


@pytest.mark.parametrize("damage", [b"{torn", b'{"standby": 7}'])
def test_a_damaged_record_is_put_aside_and_people_are_told(etc: pathlib.Path, damage: bytes) -> None:
    folder = etc / "state" / "node"
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(damage)
    history = History()
    assert _brain(etc, history).record == Record()
    assert (folder / "record.damaged").read_bytes() == damage
    (event,) = history.events()
    assert "record.json is damaged" in event["what"]


def test_a_node_that_hears_nothing_decides_nothing_and_says_so(etc: pathlib.Path) -> None:
    brain = _brain(etc)
    plan = asyncio.run(brain.think(1000, None, {"r0": None}, {}))
    assert plan.steps == ()
    state = status_of(load(etc / "relevo.toml"), "nodo1", brain, None, History())
    assert state["services"]["web"]["node"] is None
    assert any("heartbeat" in sentence for sentence in state["alarms"])
    assert any("risk" in sentence for sentence in state["risks"])
    assert state["nodes"]["nodo2"]["state"] == "unknown"


def test_servers_of_two_versions_say_so_during_the_upgrade_and_are_no_alarm(etc: pathlib.Path) -> None:
    brain = _brain(etc)
    config = load(etc / "relevo.toml")
    facts = {"boot_id": "p", "config_hash": config.hash, "record_format": 99, "program": "99.0", "unheard_of": {"a": 1}}
    peer = {"state": "active", "late": False, "facts": facts, "links": {}}
    heartbeat = {"peers": {"nodo2": peer}, "initdead_passed": True}
    asyncio.run(brain.think(1000, heartbeat, {"r0": None}, {}))
    state = status_of(config, "nodo1", brain, heartbeat, History())
    assert (state["nodes"]["nodo2"]["program"], state["nodes"]["nodo2"]["record_format"]) == ("99.0", 99)
    assert state["nodes"]["nodo1"]["program"] == __version__
    words = {name: node["state"] for name, node in state["nodes"].items()}
    assert words == {"nodo1": "alive", "nodo2": "alive"}, "active is who serves"
    assert any("different versions" in sentence and "nodo2 99.0" in sentence for sentence in state["risks"])
    assert not any("version" in sentence or "configuration" in sentence for sentence in state["alarms"])


def test_a_record_of_a_peer_is_kept_on_disk(etc: pathlib.Path) -> None:
    brain = _brain(etc)
    record = Record(epoch=1, counter=7, node="nodo2", standby=("nodo1",))
    facts = {
        "boot_id": "p",
        "config_hash": "h",
        "record": {"epoch": 1, "counter": 7, "node": "nodo2", "standby": ["nodo1"]},
    }
    peer = {"state": "active", "late": False, "facts": facts, "links": {}}
    asyncio.run(brain.think(1000, {"peers": {"nodo2": peer}, "initdead_passed": True}, {"r0": None}, {}))
    assert brain.record == record
    assert _brain(etc).record == record


def test_unreadable_facts_of_a_peer_count_as_none() -> None:
    view = views.peer_view({"state": "active", "late": True, "facts": {"boot_id": 5}})
    assert view.facts is None
    assert view.late


@pytest.mark.parametrize("mirror", [{"current_uuid": "no number"}, {"epoch": -1}, {"bitmap_uuid": "0" * 17}])
def test_facts_that_a_core_cannot_reckon_with_count_as_none(mirror: Message) -> None:
    facts = {"boot_id": "p", "config_hash": "h", "mirrors": {"r0": mirror}}
    assert views.peer_view({"state": "active", "late": False, "facts": facts}).facts is None
    assert views.mirror_facts(mirror) is None


def test_a_full_disk_is_an_alarm_and_no_vote_counts_until_it_is_stored(etc: pathlib.Path) -> None:
    async def story() -> None:
        brain = _brain(etc)
        blocked = etc / "state" / "node"
        blocked.parent.mkdir()
        blocked.touch()  # where the folder would have to be
        mirror = {"connection": "WFConnection", "disk": "UpToDate", "epoch": 6}
        await brain.think(1000, None, {"r0": mirror}, {})
        assert brain.highest_epoch() == 0
        assert any("cannot be stored" in alarm for alarm in brain.alarms)
        with pytest.raises(NotStored, match="cannot be stored"):
            brain.change_record(Record(counter=1, node="nodo1"))
        blocked.unlink()
        await brain.think(2000, None, {"r0": mirror}, {})
        assert brain.highest_epoch() == 6
        assert brain.alarms == ()

    asyncio.run(story())


def test_the_history_has_each_alarm_once_and_the_end_of_the_last_one(etc: pathlib.Path) -> None:
    async def story() -> list[str]:
        history = History("nodo1")
        brain = _brain(etc, history)
        parted = {"connection": "StandAlone", "disk": "UpToDate", "split_brain": True}
        for now, mirror in enumerate((parted, {**parted, "problem": "It is in use."}, {**parted, "problem": ""}, {})):
            await brain.think(1000 + now, None, {"r0": mirror}, {})
        return [event["what"] for event in history.events() if "alarm" in event["what"] or "mirror" in event["what"]]

    told = asyncio.run(story())
    assert [sentence.split(" of ")[0] for sentence in told] == [
        "Split brain",
        "The mirror r0 on nodo1: It is in use.",
        "No alarms.",
    ]


def _requests(brain: Brain, config: Config, paths: Paths) -> Requests:
    return Requests(
        config=config,
        me="nodo1",
        paths=paths,
        brain=brain,
        executor=Executor({}, {}, lambda: 0, lambda: None),
        fencer=Fencer(config, History(), lambda: None),
        publisher=Publisher(paths.socket("heartbeat")),
        history=History(),
        changed=lambda: None,
        told=asyncio.Condition(),
    )


@pytest.mark.parametrize("split", [False, True])
def test_only_a_split_brain_can_be_resolved(etc: pathlib.Path, *, split: bool) -> None:
    async def story() -> None:
        brain, config = _brain(etc), load(etc / "relevo.toml")
        await brain.think(1000, None, {"r0": {"connection": "StandAlone", "split_brain": split}}, {})
        requests = _requests(brain, config, Paths(etc, etc / "state", etc / "run"))
        if not split:
            with pytest.raises(NoSplitBrain):
                await requests.handlers()["resolve"]({"mirror": "r0", "keep": "nodo2"})
            assert brain.record == Record()
            return
        await requests.handlers()["resolve"]({"mirror": "r0", "keep": "nodo2"})
        assert brain.record.kept == {"r0": "nodo2"}
        assert brain.record.forced == {"web": "nodo2"}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("mirror", "state", "asked"),
    [
        ({"connection": "StandAlone", "split_brain": True}, "stopped", 2),  # the second time after a pause
        ({"connection": "WFConnection", "links": 3}, "stopped", 1),
        ({"connection": "WFConnection", "links": 3, "role": "Primary"}, "stopped", 0),
        ({"connection": "WFConnection", "links": 3}, "stopping", 0),
        ({"connection": "SyncTarget", "links": 3}, "stopped", 0),
    ],
)
def test_the_side_that_a_person_gives_up_discards_also_where_only_the_other_one_saw_the_split_brain(
    etc: pathlib.Path, mirror: Message, state: str, asked: int
) -> None:
    """A policy that wants a Primary overwritten leaves that one StandAlone, and this one waiting to be its source."""
    heard: list[str] = []

    async def story() -> None:
        paths = Paths(etc, etc / "state", etc / "run")

        async def discard(_request: Message) -> Message:
            heard.append("discard")
            return {}

        server = ControlServer(paths.socket("mirror-r0"), {"discard": discard}, {})
        await server.start()
        brain = _brain(etc)
        brain.change_record(Record(counter=1, node="nodo2", kept={"r0": "nodo2"}))
        for moment_ms in (1000, 2000, 1000 + DISCARD_AGAIN_MS):  # the same link each time
            await brain.think(moment_ms, None, {"r0": mirror}, {"web": ServiceFacts(state=ServiceState(state))})
            await asyncio.gather(*brain._duties._under_way.values())
        await server.stop()

    asyncio.run(story())
    assert heard == ["discard"] * asked


def test_what_a_resolution_costs_is_said_before_anything_is_decided(etc: pathlib.Path) -> None:
    """Who loses how much, for either decision, as both servers count it now."""
    mine = {"connection": "StandAlone", "split_brain": True, "out_of_sync_bytes": 5 * 4096}
    side = MirrorFacts(connection="StandAlone", split_brain=True, out_of_sync_bytes=2 * 4096)
    theirs = NodeFacts(boot_id="b", config_hash="c", mirrors={"r0": side})

    async def story() -> None:
        brain, config = _brain(etc), load(etc / "relevo.toml")
        paths = Paths(etc, etc / "state", etc / "run")

        async def status(_request: Message) -> Message:
            return {"split_brain_since": "2026-11-26T07:00:00Z"}

        server = ControlServer(paths.socket("mirror-r0"), {"status": status}, {})
        await server.start()
        await brain.think(1000, None, {"r0": mine}, {})
        brain.nodes["nodo2"] = NodeView(alive=Alive.ALIVE, facts=theirs)
        ask = _requests(brain, config, paths).handlers()["resolve_preview"]
        told = await ask({"mirror": "r0", "keep": "nodo1"})
        assert told["since"] == "2026-11-26T07:00:00Z"
        assert told["changed_bytes"] == {"nodo1": 5 * 4096, "nodo2": 2 * 4096}
        assert (told["keep"], told["loser"]) == ("nodo1", "nodo2")
        assert (await ask({"mirror": "r0", "keep": "nodo2"}))["loser"] == "nodo1"
        brain.nodes["nodo2"] = NodeView(alive=Alive.DEAD)
        assert (await ask({"mirror": "r0", "keep": "nodo1"}))["changed_bytes"] == {"nodo1": 5 * 4096, "nodo2": None}
        assert brain.record == Record(), "nothing was decided"
        await server.stop()

    asyncio.run(story())


SERVING = MirrorFacts(role="Primary", connection="Connected", disk="UpToDate", peer_disk="UpToDate")


@pytest.mark.parametrize(
    ("state", "side", "alive", "refusal"),
    [
        ("started", {}, Alive.ALIVE, "relevo move web nodo1"),
        ("started", {"split_brain": True, "connection": "StandAlone"}, Alive.ALIVE, "relevo mirror resolve r0"),
        ("started", {"suspended": True}, Alive.ALIVE, ""),
        ("started", {"disk": "Inconsistent", "peer_disk": "DUnknown"}, Alive.ALIVE, ""),
        ("failed", {}, Alive.ALIVE, ""),
        ("started", {}, Alive.DEAD, ""),
    ],
)
def test_what_runs_well_elsewhere_is_moved_and_never_forced(
    etc: pathlib.Path, state: str, side: Message, alive: Alive, refusal: str
) -> None:
    there = NodeFacts(
        boot_id="b",
        config_hash="c",
        services={"web": ServiceFacts(state=ServiceState(state))},
        mirrors={"r0": msgspec.structs.replace(SERVING, **side)},
    )

    async def story() -> None:
        brain, config = _brain(etc), load(etc / "relevo.toml")
        await brain.think(1000, None, {"r0": {"connection": "Connected", "disk": "UpToDate"}}, {})
        brain.nodes["nodo2"] = NodeView(alive=alive, facts=there)
        asked = _requests(brain, config, Paths(etc, etc / "state", etc / "run")).handlers()
        for request in ("force_check", "force"):
            if refusal:
                with pytest.raises(RunsWell, match=refusal):
                    await asked[request]({"service": "web"})
            else:
                await asked[request]({"service": "web"})
        assert brain.record.forced == ({} if refusal else {"web": "nodo1"})

    asyncio.run(story())


@pytest.mark.parametrize("disk", ["Inconsistent", "Diskless"])
def test_what_is_no_copy_is_not_forced(etc: pathlib.Path, disk: str) -> None:
    async def story() -> None:
        brain, config = _brain(etc), load(etc / "relevo.toml")
        await brain.think(1000, None, {"r0": {"disk": disk}}, {})
        asked = _requests(brain, config, Paths(etc, etc / "state", etc / "run")).handlers()
        for request in ("force_check", "force"):
            with pytest.raises(NothingToForce, match=disk):
                await asked[request]({"service": "web"})
        assert brain.record == Record()

    asyncio.run(story())


def test_nobody_says_that_a_server_is_off_while_it_is_heard(etc: pathlib.Path) -> None:
    async def story() -> None:
        brain, config = _brain(etc), load(etc / "relevo.toml")
        ask = _requests(brain, config, Paths(etc, etc / "state", etc / "run")).handlers()["fence"]
        brain.nodes["nodo2"] = NodeView(alive=Alive.ALIVE)
        with pytest.raises(CannotFence, match="nodo2 is heard"):
            await ask({"node": "nodo2", "by_hand": True})
        brain.nodes["nodo2"] = NodeView(alive=Alive.DEAD)
        await ask({"node": "nodo2", "by_hand": True})

    asyncio.run(story())


def test_a_changed_file_that_nobody_has_read_is_noticed(etc: pathlib.Path) -> None:
    path = etc / "relevo.toml"
    file = ConfigFile(path, load(path))
    assert file.look() == ""
    text = path.read_text()
    path.write_text(text.replace('"200 ms"', '"250 ms"'))
    assert file.look() == load(path).hash
    path.write_text(text + "# only a remark")
    assert file.look() == "", "it means the same"
    path.write_text("nonsense")
    assert file.look() == UNUSABLE
    path.unlink()
    assert file.look() == UNUSABLE
    path.write_text(text)
    (etc / "secrets.toml").write_text('[mirror]\nr0 = "another"\n')
    assert file.look() == load(path).hash, "secrets count too"


def test_failures_are_counted_through_a_restart_of_the_daemon(etc: pathlib.Path) -> None:
    async def story() -> None:
        config, paths = load(etc / "relevo.toml"), Paths(etc, etc / "state", etc / "run")
        kept = Store(paths.run / "node")
        failures = {"files": Failure(2, now_ms())}
        kept.save("failures", {"web": failures})
        daemon = Daemon(config, "nodo1", paths)
        assert daemon._executor.facts()["web"].failures == failures
        daemon._executor.clean_up("web")
        daemon._keep_failures()
        assert kept.load("failures", Failures, {}) == {"web": {}}

    asyncio.run(story())


def test_the_daemon_keeps_what_it_is_busy_with_for_the_next_one(etc: pathlib.Path) -> None:
    async def story() -> None:
        config, paths = load(etc / "relevo.toml"), Paths(etc, etc / "state", etc / "run")
        daemon = Daemon(config, "nodo1", paths)
        assert daemon._executor._workers["web"]._interrupted == ""
        daemon._executor._workers["web"]._note("files")
        again = Daemon(config, "nodo1", paths)
        assert again._executor._workers["web"]._interrupted == "files"

    asyncio.run(story())


def test_a_lost_link_is_a_suspicion_for_the_heartbeats(etc: pathlib.Path) -> None:
    async def story() -> None:
        brain = _brain(etc)
        asked: asyncio.Queue[Message] = asyncio.Queue()

        async def suspect(request: Message) -> Message:
            await asked.put(request)
            return {}

        server = ControlServer(etc / "run" / "heartbeat.sock", {"suspect": suspect})
        await server.start()
        for connection in ("Connected", "Connected", "WFConnection", "WFConnection"):
            await brain.think(1000, None, {"r0": {"connection": connection}}, {})
        async with asyncio.timeout(10):
            assert await asked.get() == {"peer": "nodo2"}
        assert asked.empty()
        await server.stop()

    asyncio.run(story())


def _told(boot_id: str, step: int, state: str = "stopped") -> Message:
    facts = {"boot_id": boot_id, "config_hash": "h", "services": {"web": {"state": state, "step": step}}}
    return {"peers": {"nodo2": {"state": "active", "late": False, "boot_id": "now", "facts": facts}}}


def test_the_word_of_an_earlier_boot_does_not_count(etc: pathlib.Path) -> None:
    peers = Peers(load(etc / "relevo.toml"), "nodo1")
    assert peers.views(_told("before", 9))["nodo2"].facts is None
    assert peers.views(_told("now", 1))["nodo2"].facts is not None


def test_an_older_step_does_not_replace_a_newer_one(etc: pathlib.Path) -> None:
    peers = Peers(load(etc / "relevo.toml"), "nodo1")
    peers.views(_told("now", 8, "starting"))
    late = peers.views(_told("now", 7, "stopped"))["nodo2"].facts
    assert late is not None
    assert late.services["web"].state == "starting"


def test_trouble_goes_from_the_status_to_the_other_server_and_back_into_the_status(etc: pathlib.Path) -> None:
    async def story() -> None:
        told = configuration(Options(further='[[alerts]]\ntype = "command"\nargv = ["/bin/true"]\n'))
        (etc / "relevo.toml").write_text(told)
        daemon = Daemon(load(etc / "relevo.toml"), "nodo1", Paths(etc, etc / "state", etc / "run"))
        peer = {"state": "dead", "late": False, "facts": None, "links": {}}
        daemon._heartbeat.latest = {"initdead_passed": True, "peers": {"nodo2": peer}}
        await daemon._round()
        facts = daemon._brain.facts(daemon._executor.facts())
        assert facts.trouble == {"node_lost:nodo2": "seen", "one_copy:r0": "seen", "service_down:web": "seen"}
        alerts = daemon._state()["alerts"]
        assert [target["name"] for target in alerts["targets"]] == ["command"]

    asyncio.run(story())


def test_a_service_on_two_servers_at_once_is_an_alarm() -> None:
    words = {
        "states": {"nodo1": "started", "nodo2": "started"},
        "remedy": "",
        "reason": "It runs twice; nodo1 keeps it.",
    }
    assert _outages({"web": words}) == ["Service web runs on nodo1 and nodo2 at once. It runs twice; nodo1 keeps it."]
    assert _outages({"web": {**words, "states": {"nodo1": "started", "nodo2": "stopping"}}}) == []


@pytest.mark.parametrize(
    ("target", "blocked", "awaited"),
    [(None, False, True), (None, True, False), ("nodo2", False, False)],
    ids=["the other one is about to say", "nobody will have it", "it is decided"],
)
def test_who_leaves_waits_until_it_is_decided_who_takes_over(
    etc: pathlib.Path, target: str | None, *, blocked: bool, awaited: bool
) -> None:
    brain, config = _brain(etc), load(etc / "relevo.toml")
    requests = _requests(brain, config, Paths(etc, etc / "state", etc / "run"))
    brain.plan = Plan(decisions={"web": Decision(service="web", target=target, reason="", blocked=blocked)})
    assert requests._is_awaited(["web"]) is awaited
    assert not requests._is_awaited([]), "it did not run here"
    brain.record = Record(maintenance=("web",))
    assert not requests._is_awaited(["web"])
