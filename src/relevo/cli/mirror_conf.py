"""`relevo mirror dump`: what drbd.conf says, everything inherited, as `drbdadm dump` prints it."""

from __future__ import annotations

from typing import Annotated

import typer

from relevo.cli.context import of
from relevo.config.drbd.dump import dump as printed
from relevo.config.drbd.load import read
from relevo.config.site import NoSuchMirror


def dump(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a resource; all by default.")] = "all",
) -> None:
    """Print drbd.conf as drbdadm dump does; warnings go to standard error."""
    context = of(ctx)
    conf = read(context.paths.drbd, context.node)
    if name != "all" and conf.resource(name) is None:
        known = ", ".join(resource.name for resource in conf.resources) or "none"
        raise NoSuchMirror(f"There is no resource {name!r} in {context.paths.drbd}.", f"Known: {known}.")
    for note in conf.found.notes:
        typer.echo(f"warning: {note}", err=True)
    typer.echo(printed(conf, context.node, only=None if name == "all" else name), nl=False)
