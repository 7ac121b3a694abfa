"""`relevo mirror saved …`: what was kept of a copy before it was overwritten."""

from __future__ import annotations

import pathlib
from typing import Annotated

import msgspec
import typer

from relevo.base.units import format_bytes
from relevo.cli.context import of, print_json
from relevo.cli.local_time import localised
from relevo.cli.mirror_names import OptionalName, chosen
from relevo.config.site import find_site

app = typer.Typer(
    no_args_is_help=True, help="What was kept of this node's copy before it was overwritten (after a split brain)."
)
Name = Annotated[str, typer.Argument(help="Name of the mirror, such as r0.")]
Copy = Annotated[str, typer.Argument(help="Name of the saved copy, as `list` shows it.")]


@app.command("list")
def show(
    ctx: typer.Context,
    name: OptionalName = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """List the saved copies, the oldest first."""
    from relevo.mirror.saved import saved_copies

    context = of(ctx)
    name = chosen(context, name)
    find_site(context.paths, context.node, name)
    copies = saved_copies(context.paths.state, name)
    if as_json:
        print_json({"copies": [{"name": copy.name, **msgspec.to_builtins(copy.index)} for copy in copies]})
        return
    for copy in copies:
        index = copy.index
        what = {"blocks": "changed blocks", "image": "image", "lvm": f"snapshot {index.image}"}[index.kind]
        typer.echo(
            f"{copy.name}  {index.reason}  {what}  {format_bytes(index.saved_bytes)}  {localised(index.saved_at)}"
        )
    if not copies:
        typer.echo(f"Nothing has been saved of mirror {name} here.")


@app.command("extract")
def extract(
    ctx: typer.Context,
    name: Name,
    copy: Copy,
    target: Annotated[pathlib.Path, typer.Argument(help="A new file; with --onto an image or a device.")],
    *,
    onto: Annotated[
        bool, typer.Option("--onto", help="Write over what is there: the saved blocks at their places.")
    ] = False,
) -> None:
    """Write a saved copy to a file: the blocks that were saved, with holes where nothing was."""
    from relevo.mirror import saved

    context = of(ctx)
    find_site(context.paths, context.node, name)
    written = saved.extract(saved.find(context.paths.state, name, copy), target, onto=onto)
    typer.echo(f"{format_bytes(written)} written to {target}.")


@app.command("remove")
def remove(
    ctx: typer.Context,
    name: Name,
    copy: Copy,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a saved copy."""
    from relevo.mirror import saved

    context = of(ctx)
    find_site(context.paths, context.node, name)
    found = saved.find(context.paths.state, name, copy)
    if not yes:
        typer.confirm(f"Delete what was saved of {name} ({copy})?", abort=True)
    saved.remove(found)
    typer.echo(f"{copy} is deleted.")
