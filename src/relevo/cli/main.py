"""The `relevo` command."""

from __future__ import annotations

import importlib
import pathlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relevo import __version__
from relevo.base.paths import Paths
from relevo.cli.context import context, errors_as_sentences

_DEFAULT = Paths()
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells use it."""

PANELS = {
    "Every day": {
        "status": "cluster:status",
        "explain": "orders:explain",
        "history": "history:history",
        "standby": "orders:standby",
        "online": "orders:online",
        "move": "orders:move",
        "ban": "orders:ban",
        "clear": "orders:clear",
        "maintenance": "orders:maintenance",
        "rebalance": "orders:rebalance",
        "leave": "cluster:leave",
        "force": "cluster:force",
        "fence": "cluster:fence",
        "cleanup": "orders:cleanup",
    },
    "Mirrors": {"mirror": "mirror:app", "volume": "volume:app"},
    "Files and who may have them": {
        "put": "transfer:put",
        "get": "transfer:get",
        "user": "accounts:user",
        "group": "accounts:group",
        "share": "accounts:share",
        "audit": "accounts:audit",
    },
    "Setting up": {
        "check": "check:check",
        "import": "import_ha:import_ha",
        "alerts": "alerts:app",
        "units": "units:app",
        "ocf": "ocf:app",
    },
    "Trying it on one machine": {"demo": "demo:demo", "lab": "lab:app"},
    "Daemons (started by systemd)": {
        "heartbeat": "daemons:heartbeat",
        "node": "daemons:node",
        "witness": "daemons:witness",
        "files": "daemons:files",
    },
}
"""Part of the help -> command -> module and what it has there: a function, or the Typer of its own commands."""
COMMANDS = {name: place for commands in PANELS.values() for name, place in commands.items()}
_PANEL_OF = {name: panel for panel, commands in PANELS.items() for name in commands}


class _Lazy(TyperGroup):
    """Imports what a command needs when it is called: each needs little of what all of them need together."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        names: dict[str, Any] = dict.fromkeys(COMMANDS)
        self.commands = names  # only the names, among which a mistyped one is looked for

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        """The command of a name; None when there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        found = getattr(importlib.import_module(f"relevo.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            made: Any = typer.main.get_group(found)  # also where it has one command only: `relevo node run`
        else:
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(found)
            made = typer.main.get_command(single)
        made.name = cmd_name
        made.rich_help_panel = _PANEL_OF[cmd_name]
        return made


app = typer.Typer(
    name="relevo",
    cls=_Lazy,
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


def main() -> None:
    """The entry point: errors of ours become one sentence and exit status 1."""
    with errors_as_sentences():
        try:
            app()
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
