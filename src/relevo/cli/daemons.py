"""`relevo heartbeat run`, `relevo node run`, `relevo files run`: what systemd (or the lab's PID 1) starts."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from relevo.base import log
from relevo.base.control import call
from relevo.cli.context import of, print_json

heartbeat = typer.Typer(no_args_is_help=True, help="Who is alive: signed messages on every link.")
node = typer.Typer(no_args_is_help=True, help="Who may act and who runs what, on this server.")
files = typer.Typer(no_args_is_help=True, help="The file service.")


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
