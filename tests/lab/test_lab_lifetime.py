"""Labs come and go: several at once, killed at any point, looked into from outside; nothing is left behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.request

import pytest
from labtools import ECHO, PORT, PYTHON, LabMaker, answer_of, end, start
from typer.testing import CliRunner

from relevo.cli.lab import app
from relevo.lab import cleanup
from relevo.lab.errors import LabFailed, ServiceNotUp
from relevo.lab.lab import Lab, Unit
from relevo.lab.process import inside, marked, pid_namespace, wait_until
from relevo.lab.scene import MACHINES, SERVERS

TOOL = [sys.executable, "-c", "from relevo.cli.lab import app; app()"]


def _namespaces(lab: Lab) -> set[int]:
    found = {pid_namespace(process.pid) for process in marked(lab.dir)} - {pid_namespace(os.getpid())}
    return {number for number in found if number is not None}


def _assert_gone(lab: Lab, namespaces: set[int]) -> None:
    assert not cleanup.anything_left(lab.folder)
    assert wait_until(lambda: not inside(namespaces), 5), "a killed process may stay until the host's PID 1 reaps it"
    assert str(lab.dir) not in pathlib.Path("/proc/self/mountinfo").read_text()


def test_two_labs_side_by_side(make_lab: LabMaker) -> None:
    odd = "two, with: an odd and long name " + "x" * 80  # longer than a socket's name may be
    labs = [make_lab(name, disk_bytes=4 << 20) for name in ("one", odd)]
    for lab in labs:
        lab.up(service=False)
    echo = start(labs[0], "nodo1", ECHO, str(PORT))
    assert answer_of(labs[0], "client", "192.168.0.27") == "nodo1"
    assert answer_of(labs[1], "client", "192.168.0.27", silence=True) == "silence"
    namespaces = _namespaces(labs[1])
    labs[1].down()
    _assert_gone(labs[1], namespaces)
    assert answer_of(labs[0], "client", "192.168.0.27") == "nodo1"
    end(echo)


def test_down_leaves_only_logs_and_can_be_repeated(make_lab: LabMaker) -> None:
    lab = make_lab(disk_bytes=4 << 20)
    lab.up(service=False, units=[Unit(name="idle", argv=("sleep", "infinity"))])
    namespaces = _namespaces(lab)
    assert namespaces
    (lab.shared / "kept").touch()
    lab.down()
    _assert_gone(lab, namespaces)
    left = {str(path.relative_to(lab.dir)) for path in lab.dir.rglob("*") if path.is_file()}
    assert left == {"lock", "shared/kept", *(f"machines/{name}/log" for name in MACHINES)}
    lab.down()
    lab.up(service=False)
    assert lab.run("nodo1", ["true"]).returncode == 0


@pytest.mark.parametrize("victims", ["everything", "helpers", "machines"])
def test_down_after_kill_9(lab: Lab, victims: str) -> None:
    namespaces = _namespaces(lab)
    machines = {lab.machine(name).power().pid for name in MACHINES}
    for process in marked(lab.dir):
        if victims == "everything" or (process.pid in machines) == (victims == "machines"):
            process.send(signal.SIGKILL)
    lab.down()
    _assert_gone(lab, namespaces)
    lab.up(service=False)
    assert lab.run("client", ["true"]).returncode == 0


def test_down_without_its_records(lab: Lab) -> None:
    """Whoever deletes the state by hand still gets rid of everything."""
    namespaces = _namespaces(lab)
    for path in lab.dir.rglob("*.json"):
        path.unlink()
    lab.down()
    _assert_gone(lab, namespaces)


@pytest.mark.parametrize(
    "point",
    ["lab.json", "switch.json", "machines/nodo1/boot.json", "machines/nodo1/process.json", "machines/client/boot.json"],
)
def test_down_after_up_was_killed(make_lab: LabMaker, point: str) -> None:
    lab = make_lab(disk_bytes=4 << 20)
    command = [*TOOL, "up", "--dir", str(lab.dir), "--no-service", "--disk-size", "4 MiB"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert wait_until((lab.dir / point).exists, 20, step_s=0.001)
        process.kill()
    namespaces = _namespaces(lab)
    lab.down()
    _assert_gone(lab, namespaces)


def test_the_watchdog_frees_a_lab_whose_user_died(make_lab: LabMaker) -> None:
    lab = make_lab("other", disk_bytes=4 << 20)
    program = (
        "import sys, os, signal; from relevo.lab.lab import Lab, Options\n"
        "lab = Lab(sys.argv[1], Options(disk_bytes=4 << 20)); guard = lab.watchdog(60)\n"
        "lab.up(service=False); os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder = lab.dir.with_name("orphan")
    done = subprocess.run([PYTHON, "-c", program, str(folder)], stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    orphan = Lab(folder)
    assert wait_until(lambda: not cleanup.anything_left(orphan.folder), 20)


def test_the_commands_of_the_tool(make_lab: LabMaker) -> None:
    lab = make_lab()
    folder = ["--dir", str(lab.dir)]

    def tool(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.output

    up = json.loads(tool("up", *folder, "--no-service", "--disk-size", "8 MiB", "--json"))
    assert {name: machine["power"] for name, machine in up["machines"].items()} == dict.fromkeys(MACHINES, "on")
    assert lab.image("nodo1").stat().st_size == 8 << 20
    tool("cut", "nodo1", "--link", "eth1", "--cable", *folder)
    assert "eth1 10.27.0.1/24 unplugged" in tool("status", *folder)
    tool("heal", "nodo1", *folder)
    crashed = json.loads(tool("crash", "nodo1", *folder, "--json"))
    assert crashed == {"node": "nodo1", "disk": {"unflushed_blocks": 0, "lost_blocks": 0}}
    assert "nodo1: off" in tool("status", *folder)
    tool("boot", "nodo1", *folder)
    tool("stop", "nodo2", *folder)
    assert tool("logs", "nodo1", *folder).count("nodo1 is on") == 2
    state = json.loads(tool("status", *folder, "--json"))
    assert {name: machine["power"] for name, machine in state["machines"].items()} == {
        "nodo1": "on",
        "nodo2": "off",
        "client": "on",
    }
    tool("down", *folder)


def test_the_door_into_the_lab(lab: Lab) -> None:
    lab.run("nodo1", ["ip", "address", "add", "192.168.0.29/24", "dev", "eth0"], check=True)
    program = (
        "import http.server as h; s = h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler); print('ready', flush=True)"
    )
    program += "; s.serve_forever()"
    lab.run("nodo1", ["sh", "-c", "mkdir /srv/www; head -c 3000000 /dev/zero > /srv/www/zeros"], check=True)
    server = lab.popen("nodo1", ["sh", "-c", f'cd /srv/www; exec {PYTHON} -c "{program}"'], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    url = lab.expose(0)
    assert lab.status()["exposed"] == url
    with urllib.request.urlopen(f"{url}/zeros", timeout=10) as answer:  # noqa: S310 - our own door
        assert answer.read() == bytes(3_000_000)
    end(server)


def test_a_folder_that_holds_other_things_is_left_alone(make_lab: LabMaker) -> None:
    lab = make_lab(disk_bytes=4 << 20)
    lab.dir.mkdir()
    (lab.dir / "precious").write_text("data")
    with pytest.raises(LabFailed, match="precious"):
        lab.up(service=False)
    lab.down()
    assert (lab.dir / "precious").read_text() == "data"


def test_what_is_missing_is_said_in_words(make_lab: LabMaker) -> None:
    lab = make_lab(disk_bytes=4 << 20)
    grumble = Unit(name="grumble", argv=("sh", "-c", "echo the disk is on fire; exit 5"))
    lab.up(service=False, units=[grumble])
    assert wait_until(lambda: lab.units("nodo1")[0]["restarts"] > 0, 10)
    with pytest.raises(ServiceNotUp) as caught:
        lab.wait_until_up(0)
    for part in ("nodo1: grumble is", "exit status 5", "last said: the disk is on fire", "mirror of nodo2 does not"):
        assert part in str(caught.value)


def test_a_folder_on_a_file_system_that_cannot_carry_an_overlay(make_lab: LabMaker, tmp_path: pathlib.Path) -> None:
    for name in ("under", "over", "work", "place"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/under,upperdir={tmp_path}/over,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(tmp_path / "place")], check=True)
    try:
        lab = make_lab("place/lab", disk_bytes=4 << 20)
        lab.up(service=False)
        lab.run("nodo1", ["sh", "-c", "echo mine > /srv/mark"], check=True)
        lab.crash("nodo1")
        lab.boot("nodo1")
        assert lab.run("nodo1", ["cat", "/srv/mark"], capture=True).stdout == b"mine\n"
        lab.down()
        _assert_gone(lab, set())
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path / "place")], check=True)


def test_a_plain_disk_is_the_image_itself(make_lab: LabMaker) -> None:
    lab = make_lab(disk="plain", disk_bytes=4 << 20)
    lab.up(service=False)
    for name in SERVERS:
        lab.run(name, ["sh", "-c", "echo -n mark > /dev/relevo/r0"], check=True)
        assert lab.image(name).read_bytes()[:4] == b"mark"
