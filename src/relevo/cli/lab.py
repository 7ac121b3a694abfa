"""`relevo lab`: two servers and a client on this machine, and what can happen to them."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Annotated, Any

import msgspec
import typer

from relevo.base.errors import RelevoError
from relevo.base.units import parse_size_bytes
from relevo.cli.context import print_json
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import DEFAULT_DIR, EXPOSED_PORT

app = typer.Typer(
    no_args_is_help=True, help="Two servers and a client on this machine, in namespaces; faults on demand."
)

Dir = Annotated[pathlib.Path, typer.Option("--dir", help="Folder of the lab; several can live side by side.")]
Node = Annotated[str, typer.Argument(help="nodo1, nodo2 or client.")]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Link = Annotated[str | None, typer.Option(help="Only this link: eth0 (users) or eth1 (back-to-back).")]


def _lab(folder: pathlib.Path, options: Options | None = None) -> Lab:
    if os.geteuid() != 0:
        raise RelevoError("A lab is made of namespaces and mounts, which needs root.", "Run it as root.")
    return Lab(folder, options)


def _say(sentence: str, answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(sentence)


@app.command()
def up(
    folder: Dir = DEFAULT_DIR,
    disk: Annotated[
        str, typer.Option(help="testdisk forgets what was not flushed; plain is for benchmarks.")
    ] = "testdisk",
    disk_size: Annotated[str, typer.Option(help="Size of each server's disk.")] = "512 MiB",
    profile: Annotated[str | None, typer.Option(help="Timings of a profile (fast) instead of 200 ms / 2 s.")] = None,
    seed: Annotated[int, typer.Option(help="What the disks forget in a power cut follows from it.")] = 1,
    *,
    fencing: Annotated[bool, typer.Option(help="Each server can cut the other one's power, and does.")] = False,
    witness: Annotated[bool, typer.Option(help="The client is the third vote, and no server risks anything.")] = False,
    watchdog: Annotated[bool, typer.Option(help="A node daemon that stands still has its server's power cut.")] = False,
    wait: Annotated[bool, typer.Option(help="Return when the service answers and both disks are up to date.")] = True,
    service: Annotated[bool, typer.Option(help="Run the daemons; without them there are two bare servers.")] = True,
    as_json: Json = False,
) -> None:
    """Switch two servers and a client on."""
    if disk not in ("testdisk", "plain"):
        raise RelevoError(f"There is no kind of disk {disk!r}.", "Choose testdisk or plain.")
    options = Options(
        disk="plain" if disk == "plain" else "testdisk",
        disk_bytes=parse_size_bytes(disk_size),
        seed=seed,
        witness=witness,
        fencing=fencing,
    )
    if profile is not None:
        options = msgspec.structs.replace(options, profile=profile, heartbeat={})
    if watchdog:  # which needs a longer deadtime than the lab has else
        heartbeat = {**options.heartbeat, "deadtime": "6 s", "initdead": "12 s"}
        options = msgspec.structs.replace(options, watchdog="5 s", profile=None, heartbeat=heartbeat)
    lab = _lab(folder, options)
    lab.up(wait=wait, service=service)
    waited = "The service answers at http://192.168.0.29/ and both disks are up to date." if wait and service else ""
    folder_told = "" if lab.dir == DEFAULT_DIR else f" --dir {lab.dir}"
    more = f"Ask it: relevo lab run{folder_told} nodo1 -- relevo status. End it: {lab.folder.order('down')}"
    _say(" ".join(f"The lab in {lab.dir} is up. {waited} {more}".split()), lab.status(), as_json=as_json)


@app.command()
def down(folder: Dir = DEFAULT_DIR, *, as_json: Json = False) -> None:
    """Take the lab down; nothing of it is left but its logs."""
    lab = _lab(folder)
    lab.down()
    _say(f"The lab in {lab.dir} is down.", {"dir": str(lab.dir)}, as_json=as_json)


@app.command()
def status(folder: Dir = DEFAULT_DIR, *, as_json: Json = False) -> None:
    """What is on, what runs, which links are cut."""
    state = _lab(folder).status()
    if as_json:
        print_json(state)
        return
    typer.echo(f"lab {state['name']} in {state['dir']}: network {state['network']}, disks {state['options']['disk']}")
    if state["exposed"]:
        typer.echo(f"  exposed at {state['exposed']}")
    for name, machine in state["machines"].items():
        links = ", ".join(f"{card} {link['address']} {link['state']}" for card, link in machine["links"].items())
        typer.echo(f"{name}: {machine['power']}; {links}")
        for unit in machine["units"]:
            restarts = f", {unit['restarts']} restarts, last {unit['last_exit']}" if unit["restarts"] else ""
            typer.echo(f"  {unit['name']}: {unit['state']} (pid {unit['pid']}{restarts})")
        if machine["disk"]:
            typer.echo(f"  disk: {machine['disk']['unflushed_blocks']} blocks not flushed")


@app.command()
def run(
    node: Node,
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    folder: Dir = DEFAULT_DIR,
) -> None:
    """Run a command in a machine. Input, output, signals and exit status pass through."""
    lab = _lab(folder)
    lab.folder.options()  # without a lab nothing in it can be switched on
    machine = lab.machine(node)
    argv = machine.command(command)
    sys.stdout.flush()
    os.execve(argv[0], argv, {**os.environ, **machine.environment})


@app.command()
def crash(node: Node, folder: Dir = DEFAULT_DIR, *, as_json: Json = False) -> None:
    """Cut a machine's power: no goodbye, and what its disk had not flushed is partly gone."""
    _say(f"{node} has lost its power.", {"node": node, "disk": _lab(folder).crash(node)}, as_json=as_json)


