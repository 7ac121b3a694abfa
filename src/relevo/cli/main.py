"""The `relevo` command."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from relevo import __version__
from relevo.base.paths import Paths
from relevo.cli import (
    accounts,
    alerts,
    check,
    cluster,
    daemons,
    demo,
    history,
    import_ha,
    lab,
    mirror,
    ocf,
    orders,
    transfer,
    units,
    volume,
)
from relevo.cli.context import context, errors_as_sentences

_DEFAULT = Paths()
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells use it."""

app = typer.Typer(
    name="relevo",
    help="A file server for two Linux servers that goes on when one of them dies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"relevo {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    etc: Annotated[pathlib.Path, typer.Option(help="Folder of relevo.toml and its secrets.")] = _DEFAULT.etc,
    state: Annotated[pathlib.Path, typer.Option(help="Folder of what survives a restart.")] = _DEFAULT.state,
    run: Annotated[pathlib.Path, typer.Option(help="Folder of the control sockets.")] = _DEFAULT.run,
    drbd_conf: Annotated[
        pathlib.Path, typer.Option(help="Configures mirrors where there is no relevo.toml.")
    ] = _DEFAULT.drbd,
    node: Annotated[str | None, typer.Option(help="Name of this node (default: the host name).")] = None,
    version: Annotated[  # noqa: ARG001 - typer calls _version
        bool | None,
        typer.Option("--version", callback=lambda value: _version(asked=bool(value)), is_eager=True, help="Print it."),
    ] = None,
) -> None:
    """Options that stand before the command."""
    ctx.obj = context(Paths(etc, state, run, drbd_conf), node)


app.command("check")(check.check)
app.command("import")(import_ha.import_ha)
app.command("status")(cluster.status)
app.command("standby")(orders.standby)
app.command("online")(orders.online)
app.command("move")(orders.move)
app.command("ban")(orders.ban)
app.command("clear")(orders.clear)
app.command("maintenance")(orders.maintenance)
app.command("explain")(orders.explain)
app.command("rebalance")(orders.rebalance)
app.command("history")(history.history)
app.command("leave")(cluster.leave)
app.command("force")(cluster.force)
app.command("fence")(cluster.fence)
app.command("cleanup")(orders.cleanup)
app.command("put")(transfer.put)
app.command("get")(transfer.get)
app.command("demo")(demo.demo)
app.add_typer(daemons.heartbeat, name="heartbeat")
app.add_typer(daemons.node, name="node")
app.add_typer(daemons.witness, name="witness")
app.add_typer(daemons.files, name="files")
app.add_typer(accounts.user, name="user")
app.add_typer(accounts.group, name="group")
app.add_typer(accounts.share, name="share")
app.command("audit")(accounts.audit)
app.add_typer(mirror.app, name="mirror")
app.add_typer(volume.app, name="volume")
app.add_typer(alerts.app, name="alerts")
app.add_typer(ocf.app, name="ocf")
app.add_typer(units.app, name="units")
app.add_typer(lab.app, name="lab")


def main() -> None:
    """The entry point: errors of ours become one sentence and exit status 1."""
    with errors_as_sentences():
        try:
            app()
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
