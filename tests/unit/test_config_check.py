"""`relevo check`: what it prints and how it ends."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import typer
from test_config_load import RIGHT, written
from typer.testing import CliRunner

from relevo.base.control import encode
from relevo.base.paths import Paths
from relevo.cli.check import check
from relevo.cli.context import context
from relevo.config.load import load


def run(etc: pathlib.Path, *argv: str, node: str = "nodo1") -> tuple[int, str, str]:
    app = typer.Typer()

    @app.callback()
    def root(ctx: typer.Context) -> None:
        ctx.obj = context(Paths(etc, etc / "state", etc / "run", etc / "drbd.conf"), node)

    app.command("check")(check)
    result = CliRunner().invoke(app, ["check", *argv])
    return result.exit_code, result.stdout, result.stderr


@contextlib.contextmanager
def answering(path: pathlib.Path, state: dict[str, Any]) -> Iterator[None]:
    """A node daemon that answers one question with a state."""
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as asked:
                asked.recv(4096)
                asked.sendall(encode({"ok": True, **state}))

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()
    path.unlink()


def test_right(tmp_path: pathlib.Path) -> None:
    written(tmp_path)
    status, out, err = run(tmp_path)
    assert (status, err) == (0, "")
    assert out.startswith("OK: cluster oficina: nodes nodo1, nodo2; links users, cross; mirrors r0; services web")
    assert "warning: Mirror 'r0' has alone = \"risk\"" in out
    status, out, _ = run(tmp_path, node="elsewhere")
    assert status == 0
    assert "warning: This host is called 'elsewhere'" in out
    assert not (tmp_path / "run").exists()


def test_right_for_programs(tmp_path: pathlib.Path) -> None:
    written(tmp_path)
    status, out, _ = run(tmp_path, "--json")
    answer = msgspec.json.decode(out)
    assert status == 0
    assert answer["ok"] is True
    assert len(answer["hash"]) == 64
    sha1, risk, disk = answer["warnings"]
    assert "sha1" in sha1
    assert 'alone = "risk"' in risk
    assert "on this machine, the disk of mirror 'r0' on nodo1" in disk


def test_links_that_fail_together_are_warned_of(tmp_path: pathlib.Path) -> None:
    written(tmp_path)
    assert "fail together" not in run(tmp_path)[1]
    written(tmp_path, RIGHT.replace('"eth1"', '"eth0"'))
    status, out, _ = run(tmp_path)
    assert (status, "links users and cross are on one card, eth0: they fail together." in out) == (0, True)


def test_what_the_daemons_and_the_other_server_go_by_is_told(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path)
    nodes: dict[str, dict[str, str]] = {"nodo1": {"config_hash": "old"}, "nodo2": {"config_hash": "old"}}
    with answering(tmp_path / "run" / "node.sock", {"config_hash": "old", "me": "nodo1", "nodes": nodes}):
        _, out, _ = run(tmp_path)
    assert "warning: The daemons here have not read this relevo.toml yet" in out
    assert "warning: nodo2 has another relevo.toml" in out
    nodes["nodo2"]["unread"] = load(path).hash
    with answering(tmp_path / "run" / "node.sock", {"config_hash": load(path).hash, "me": "nodo1", "nodes": nodes}):
        _, out, _ = run(tmp_path)
    assert "relevo.toml" not in out, "nodo2 has only to be restarted, which is said there"


def test_wrong(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, RIGHT.replace("deadtime", "deathtime").replace('"10.27.0.2"', '"10.28.0.2"'))
    status, out, err = run(tmp_path)
    assert (status, out) == (1, "")
    assert f"{path}:7: [heartbeat] has no key 'deathtime'. Did you mean 'deadtime'?\n" in err
    assert err.endswith("2 mistakes.\n")


def test_wrong_for_programs(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, RIGHT.replace("deadtime", "deathtime"))
    status, out, _ = run(tmp_path, "--json")
    answer = msgspec.json.decode(out)
    assert status == 1
    assert answer["ok"] is False
    assert answer["mistakes"] == [
        {
            "file": str(path),
            "line": 7,
            "column": None,
            "what": "[heartbeat] has no key 'deathtime'.",
            "remedy": "Did you mean 'deadtime'?",
        }
    ]


def test_a_certificate_that_is_missing_or_wrong(tmp_path: pathlib.Path) -> None:
    files = 'type = "files"\n'
    given = f'{files}tls_port = 443\ntls_certificate = "{tmp_path}/chain.pem"\ntls_key = "{tmp_path}/key.pem"\n'
    written(tmp_path, RIGHT.replace(files, given))
    status, out, _ = run(tmp_path)
    assert status == 0
    assert f"warning: files: The certificate {tmp_path}/chain.pem cannot be read" in out
    for more, said in (
        ("tls_only = true\n", "tls_only has no effect without tls_port. Add tls_port = 443."),
        ('tls_port = 443\ntls_key = "/k"\n', "tls_key stands alone: a certificate and its key belong together."),
        ('tls_port = 443\ntls_names = ["a_b"]\n', "tls_names holds 'a_b', which is no DNS name."),
        ("tls_port = 80\n", "tls_port is the same as port. Give plain HTTP and TLS a port each."),
    ):
        written(tmp_path, RIGHT.replace(files, files + more))
        assert said in run(tmp_path)[2]
