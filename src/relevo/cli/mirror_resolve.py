"""`relevo mirror resolve`: what a split brain's resolution costs, the question, and how to get something back."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from relevo.base.control import call
from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.cli.context import of
from relevo.cli.local_time import localised
from relevo.cli.mirror_names import OptionalName, chosen
from relevo.config.site import find_site
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.saved import store


class NotAsked(RelevoError):
    """Nobody can be asked, and nobody has said yes."""


def remedy(name: str, *, decided_here: bool) -> str:
    """The commands that resolve a split brain; `decided_here`: no node daemon could."""
    if not decided_here:
        return f"relevo mirror resolve {name} --keep NODE"
    return (
        f"`relevo mirror connect --discard-my-data {name}` on the server whose changes are given up, "
        f"`relevo mirror connect {name}` on the other"
    )


def resolve(
    ctx: typer.Context,
    name: OptionalName = None,
    *,
    keep: Annotated[str, typer.Option(help="The node whose changes stay.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be given up, and where.")] = False,
) -> None:
    """After a split brain: keep the changes of one node and give up those of the other (they are saved first)."""
    context = of(ctx)
    name = chosen(context, name)
    find_site(context.paths, context.node, name)
    if not context.paths.config.exists():
        raise RelevoError(
            f"Without {context.paths.config} no node daemon can resolve {name}.",
            f"Run {remedy(name, decided_here=True)}.",
        )
    nodes = list(context.config().nodes)
    if keep not in nodes:
        raise RelevoError(f"There is no node {keep!r}.", f"Known: {', '.join(nodes)}.")
    socket = context.paths.socket("node")
    told = call(socket, "resolve_preview", mirror=name, keep=keep)
    typer.echo(localised(cost(told, str(store(context.paths.state, name)))))
    if dry_run:
        typer.echo("Nothing was done (--dry-run).")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise NotAsked("Nothing was done: there is no terminal to ask at.", "Add --yes.")
        typer.confirm(f"Give up the changes of {told['loser']}?", abort=True)
    typer.echo(call(socket, "resolve", mirror=name, keep=keep)["what"])
    typer.echo(way_back(name, told["loser"]))


def cost(told: dict[str, Any], where: str) -> str:
    """What the resolution would do.

    Args:
        told: the node daemon's answer to `resolve_preview`.
        where: folder of the saved copies.
    """
    keep, loser, name = told["keep"], told["loser"], told["mirror"]
    since = f" since {told['since']}" if told["since"] else ""
    return "\n".join(
        (
            f"Mirror {name}: {keep} and {loser} have been changed apart{since}.",
            f"  {keep} keeps its changes: {_amount(told['changed_bytes'][keep])}.",
            f"  {loser} LOSES its changes: {_amount(told['changed_bytes'][loser])}.",
            f"  They are saved first, on {loser} below {where}; without room for that nothing is given up.",
        )
    )


def _amount(changed_bytes: int | None) -> str:
    if changed_bytes is None:
        return "unknown, for that server is not heard now"
    blocks = changed_bytes // BLOCK_BYTES
    return f"{format_bytes(changed_bytes)} in {blocks} changed block{'' if blocks == 1 else 's'} of 4 KiB"


def way_back(name: str, loser: str) -> str:
    """How to get one file of what was given up.

    Args:
        name: the mirror.
        loser: the node that gave up its changes.
    """
    return "\n".join(
        (
            f"To get a file of {loser}'s back, on {loser}, in a folder with room for the whole disk:",
            f"  relevo mirror saved list {name}  # as soon as it shows the copy; its name is COPY below",
            f"  relevo mirror saved image {name} COPY old.img  # checks it, and says how to mount it",
            "What both servers changed in the same file can be mixed in it: look before you use it.",
        )
    )
