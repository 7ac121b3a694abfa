"""The verbs that print a state: role, cstate, dstate, get-gi, show-gi."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from relevo.base.control import DaemonUnreachable, Message
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.advice import advised
from relevo.cli.drbdadm.outcome import ALL, Exit, MaybeNames, ask, over
from relevo.cli.node_runs import node_runs
from relevo.config.model import MirrorSite
from relevo.mirror.metadata import MetaFlag, Superblock
from relevo.mirror.states import CONNECTION_NAMES, Connection

UNCONFIGURED = "Unconfigured"
CONNECTED_STATES = frozenset(name for state, name in CONNECTION_NAMES.items() if state >= Connection.CONNECTED)
GI_FLAGS = (
    (MetaFlag.CONSISTENT, "Data consistency flag"),
    (MetaFlag.WAS_UP_TO_DATE, "Data was/is currently up-to-date"),
    (MetaFlag.PRIMARY_IND, "Node was/is currently primary"),
    (MetaFlag.CONNECTED_IND, "Node was/is currently connected"),
    (MetaFlag.FULL_SYNC, "Node was in the progress of setting all bits in the bitmap"),
    (MetaFlag.PEER_OUTDATED, "The peer's disk was out-dated or inconsistent"),
    (MetaFlag.CRASHED_PRIMARY, "This node was a crashed primary, and has not seen its peer since"),
)
"""The flags that get-gi prints behind the generations, in its order."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `relevo mirror`."""
    for verb, function in (
        ("role", role),
        ("state", role),
        ("cstate", cstate),
        ("dstate", dstate),
        ("get-gi", get_gi),
        ("show-gi", show_gi),
        ("drbd-status", drbd_status),
    ):
        app.command(verb, hidden=verb in {"state", "drbd-status"})(function)


def _pair(ctx: typer.Context, names: list[str] | None, text: Callable[[Message], str]) -> None:
    context = of(ctx)

    def action(site: MirrorSite) -> Exit:
        try:
            status = ask(context, site, "status")
        except DaemonUnreachable as error:
            typer.echo(UNCONFIGURED)
            name = site.mirror.name
            typer.echo(f"relevo: {name}: {advised(error, name, decided=node_runs(context))}", err=True)
            return Exit.NOT_CONFIGURED
        typer.echo(text(status))
        return Exit.OK

    over(ctx, names, action)


def role(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Print the roles of both sides, such as Primary/Secondary."""
    _pair(ctx, names, lambda status: f"{status['role']}/{status['peer_role']}")


def cstate(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Print the state of the connection, such as Connected."""
    _pair(ctx, names, lambda status: str(status["connection"]))


def dstate(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Print the states of both disks, such as UpToDate/UpToDate; of a mirror that is down, what the disk says."""
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        try:
            status = ask(context, site, "status")
        except DaemonUnreachable:
            typer.echo(disk_state(_superblock(site).flags))
        else:
            typer.echo(f"{status['disk']}/{status['peer_disk']}")

    over(ctx, names, action)


def _superblock(site: MirrorSite) -> Superblock:
    from relevo.cli.drbdadm.meta import superblock_of

    return superblock_of(site)


def disk_state(flags: int) -> str:
    """What a disk that is not in use says of its copy, as drbdmeta says it.

    It is the newest for certain only when the peer's copy was known to be worse; else others may have written since.
    """
    if not flags & MetaFlag.CONSISTENT:
        return "Inconsistent"
    if not flags & MetaFlag.WAS_UP_TO_DATE:
        return "Outdated"
    return "UpToDate" if flags & MetaFlag.PEER_OUTDATED else "Consistent"


def generations(context: Context, site: MirrorSite) -> str:
    """The line of get-gi: current, bitmap, two of history, seven flags.

    Raises:
        RelevoError: the mirror is down and the disk has no meta-data.
    """
    try:
        found = ask(context, site, "status")
    except DaemonUnreachable:
        superblock = _superblock(site)
        uuids = [superblock.current, superblock.bitmap, superblock.history0, superblock.history1]
        flags = superblock.flags
    else:
        uuids, flags = _told(found)
    words = [f"{uuid:016X}" for uuid in uuids]
    words.extend("1" if flags & flag else "0" for flag, _ in GI_FLAGS)
    return ":".join(words)


def _told(status: Message) -> tuple[list[int], int]:
    words = (status["current_uuid"], status["bitmap_uuid"], *status["history_uuids"])
    return [int(word, 16) for word in words], int(status["meta_flags"])


def get_gi(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Print the generations of the data and their flags in one line."""
    context = of(ctx)
    over(ctx, names, lambda site: typer.echo(generations(context, site)))


def show_gi(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Print the generations of the data and their flags, and what they are."""
    context = of(ctx)
    over(ctx, names, lambda site: typer.echo(explained(generations(context, site))))


def explained(line: str) -> str:
    """What each part of the line of get-gi is."""
    width = 17  # of a generation and the colon behind it
    titles = (
        "Current data generation UUID",
        "Bitmap's base data generation UUID",
        "younger history UUID",
        "older history",
    )
    rows = [""]
    for index, title in enumerate(titles):
        bars = " " * 7 + "|".ljust(width) * index
        rows.append(f"{bars}+--<  {title}  >-")
    rows.append(" " * 7 + "V".ljust(width) * len(titles))
    rows.append(line)
    first = len(line) - 2 * len(GI_FLAGS) + 1
    rows.append(" " * first + " ".join("^" * len(GI_FLAGS)))
    for index, (_, title) in enumerate(GI_FLAGS):
        at = first + 2 * index
        rows.append(f"-<  {title}  >--+".rjust(at + 1) + " |" * (len(GI_FLAGS) - index - 1))
    return "\n".join(rows) + "\n"


def drbd_status(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[all|RESOURCE…]", help="Which mirrors.")] = None,
) -> None:
    """What `drbdadm status` prints."""
    context = of(ctx)

    def action(site: MirrorSite) -> Exit:
        try:
            status = ask(context, site, "status")
        except DaemonUnreachable as error:
            name = site.mirror.name
            typer.echo(f"relevo: {name}: {advised(error, name, decided=node_runs(context))}", err=True)
            return Exit.NOT_CONFIGURED
        typer.echo(status_text(site.mirror.name, status))
        return Exit.OK

    over(ctx, names or [ALL], action)


def status_text(name: str, status: Message) -> str:
    """One mirror in the layout of `drbdadm status`: this side, the peer, and what goes on between them."""
    lines = [f"{name} role:{status['role']}", f"  disk:{status['disk']}"]
    connection = status["connection"]
    if connection not in CONNECTED_STATES:
        words = {"WFConnection": "Connecting", "WFReportParams": "Connecting"}
        lines.append(f"  peer connection:{words.get(connection, connection)}")
        return "\n".join(lines) + "\n"
    lines.append(f"  peer role:{status['peer_role']}")
    replication = "Established" if connection == "Connected" else connection
    line = f"    replication:{replication} peer-disk:{status['peer_disk']}"
    run = status.get("resync")
    if run:
        line += f" done:{run['done_bytes'] * 100 / max(1, run['total_bytes']):.2f}"
    lines.append(line)
    held = [word for word, flag in (("peer", "peer_paused"), ("user", "paused")) if status.get(flag)]
    if held:
        lines.append(f"        resync-suspended:{','.join(held)}")
    return "\n".join(lines) + "\n"
