"""Our mirror and our file service under the real Pacemaker and Corosync."""

from __future__ import annotations

import pathlib
import re
import stat
import sys
from collections.abc import Callable, Iterator

import pacemaker_scene
import pytest
from pacemaker_scene import PacemakerScene

import systemd_machine
from lab_maker import LabMaker
from relevo.lab import service
from relevo.lab.lab import Unit
from relevo.lab.scene import URL

pytestmark = [
    pytest.mark.timeout(420),
    pytest.mark.skipif(
        bool(pacemaker_scene.missing()), reason=f"cannot run: not installed: {pacemaker_scene.missing() or 'nothing'}"
    ),
]
FILE = pathlib.Path("/etc/services")
PYTHON = pathlib.Path(sys.executable)
LAB_LIMIT_S = 400.0
SceneMaker = Callable[..., PacemakerScene]


def others_may_run(program: pathlib.Path) -> bool:
    """Whether anybody may enter every folder on the way to it, by its link and by its own place."""
    steps = {program, *program.parents, program.resolve(), *program.resolve().parents}
    return all(each.stat().st_mode & stat.S_IXOTH for each in steps)


@pytest.fixture
def make_scene(make_lab: LabMaker, request: pytest.FixtureRequest) -> Iterator[SceneMaker]:
    made = []

    def make(*, alone: str, fencing: bool, systemd: pathlib.Path | None = None) -> PacemakerScene:
        lab = make_lab(limit_s=LAB_LIMIT_S, disk_bytes=64 << 20, alone=alone)
        scene = PacemakerScene(lab, fencing=fencing, systemd=systemd)
        made.append(scene)
        return scene

    yield make
    for scene in made:
        if getattr(request.node, "failed", False):
            print(scene.tell())
        scene.close()


def put(scene: PacemakerScene, name: str) -> None:
    scene.client("curl", "--silent", "--fail", "--show-error", "--upload-file", str(FILE), f"{URL}{name}")


def assert_there(scene: PacemakerScene, *names: str) -> None:
    for name in names:
        assert scene.client("curl", "--silent", "--fail", f"{URL}{name}") == FILE.read_bytes(), name


@pytest.mark.skipif(
    not others_may_run(PYTHON), reason=f"cannot run: ocf-tester also asks as nobody, who may not run {PYTHON.resolve()}"
)
def test_ocf_tester_finds_nothing_wrong(make_lab: LabMaker) -> None:
    lab = make_lab(limit_s=170.0, disk_bytes=64 << 20)
    lab.up(service=False, units=[Unit(name="mirror", argv=("relevo", "mirror", "run", "r0"))])
    service.found(lab)
    lab.unit("nodo1", "mirror", "stop")

    def run(*argv: str) -> str:
        return lab.run("nodo1", argv, capture=True, check=True, timeout_s=120).stdout.decode()

    run("relevo", "ocf", "install")
    for agent, parameter in (("mirror", "mirror=r0"), ("files", "name=files")):
        program = f"/usr/lib/ocf/resource.d/relevo/{agent}"
        assert f"{program} passed all tests" in run("ocf-tester", "-n", "x", "-o", parameter, program)
        if agent == "mirror":
            run("relevo", "mirror", "up", "r0")
            run("relevo", "mirror", "wait-connect", "r0")
            run("relevo", "mirror", "primary", "r0")
            run("mount", "/run/relevo/mirror/r0/device", "/srv/relevo")
    run("umount", "/srv/relevo")
    run("relevo", "mirror", "down", "r0")


def test_promote_fail_over_fail_back(make_scene: SceneMaker) -> None:
    scene = make_scene(alone="risk", fencing=False)
    scene.wait(lambda: scene.scores("nodo1") == {"nodo1": 10_000, "nodo2": 10_000}, "the score of current copies")
    assert scene.roles("nodo1") == {"nodo1": "Promoted", "nodo2": "Unpromoted"}
    put(scene, "first")

    scene.lab.crash("nodo1")
    scene.wait(lambda: scene.serves("nodo2"), "the service on nodo2")
    assert_there(scene, "first")
    put(scene, "alone")
    assert scene.roles("nodo2") == {"nodo2": "Promoted"}

    scene.boot("nodo1")
    scene.wait(lambda: scene.mirror("nodo1").get("peer_role") == "Primary", "the return of nodo1")
    scene.wait_in_sync()
    scene.wait(lambda: scene.scores("nodo2").get("nodo1") == 10_000, "the score of nodo1")
    assert scene.serves("nodo2"), "nothing moves by itself: resource-stickiness"

    scene.run("nodo1", "crm_attribute", "--node", "nodo2", "--name", "standby", "--update", "on")
    scene.wait(lambda: scene.serves("nodo1"), "the service on nodo1")
    assert_there(scene, "first", "alone")
    scene.run("nodo1", "crm_attribute", "--node", "nodo2", "--name", "standby", "--delete")
    scene.wait_in_sync()
    scene.wait(lambda: scene.roles("nodo1") == {"nodo1": "Promoted", "nodo2": "Unpromoted"}, "nodo2 as Unpromoted")

    scene.run("nodo1", "pkill", "-KILL", "-f", "mirror run r0")
    scene.wait(lambda: scene.serves("nodo1") or scene.serves("nodo2"), "the service after the death of its mirror")
    scene.wait_in_sync()
    assert_there(scene, "first", "alone")
    assert not re.findall(r"unexpected|INVALID", scene.run("nodo1", "crm_mon", "--one-shot", "--failcounts"))


