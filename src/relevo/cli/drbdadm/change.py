"""The verbs that ask a running mirror for one change of state."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import typer

from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.errors import RelevoError
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.outcome import Action, Exit, MaybeNames, Names, Usage, ask, is_shim, note, over
from relevo.cli.node_runs import NodeDecides, node_runs
from relevo.config.model import MirrorSite
from relevo.mirror.packets import SECTOR_BYTES
from relevo.mirror.states import CONNECTION_NAMES, Connection

PLAIN = {
    "attach": ("attach", "Use this node's disk (again)."),
    "secondary": ("secondary", "Become Secondary; the device goes away."),
    "invalidate": ("invalidate", "Take the copy here for out of sync: every block comes from the peer."),
    "invalidate-remote": ("invalidate_remote", "Take the peer's copy for out of sync: every block goes to the peer."),
    "verify-stop": ("verify_stop", "End a verify that was started here where it stands."),
    "suspend-io": ("suspend_io", "Hold back what applications read and write."),
}
"""Verb without options -> request to the mirror's process, and what it does."""
HARMLESS = frozenset({"attach", "verify-stop"})
"""Those of them that may be said without a name."""
_SIZE = re.compile(r"(\d{1,20})([sSkKmMgGtT]?)", re.ASCII)
_UNITS_BYTES = {"": 512, "s": 512, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
STANDALONE = CONNECTION_NAMES[Connection.STANDALONE]
WAITING = CONNECTION_NAMES[Connection.WF_CONNECTION]


class AlreadySet(RelevoError):
    """What is asked for is so already."""


def drbd_size(text: str) -> int:
    """A size as drbd's tools take it, in bytes: a number of sectors, or with K, M, G or T behind it.

    Raises:
        Usage: it is none.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Usage(f"{text!r} is not a size.", "Write a number of sectors, or one with K, M, G or T, such as 10G.")
    return int(match[1]) * _UNITS_BYTES[match[2].lower()]


def register(app: typer.Typer) -> None:
    """Add the verbs to `relevo mirror`."""
    for verb, (request, sentence) in PLAIN.items():
        app.command(verb, help=sentence)(_harmless(request) if verb in HARMLESS else _plain(request))
    for verb, function in (
        ("primary", primary),
        ("resume-io", resume_io),
        ("connect", connect),
        ("disconnect", disconnect),
        ("detach", detach),
        ("outdate", outdate),
        ("pause-sync", pause_sync),
        ("resume-sync", resume_sync),
        ("resync", resync),
        ("verify", verify),
        ("new-current-uuid", new_current_uuid),
        ("resize", resize),
    ):
        app.command(verb)(function)


def _asks(ctx: typer.Context, request: str, **arguments: object) -> Action:
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        ask(context, site, request, **arguments)

    return action


def _plain(request: str) -> Callable[..., None]:
    def command(ctx: typer.Context, names: Names) -> None:
        over(ctx, names, _asks(ctx, request))

    return command


def _harmless(request: str) -> Callable[..., None]:
    def command(ctx: typer.Context, names: MaybeNames = None) -> None:
        over(ctx, names, _asks(ctx, request))

    return command


def primary(
    ctx: typer.Context,
    names: Names,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", "-f", "--overwrite-data-of-peer", "-o", help="Although the data here may not be current."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print the device.")] = False,
) -> None:
    """Become Primary by hand and print the device; where a service uses the mirror, `relevo standby` is the way."""
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        if not force and node_runs(context):
            raise NodeDecides(site.mirror.name)
        device = promote(context, site, force=force)
        if not quiet:
            typer.echo(device)

    over(ctx, names, action)


def promote(context: Context, site: MirrorSite, *, force: bool) -> str:
    """Become Primary under the newest vote that was seen; returns the device."""
    epoch = int(ask(context, site, "status").get("epoch", 0))
    return str(ask(context, site, "primary", force=force, epoch=epoch)["device"])


def connect(
    ctx: typer.Context,
    names: MaybeNames = None,
    *,
    discard_my_data: Annotated[
        bool, typer.Option("--discard-my-data", help="After a split brain: give up what only this side has.")
    ] = False,
) -> None:
    """Look for the peer."""
    context = of(ctx)
    if discard_my_data and not names:
        typer.echo("relevo: Which mirror's changes shall be given up? Name it.", err=True)
        raise typer.Exit(Exit.USAGE)

    def action(site: MirrorSite) -> None:
        connection = ask(context, site, "status")["connection"]
        waiting = connection == WAITING and discard_my_data and not is_shim(ctx)
        if connection != STANDALONE and not waiting:
            raise AlreadySet("This side looks for its peer already, or has it.", "To begin anew: disconnect first.")
        ask(context, site, "discard" if discard_my_data else "connect")
        if discard_my_data:
            note(ctx, site, f"What is given up is saved first: relevo mirror saved list {site.mirror.name}")

    over(ctx, names, action)


def disconnect(
    ctx: typer.Context,
    names: Names,
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask the peer: cut the connection.")] = False,
) -> None:
    """Take leave of the peer; this side stays alone until `connect`."""
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        if ask(context, site, "status")["connection"] == STANDALONE:
            raise AlreadySet("This side is StandAlone already.")
        ask(context, site, "disconnect", force=force)

    over(ctx, names, action)


def detach(
    ctx: typer.Context,
    names: Names,
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not wait for the disk.")] = False,
) -> None:
    """Let go of this node's disk; a Primary goes on with the peer's copy."""
    over(ctx, names, _asks(ctx, "detach", force=force))


def outdate(ctx: typer.Context, names: Names) -> None:
    """Mark the copy here as no longer current, on the disk too when the mirror is not up."""
    context = of(ctx)

    def action(site: MirrorSite) -> Exit:
        try:
            ask(context, site, "outdate")
        except DaemonUnreachable:
            _outdate_disk(site)
        except Refused as error:
            if error.error != "StillPrimary":
                raise
            typer.echo(f"relevo: {site.mirror.name}: {error}", err=True)
            return Exit.NO_UP_TO_DATE_DISK  # what fence-peer handlers look for
        return Exit.OK

    over(ctx, names, action)


def _outdate_disk(site: MirrorSite) -> None:
    from relevo.mirror.meta_outdate import outdate_metadata

    outdate_metadata(site.disk, site.meta)


def pause_sync(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Hold whatever resync runs or will run, on this side's behalf."""
    _pause(ctx, names, "pause_sync", before=False)


def resume_sync(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Let a resync go on that was held with pause-sync."""
    _pause(ctx, names, "resume_sync", before=True)


def _pause(ctx: typer.Context, names: list[str] | None, request: str, *, before: bool) -> None:
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        if ask(context, site, "status")["paused"] is not before:
            raise AlreadySet("The sync-pause flag of this side is cleared already." if before else "It is set already.")
        ask(context, site, request)

    over(ctx, names, action)


def resync(
    ctx: typer.Context,
    names: Names,
    *,
    speed: Annotated[
        str, typer.Option("--speed", help="fast: whatever applications do; gentle: in the background; auto.")
    ] = "",
    fast: Annotated[bool, typer.Option("--fast", help="The same as --speed fast.")] = False,
    gentle: Annotated[bool, typer.Option("--gentle", help="The same as --speed gentle.")] = False,
) -> None:
    """Send what differs by a verify to the peer; with a speed: how fast a resync goes from now on, on both sides."""
    speed = "fast" if fast else "gentle" if gentle else speed
    over(ctx, names, _asks(ctx, "resync_speed", speed=speed) if speed else _asks(ctx, "resync"))


def verify(
    ctx: typer.Context,
    names: MaybeNames = None,
    *,
    start: Annotated[str, typer.Option("--start", "-s", help="Where to begin: sectors, or with K, M, G.")] = "",
    stop: Annotated[str, typer.Option("--stop", "-S", help="Where to end, likewise.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Send what differs to the peer afterwards.")] = False,
) -> None:
    """Compare both copies while they are in use; what differs is marked, told and counted."""
    given = (("start_sector", start), ("stop_sector", stop))
    bounds = {key: drbd_size(text) // SECTOR_BYTES for key, text in given if text}
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        ask(context, site, "verify", repair=repair, **bounds)
        note(ctx, site, f"It has begun; how far it is, and what differs: relevo mirror status {site.mirror.name}")

    over(ctx, names, action)


def resume_io(ctx: typer.Context, names: Names) -> None:
    """Let applications go on; a Primary that waits for permission to go on without its peer, too."""
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        if ask(context, site, "status")["suspended"] and node_runs(context):
            raise NodeDecides(site.mirror.name)
        ask(context, site, "resume_io")

    over(ctx, names, action)


def new_current_uuid(
    ctx: typer.Context,
    names: Names,
    *,
    clear_bitmap: Annotated[
        bool, typer.Option("--clear-bitmap", "-c", help="Both new copies are equal: no first resync.")
    ] = False,
) -> None:
    """Begin a new generation of the data."""
    over(ctx, names, _asks(ctx, "new_current_uuid", clear_bitmap=clear_bitmap))


def resize(
    ctx: typer.Context,
    names: Names,
    *,
    size: Annotated[str, typer.Option("--size", "-s", help="New size (drbd's units: s, K, M, G).")] = "",
    assume_clean: Annotated[
        bool, typer.Option("--assume-clean", help="What is added is equal on both sides: no resync of it.")
    ] = False,
    assume_peer_has_space: Annotated[
        bool, typer.Option("--assume-peer-has-space", help="Although the peer is not connected.")
    ] = False,
) -> None:
    """Take over the new size of the backing disks."""
    arguments: dict[str, object] = {"assume_clean": assume_clean, "assume_peer_has_space": assume_peer_has_space}
    if size:
        arguments["size_bytes"] = drbd_size(size)
    over(ctx, names, _asks(ctx, "resize", **arguments))