@app.command()
def stop(node: Node, folder: Dir = DEFAULT_DIR, *, as_json: Json = False) -> None:
    """Power a machine off in order."""
    _lab(folder).stop(node)
    _say(f"{node} is off.", {"node": node}, as_json=as_json)


@app.command()
def boot(node: Node, folder: Dir = DEFAULT_DIR, *, as_json: Json = False) -> None:
    """Switch a machine on that crashed or was stopped."""
    _lab(folder).boot(node)
    _say(f"{node} is on.", {"node": node}, as_json=as_json)


@app.command()
def program(
    node: Node,
    venv: Annotated[pathlib.Path | None, typer.Argument(help="A virtual environment with another Relevo.")] = None,
    folder: Dir = DEFAULT_DIR,
) -> None:
    """Choose the program that a server runs from its next boot on; without a folder it is this one again."""
    _lab(folder).set_program(node, venv)
    typer.echo(f"{node} runs {'this program' if venv is None else venv} from its next boot on.")


@app.command()
def cut(
    node: Node,
    folder: Dir = DEFAULT_DIR,
    link: Link = None,
    *,
    cable: Annotated[bool, typer.Option("--cable", help="Pull the cable out: the carrier drops.")] = False,
    as_json: Json = False,
) -> None:
    """Cut a machine's links (or one): silence, with the carrier still there."""
    _lab(folder).cut(node, link, cable=cable)
    what = link or "all links"
    _say(f"{node}: {what} cut.", {"node": node, "link": link, "cable": cable}, as_json=as_json)


@app.command()
def heal(node: Node, folder: Dir = DEFAULT_DIR, link: Link = None, *, as_json: Json = False) -> None:
    """Undo every cut of a machine (or of one link)."""
    _lab(folder).heal(node, link)
    _say(f"{node}: {link or 'all links'} connected.", {"node": node, "link": link}, as_json=as_json)


@app.command()
def logs(
    node: Node,
    folder: Dir = DEFAULT_DIR,
    unit: Annotated[str | None, typer.Option(help="Only what this unit said.")] = None,
) -> None:
    """What a machine's PID 1 and its daemons have said, with times; also of its earlier boots."""
    lab = _lab(folder)
    said = lab.logs(node)
    if not said:
        lab.folder.options()  # one that was taken down has left its logs
    for line in said.splitlines():
        if unit is None or f" {unit}[" in line:
            typer.echo(line)


@app.command()
def expose(
    folder: Dir = DEFAULT_DIR,
    port: Annotated[int, typer.Option(help="Port of this machine's loopback; 0 takes a free one.")] = EXPOSED_PORT,
    *,
    as_json: Json = False,
) -> None:
    """Make the virtual IP reachable for a real browser on this machine."""
    url = _lab(folder).expose(port)
    _say(f"Open {url}/ in a browser.", {"url": url}, as_json=as_json)
