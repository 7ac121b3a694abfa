"""`relevo heartbeat run`, `node run`, `witness run`, `files run`: what systemd (or the lab's PID 1) starts."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import secrets
from typing import Annotated

import typer

from relevo.base import log
from relevo.base.control import call
from relevo.cli.context import Context, of, print_json
from relevo.config.authkeys import parse_authkeys
from relevo.config.errors import ConfigErrors
from relevo.config.model import AuthKey
from relevo.config.private import read_private

heartbeat = typer.Typer(no_args_is_help=True, help="Who is alive: signed messages on every link.")
node = typer.Typer(no_args_is_help=True, help="Who may act and who runs what, on this server.")
witness = typer.Typer(no_args_is_help=True, help="The third vote, on a third machine: whose copy is the newest.")
files = typer.Typer(no_args_is_help=True, help="The file service.")

KEY_BYTES = 32


@heartbeat.command("run")
def heartbeat_run(ctx: typer.Context) -> None:
    """Send and judge heartbeats until told to stop."""
    from relevo.heartbeat import daemon

    context = of(ctx)
    log.set_up("heartbeat")
    asyncio.run(daemon.run(context.config(), context.node, context.paths))


@heartbeat.command("status")
def heartbeat_status(ctx: typer.Context) -> None:
    """What the heartbeats say about the other nodes, as JSON."""
    print_json(call(of(ctx).paths.socket("heartbeat"), "status"))


@heartbeat.command("dump")
def heartbeat_dump(
    ctx: typer.Context,
    *,
    file: Annotated[pathlib.Path | None, typer.Option(help="Recorded traffic (pcap); else what passes now.")] = None,
    interface: Annotated[str | None, typer.Option(help="Only this network card.")] = None,
    port: Annotated[int, typer.Option(help="The heartbeats' UDP port.", min=1, max=65535)] = 694,
    authkeys: Annotated[pathlib.Path | None, typer.Option(help="Check signatures with this file's keys.")] = None,
    count: Annotated[int, typer.Option(help="End after so many; 0: never.", min=0)] = 0,
) -> None:
    """Show heartbeats, ours and the original's, a line each; nothing is sent and nobody is disturbed."""
    from relevo.heartbeat.capture import live, recorded
    from relevo.heartbeat.dump import Dump

    dump = Dump(_keys(of(ctx), authkeys))
    source = recorded(file, port) if file is not None else live(interface, port)
    for datagram in itertools.islice(source, count or None):
        typer.echo(dump.line(datagram))


def _keys(context: Context, path: pathlib.Path | None) -> dict[int, AuthKey] | None:
    """Those of a file, else those of relevo.toml if there is one; None: signatures are not looked at."""
    if path is None:
        return context.config().authkeys.accepted if context.paths.config.exists() else None
    keys, mistakes = parse_authkeys(read_private(path, "the keys of the heartbeats"), path)
    if keys is None:
        raise ConfigErrors(mistakes)
    return keys.accepted


@node.command("run")
def node_run(ctx: typer.Context) -> None:
    """Decide and carry out what belongs on this server until told to stop; what runs goes on running."""
    from relevo.node import daemon

    context = of(ctx)
    log.set_up("node")
    asyncio.run(daemon.run(context.config(), context.node, context.paths))


@files.command("run")
def files_run(ctx: typer.Context, name: Annotated[str, typer.Argument(help="Id of the files resource.")]) -> None:
    """Serve files until told to stop; the volume is opened when this server becomes active."""
    from relevo.files import daemon

    context = of(ctx)
    log.set_up(f"files-{name}")
    asyncio.run(daemon.run(context.config(), context.node, context.paths, name))


@witness.command("run")
def witness_run(ctx: typer.Context) -> None:
    """Answer the nodes of the clusters in witness.toml until told to stop."""
    from relevo.witness import daemon, settings

    paths = of(ctx).paths
    log.set_up("witness")
    asyncio.run(daemon.run(settings.load(paths.etc / settings.FILE), paths))


@witness.command("status")
def witness_status(ctx: typer.Context) -> None:
    """What this witness knows, as JSON."""
    print_json(call(of(ctx).paths.socket("witness"), "status")["clusters"])


@witness.command("key")
def witness_key() -> None:
    """Print a new key, for witness.toml there and secrets.toml on the servers."""
    typer.echo(secrets.token_urlsafe(KEY_BYTES))
