"""A rolling upgrade: the last version that sites may run and this one side by side, and then this one alone.

The other version is taken from this repository's history and runs in a virtual environment of its own.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import sysconfig

import pytest

from cluster_load import Cluster
from lab_maker import LabMaker
from relevo.lab.lab import Lab

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASED = "4111580"
"""The commit of the last version that sites may run; the tag, as soon as there is one."""
LIMIT_S = 240.0


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A virtual environment with the released program; its libraries are those of this one."""
    if subprocess.run(["git", "cat-file", "-e", f"{RELEASED}^{{commit}}"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip(f"cannot run: the history of this clone does not go back to {RELEASED}")
    folder = tmp_path_factory.mktemp("released")
    venv = folder / "venv"
    tree = venv / "released"
    tree.mkdir(parents=True)
    packed = subprocess.run(["git", "archive", RELEASED, "src"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(venv)], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)})
    # The tree comes first; what lies in ours has its own .pth files, which are not followed from here.
    (pathlib.Path(site) / "released.pth").write_text(f"{tree / 'src'}\n{sysconfig.get_path('purelib')}\n")
    command = venv / "bin/relevo"
    command.write_text(f"#!{venv}/bin/python -P\nfrom relevo.__main__ import main\nmain()\n")
    command.chmod(0o755)
    return venv


def runs(lab: Lab, node: str) -> str:
    """The command lines of a server's daemons."""
    return lab.run(node, ["pgrep", "-af", "relevo (mirror|heartbeat|files|node) run"], capture=True).stdout.decode()


def upgrade(cluster: Cluster, node: str) -> None:
    """As an administrator does: power off in order, the new program, power on."""
    lab = cluster.lab
    lab.stop(node)
    lab.set_program(node, None)
    lab.boot(node)
    assert "released" not in runs(lab, node)


@pytest.mark.timeout(LIMIT_S + 60)
def test_one_server_after_the_other(make_lab: LabMaker, released: pathlib.Path) -> None:
    """Whatever was acknowledged, by either version, is there in the end; the address is never on both."""
    old = str(released)
    lab = make_lab(limit_s=LIMIT_S, disk_bytes=64 << 20, programs={"nodo1": old, "nodo2": old})
    lab.up()
    assert runs(lab, "nodo1").count(old) == runs(lab, "nodo2").count(old) >= 4
    cluster = Cluster(lab, lab.shared)
    with cluster.one_address(), cluster.load():
        upgrade(cluster, "nodo2")
        cluster.story.await_service_on("nodo1")
    with cluster.one_address(), cluster.load():
        lab.crash("nodo1")
        cluster.story.await_service_away_from("nodo1")
        lab.boot("nodo1")  # still the released one
        cluster.story.await_service_on("nodo1")
    assert old in runs(lab, "nodo1")
    with cluster.one_address(), cluster.load():
        lab.run("nodo2", ["relevo", "move", "web", "nodo2"], check=True)
        cluster.story.await_service_on("nodo2")
        upgrade(cluster, "nodo1")
        cluster.story.await_service_on("nodo2")
        lab.run("nodo1", ["relevo", "clear", "web"], check=True)
        cluster.story.await_service_on("nodo1")
    cluster.judge()
