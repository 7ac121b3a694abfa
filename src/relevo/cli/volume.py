"""`relevo volume format`: the only command that makes a file system."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from relevo.cli.context import of, print_json

app = typer.Typer(no_args_is_help=True, help="The file systems on the mirrors.")


@app.callback()
def volume() -> None:
    """The file systems on the mirrors."""


@app.command("format")
def format_(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The mirror.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    fstype: Annotated[str, typer.Option(help="ext4, xfs or btrfs (default: as configured).")] = "",
    force: Annotated[bool, typer.Option("--force", help="Destroy what is on it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Make a file system on a mirror; refused while it is in use, or when something is on it already."""
    from relevo.agents.volume import format_volume

    context = of(ctx)
    config = context.config()
    if not yes:
        typer.confirm(f"Make a new, empty file system on both disks of mirror {name}?", abort=True)
    made = asyncio.run(format_volume(config, context.paths, name, fstype=fstype, force=force))
    if as_json:
        print_json({"ok": True, "mirror": made.mirror, "fstype": made.fstype})
    else:
        typer.echo(f"Mirror {made.mirror} has a new, empty {made.fstype}.")
