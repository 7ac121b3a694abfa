"""`relevo mirror saved …`: what was kept of a copy before it was overwritten."""

from __future__ import annotations

import pathlib
from typing import Annotated

import msgspec
import typer

from relevo.base.control import DaemonUnreachable, call
from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.cli import saved_diff
from relevo.cli.context import Context, of, print_json
from relevo.cli.local_time import localised
from relevo.cli.mirror_names import OptionalName, chosen
from relevo.config.site import find_site, sites_here

app = typer.Typer(
    no_args_is_help=True, help="What was kept of this node's copy before it was overwritten (after a split brain)."
)


class OwnDisk(RelevoError):
    """A saved copy is not written past a mirror to its disk."""


class StillFilled(RelevoError):
    """A disk that a resync is filling is no base for an image."""


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
    found = saved.find(context.paths.state, name, copy)
    refuse_own_disk(context, target)
    written = saved.extract(found, target, onto=onto)
    typer.echo(f"{format_bytes(written)} written to {target}.")


def refuse_own_disk(context: Context, target: pathlib.Path) -> None:
    """What is written there past the mirror differs from the other side's copy, and nobody would know.

    Raises:
        OwnDisk: it is one, whether or not it is in use.
    """
    for site in sites_here(context.paths, context.node):
        if target.exists() and site.disk.exists() and target.samefile(site.disk):
            mirror = site.mirror.name
            raise OwnDisk(
                f"{target} is the disk of mirror {mirror}: the other side would not learn what is written to it.",
                f"Make an image, and copy files out of it: relevo mirror saved image {mirror} COPY FILE.",
            )


@app.command("image")
def image(
    ctx: typer.Context,
    name: Name,
    copy: Copy,
    target: Annotated[pathlib.Path, typer.Argument(help="A new file, in a folder with room for the whole device.")],
    *,
    base: Annotated[
        pathlib.Path | None,
        typer.Option("--base", help="For changed blocks: what they are laid over; this node's disk unless named."),
    ] = None,
) -> None:
    """Write a saved copy to a whole image, check the file system in it, and say how to look into it."""
    from relevo.cli import image_check
    from relevo.mirror import saved, saved_image

    context = of(ctx)
    site = find_site(context.paths, context.node, name)
    found = saved.find(context.paths.state, name, copy)
    blocks = found.index.kind == "blocks"
    if blocks and base is None:
        must_be_whole(context, name)
        base = site.disk
    written = saved_image.write_image(found, target, base)
    over = f" over {base} as it is now" if blocks else ""
    typer.echo(f"{target}: {format_bytes(written)} of what was saved{over}.")
    fstype, sentence = image_check.check(target)
    typer.echo(sentence)
    typer.echo(image_check.how_to_look(target, fstype))
    typer.echo(
        f"Which files it has otherwise than the volume, where that is mounted: relevo mirror saved diff {name} {target}"
    )
    if blocks:
        typer.echo("What both servers changed in the same file can be mixed in it: look before you use it.")


def must_be_whole(context: Context, name: str) -> None:
    """The disk here is a base only when no resync is filling it.

    Raises:
        StillFilled: one is.
    """
    try:
        state = call(context.paths.socket(f"mirror-{name}"), "status")
    except DaemonUnreachable:
        return  # nobody writes to it
    if state["disk"] == "Inconsistent":
        raise StillFilled(
            f"The copy of {name} here is Inconsistent: a resync fills it.",
            f"Wait for its end (relevo mirror wait-sync {name}), or name another base: --base DISK.",
        )


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


app.command("diff")(saved_diff.diff)