def test_a_copy_that_is_not_current_is_never_promoted(make_scene: SceneMaker) -> None:
    scene = make_scene(alone="risk", fencing=False)
    put(scene, "first")
    scene.run("nodo2", "crm_attribute", "--node", "nodo2", "--name", "standby", "--update", "on")
    scene.wait(lambda: not scene.mirror("nodo2"), "the end of the mirror on nodo2")
    put(scene, "second")
    scene.lab.crash("nodo1")
    scene.run("nodo2", "crm_attribute", "--node", "nodo2", "--name", "standby", "--delete")
    scene.wait(lambda: scene.mirror("nodo2").get("disk") == "Outdated", "an outdated copy")
    scene.wait(lambda: scene.roles("nodo2") == {"nodo2": "Unpromoted"}, "nodo2 as Unpromoted")
    assert scene.scores("nodo2") == {}
    scene.boot("nodo1")
    scene.wait(lambda: scene.serves("nodo1"), "the service on nodo1")
    assert_there(scene, "first", "second")
    scene.wait_in_sync()


def test_with_fencing_a_primary_alone_goes_on_only_when_its_peer_is_off(make_scene: SceneMaker) -> None:
    scene = make_scene(alone="ask", fencing=True)
    put(scene, "first")
    scene.lab.cut("nodo1")
    scene.wait(lambda: scene.serves("nodo2"), "the service on nodo2")
    assert scene.fenced == ["nodo1"]
    put(scene, "second")
    assert_there(scene, "first", "second")

    scene.lab.heal("nodo1")
    scene.boot("nodo1")
    scene.wait_in_sync()
    scene.lab.crash("nodo1")
    put(scene, "third")
    scene.wait(lambda: scene.fenced == ["nodo1", "nodo1"], "the proof that nodo1 is off")
    put(scene, "fourth")
    assert_there(scene, "first", "second", "third", "fourth")


def test_with_the_cable_between_the_mirrors_cut_the_other_copy_gives_way(make_scene: SceneMaker) -> None:
    scene = make_scene(alone="ask", fencing=True)
    put(scene, "first")
    scene.lab.cut("nodo2", "eth1")
    put(scene, "second")  # waits for the permission
    assert scene.mirror("nodo2")["disk"] == "Outdated"
    scene.wait(lambda: scene.scores("nodo1") == {"nodo1": 10_000}, "the score of the only current copy")
    assert scene.fenced == [], "both are members: the users' network carries the cluster"
    scene.lab.crash("nodo1")
    scene.wait(lambda: scene.fenced == ["nodo1"], "the end of nodo1")
    scene.wait(lambda: scene.roles("nodo2") == {"nodo2": "Unpromoted"}, "nodo2 as Unpromoted")
    scene.lab.heal("nodo2")
    scene.boot("nodo1")
    scene.wait(lambda: scene.serves("nodo1"), "the service on nodo1")
    assert_there(scene, "first", "second")
    scene.wait_in_sync()


@pytest.mark.skipif(
    bool(systemd_machine.missing()), reason=f"cannot run: {systemd_machine.missing() or 'nothing is missing'}"
)
def test_under_systemd_a_shutdown_hands_over_in_order(make_scene: SceneMaker, tmp_path: pathlib.Path) -> None:
    scene = make_scene(alone="ask", fencing=False, systemd=tmp_path)  # what it says at the end is proof enough
    first = scene.machines["nodo1"]
    put(scene, "first")
    for unit in ("relevo-mirror@r0", "relevo-files@files"):
        assert first.systemctl("is-active", unit) == "active", "its agent has started it through systemd"
    first.power_off()
    scene.wait(lambda: scene.serves("nodo2"), "the service on nodo2")
    put(scene, "second")
    assert_there(scene, "first", "second")
    said = first.journal()
    steps = ("Stopping pacemaker.service", "Stopped pacemaker.service", "Stopping relevo-files@files.service")
    places = [said.find(step) for step in steps]
    assert -1 not in places, said
    assert places == sorted(places), said
    assert "worker_killed" not in said
