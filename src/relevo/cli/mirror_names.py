"""The NAME of a mirror on the command line, which may be left out where there is only one."""

from __future__ import annotations

from typing import Annotated

import typer

from relevo.cli.context import Context
from relevo.config.site import NoSuchMirror, configured_by_drbd, sites_here

OptionalName = Annotated[str | None, typer.Argument(help="Name of the mirror; may be left out if there is only one.")]


def none_here(context: Context) -> tuple[str, str]:
    """What to say where no mirror is this node's, and what to do about it."""
    file = context.paths.drbd if configured_by_drbd(context.paths) else context.paths.config
    return (
        f"{file} has no mirror of this host, {context.node}.",
        "Is it the host's name there (uname -n)? Or name the node with --node.",
    )


def chosen(context: Context, name: str | None) -> str:
    """The mirror that is meant.

    Raises:
        ConfigErrors: the configuration is wrong.
        NoSuchMirror: no name is given, and this node has not exactly one mirror.
    """
    if name is not None:
        return name
    known = [site.mirror.name for site in sites_here(context.paths, context.node)]
    if not known:
        raise NoSuchMirror(*none_here(context))
    if len(known) != 1:
        raise NoSuchMirror("Which mirror is meant?", f"Name it: {', '.join(known)}.")
    return known[0]
