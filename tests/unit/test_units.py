"""The unit files for systemd: what is written, what systemd itself thinks of them, and the order they ask for."""

from __future__ import annotations

import itertools
import pathlib
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from relevo import units
from relevo.base.paths import Paths
from relevo.cli.context import Context
from relevo.cli.main import app
from relevo.cli.units import command, pauses, systemd_version
from relevo.lab.scene import SERVICE_UNITS, Options, configuration, new_secrets

SYSTEM = "etc/systemd/system"


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    """The configuration of a lab."""
    folder = tmp_path / "etc-relevo"
    folder.mkdir()
    secret = new_secrets()
    for name, text in (("secrets.toml", secret.secrets_toml), ("authkeys", secret.authkeys)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    (folder / "relevo.toml").write_text(configuration(Options()))
    return folder


def relevo(etc: pathlib.Path, *words: str) -> str:
    options = ["--etc", str(etc), "--drbd-conf", str(etc / "drbd.conf"), "--node", "nodo1"]
    done = CliRunner().invoke(app, [*options, "units", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def install(etc: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    relevo(etc, "install", "--root", str(root))
    return root / SYSTEM


def wanted(folder: pathlib.Path) -> set[str]:
    return {link.name for link in (folder / "relevo.target.wants").iterdir()}


def test_what_the_configuration_has_here_is_started(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = install(etc, tmp_path / "root")
    assert wanted(folder) == {*units.SERVICES, "relevo-mirror@r0.service", "relevo-files@files.service"}
    link = folder / "relevo.target.wants" / "relevo-mirror@r0.service"
    assert link.readlink() == pathlib.Path("/etc/systemd/system/relevo-mirror@.service"), "as the server will see it"
    text = (folder / "relevo-mirror@.service").read_text()
    assert f"ExecStart={sys.executable} -m relevo --etc {etc} " in text
    assert not any(word in text for word in ("@RELEVO@", "@PAUSES@"))
    assert pauses(systemd_version()) in text


def test_again_after_a_change(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = install(etc, tmp_path / "root")
    toml = etc / "relevo.toml"
    toml.write_text(toml.read_text().replace('type = "files"', 'type = "files"\nid = "other"'))
    assert install(etc, tmp_path / "root") == folder
    assert "relevo-files@other.service" in wanted(folder)
    assert "relevo-files@files.service" not in wanted(folder)


def test_with_a_drbd_conf_alone_there_is_only_the_mirror(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (etc / "relevo.toml").unlink()
    (etc / "drbd.conf").write_text(
        "resource r0 { device /dev/drbd0; disk /dev/sda6; meta-disk internal;\n"
        "on nodo1 { address 10.0.0.1:7788; } on nodo2 { address 10.0.0.2:7788; } }\n"
    )
    assert wanted(install(etc, tmp_path / "root")) == {"relevo-mirror@r0.service"}


def test_a_third_machine_has_only_the_witness(tmp_path: pathlib.Path) -> None:
    (tmp_path / "etc-relevo").mkdir()
    (tmp_path / "etc-relevo" / "witness.toml").touch()
    assert wanted(install(tmp_path / "etc-relevo", tmp_path / "root")) == {units.WITNESS}


def test_remove_leaves_nothing(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = install(etc, tmp_path / "root")
    relevo(etc, "remove", "--root", str(tmp_path / "root"))
    assert not list(folder.iterdir())


def test_a_unit_of_somebody_else_is_left_alone(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "root" / SYSTEM
    folder.mkdir(parents=True)
    (folder / "relevo-node.service").write_text("[Unit]\nDescription=mine\n")
    options = ["--etc", str(etc), "--node", "nodo1", "units", "install", "--root", str(tmp_path / "root")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 1
    assert "is not one of Relevo's" in str(done.exception)
    assert [path.name for path in folder.iterdir()] == ["relevo-node.service"]


def test_pauses_grow_where_systemd_can() -> None:
    assert pauses(252) == "RestartSec=1s"
    assert "RestartMaxDelaySec=5s" in pauses(254)


def test_words_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", '/opt/100% "a b"/$x')
    assert command(Context(Paths(), "other")) == r'"/opt/100%% \"a b\"/$$x" -m relevo --node other'


def _section(text: str, key: str) -> set[str]:
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]
    return set(" ".join(lines).split())


def test_the_order_is_the_one_of_the_lab(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whatever starts before something else in the lab does so here, and ends after it."""
    folder = install(etc, tmp_path / "root")
    names = {"mirror": units.MIRROR, "heartbeat": "relevo-heartbeat.service", "files": units.FILES}
    names |= {"node": "relevo-node.service"}
    texts = {name: (folder / name).read_text() for name in units.ALL}
    before = {(name, other) for name, text in texts.items() for other in _section(text, "Before")}
    before |= {(other, name) for name, text in texts.items() for other in _section(text, "After")}
    order = [names[unit.name] for unit in SERVICE_UNITS]
    for first, second in itertools.pairwise(order):
        assert (first, second) in before
    assert all((name, "relevo-leave.service") in before for name in order), "leaving comes first at a shutdown"
    assert "ExecStop=" in texts["relevo-leave.service"]
    assert not any(_section(text, key) for text in texts.values() for key in ("Requires", "BindsTo", "Requisite"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the package systemd is not installed")
def test_systemd_finds_nothing_wrong(etc: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = install(etc, tmp_path / "root")
    names = ["relevo.target", *sorted(wanted(folder))]
    environment = {
        "SYSTEMD_UNIT_PATH": f"{folder}:/lib/systemd/system:/usr/lib/systemd/system",
        "PATH": "/usr/bin:/bin",
    }
    for name in names:  # the links are made for another root
        if "@" in name:
            (folder / name).write_text((folder / f"{name.partition('@')[0]}@.service").read_text())
    paths = [str(folder / name) for name in names]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, env=environment, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    broken = folder / "relevo-node.service"
    broken.write_text(broken.read_text().replace("KillMode=process", "KillMode=nobody\nOOMPolicies=x"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(broken)],
        capture_output=True,
        env=environment,
        check=False,
        timeout=60,
    )
    assert b"OOMPolicies" in done.stderr, "it looks"
