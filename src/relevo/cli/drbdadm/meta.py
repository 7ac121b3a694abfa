"""The verbs for the meta-data of a mirror that is down: create-md, dump-md, wipe-md, apply-al."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from relevo.base.control import DaemonUnreachable
from relevo.base.errors import RelevoError
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.outcome import MaybeNames, Names, ask, over
from relevo.config.model import MirrorSite
from relevo.mirror.metadata import Superblock

Force = Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")]


class InUse(RelevoError):
    """The meta-data belongs to a process that runs."""


class NotConfirmed(RelevoError):
    """A question was not answered with yes."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `relevo mirror`."""
    for verb, function in (
        ("create-md", create_md),
        ("dump-md", dump_md),
        ("wipe-md", wipe_md),
        ("apply-al", apply_al),
    ):
        app.command(verb)(function)


def superblock_of(site: MirrorSite) -> Superblock:
    """What the disk of a mirror says.

    Raises:
        RelevoError: there is no disk, or no meta-data.
    """
    from relevo.mirror.create import read_superblock

    return read_superblock(site.disk, site.meta)[0]


def _down(context: Context, site: MirrorSite) -> None:
    try:
        ask(context, site, "status")
    except DaemonUnreachable:
        return
    raise InUse(
        f"The mirror is up: {site.disk} is in use.", f"Take it down first: relevo mirror down {site.mirror.name}."
    )


def _confirm(question: str) -> None:
    """Ask on standard error, for the answer may be piped in; nothing but yes is yes."""
    sys.stderr.write(f"{question} [need to type 'yes' to confirm] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        raise NotConfirmed("Operation cancelled: not answered with yes.")


def create_md(
    ctx: typer.Context,
    names: Names,
    *,
    force: Force = False,
    zeroed: Annotated[
        bool, typer.Option("--zeroed", help="Both disks are new and all zeros: no first resync is needed.")
    ] = False,
) -> None:
    """Write new meta-data; what is there is asked about."""
    from relevo.mirror.create import MetadataExists, create_metadata

    context = of(ctx)

    def action(site: MirrorSite) -> None:
        _down(context, site)
        extents = site.mirror.al_extents
        try:
            create_metadata(site.disk, zeroed=zeroed, force=force, al_extents=extents, place=site.meta)
        except MetadataExists as error:
            _confirm(f"{error.what} Overwrite it?")
            create_metadata(site.disk, zeroed=zeroed, force=True, al_extents=extents, place=site.meta)
        typer.echo("New meta-data was written.")

    over(ctx, names, action)


def wipe_md(ctx: typer.Context, names: Names, *, force: Force = False) -> None:
    """Take the meta-data away: the data stays, but nothing of a mirror is known any more."""
    from relevo.mirror.create import wipe_metadata

    context = of(ctx)

    def action(site: MirrorSite) -> None:
        _down(context, site)
        superblock_of(site)
        if not force:
            _confirm(f"Wipe out the mirror's meta-data on {site.meta.path or site.disk}?")
        wipe_metadata(site.disk, site.meta)

    over(ctx, names, action)


def dump_md(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Print the meta-data as drbdmeta does."""
    from relevo.mirror.meta_dump import dump_metadata

    context = of(ctx)

    def action(site: MirrorSite) -> None:
        _down(context, site)
        for line in dump_metadata(site.disk, site.meta):
            typer.echo(line)

    over(ctx, names, action)


def apply_al(ctx: typer.Context, names: Names) -> None:
    """Mark what the activity log of a crashed Primary speaks of; its process does so by itself at its start."""
    from relevo.mirror.meta_apply import apply_activity_log

    context = of(ctx)

    def action(site: MirrorSite) -> None:
        _down(context, site)
        applied = apply_activity_log(site.disk, site.meta)
        if applied.everything:
            typer.echo("The activity log is unreadable: everything is out of sync.")
        elif applied.extents:
            typer.echo(f"{applied.extents} extents of 4 MiB are out of sync by the activity log.")

    over(ctx, names, action)
