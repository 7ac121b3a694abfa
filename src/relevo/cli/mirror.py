"""`relevo mirror …`: the same blocks on two disks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relevo.base.control import DaemonUnreachable, call
from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes, format_duration_ms
from relevo.cli import drbdadm, mirror_conf, mirror_resolve, mirror_saved
from relevo.cli.context import of, print_json
from relevo.cli.drbdadm.advice import advised
from relevo.cli.local_time import localised
from relevo.cli.mirror_names import OptionalName, chosen
from relevo.cli.node_runs import node_runs
from relevo.config.site import find_site
from relevo.mirror.bitmap import BLOCK_BYTES

app = typer.Typer(cls=drbdadm.Verbs, no_args_is_help=True, help="The same blocks on two disks.")
drbdadm.register(app)
app.command("dump")(mirror_conf.dump)
app.command("resolve")(mirror_resolve.resolve)
app.add_typer(mirror_saved.app, name="saved")
Name = Annotated[str, typer.Argument(help="Name of the mirror, such as r0.")]


@app.command("run")
def run(ctx: typer.Context, name: Name) -> None:
    """Mirror until told to stop (started by the init system)."""
    from relevo.base import log
    from relevo.mirror import daemon

    context = of(ctx)
    site = find_site(context.paths, context.node, name)
    log.set_up(f"mirror-{name}")
    raise SystemExit(daemon.run(site, context.paths))


@app.command("create")
def create(
    ctx: typer.Context,
    name: Name,
    *,
    zeroed: Annotated[
        bool, typer.Option("--zeroed", help="Both disks are new and all zeros: no first resync is needed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over the meta-data that is there.")] = False,
) -> None:
    """Write new meta-data for this node's disk: at its end, or where `meta_disks` says."""
    from relevo.mirror.create import create_metadata

    context = of(ctx)
    site = find_site(context.paths, context.node, name)
    create_metadata(site.disk, zeroed=zeroed, force=force, al_extents=site.mirror.al_extents, place=site.meta)
    where = "" if site.meta.path is None else f" on {site.meta}"
    typer.echo(f"{site.disk} has new meta-data for mirror {name}{where}.")


@app.command("status")
def status(
    ctx: typer.Context,
    name: OptionalName = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show roles, connection and disks as this node sees them."""
    context = of(ctx)
    name = chosen(context, name)
    find_site(context.paths, context.node, name)
    try:
        found = call(context.paths.socket(f"mirror-{name}"), "status")
    except DaemonUnreachable as error:
        raise RelevoError(advised(error, name, decided=node_runs(context))) from error
    if as_json:
        print_json(found)
        return
    typer.echo(localised(_sentence(found, decided_here=not context.paths.config.exists())))


def _sentence(found: dict[str, Any], *, decided_here: bool = False) -> str:
    """What people read. `decided_here`: there is no relevo.toml, so no node daemon that could resolve a split brain."""
    lines = [
        (
            f"{found['name']}: {found['connection']} ro:{found['role']}/{found['peer_role']} "
            f"ds:{found['disk']}/{found['peer_disk']} oos:{format_bytes(found['out_of_sync_bytes'])}"
        )
    ]
    if found.get("resync"):
        lines.append(f"  resync: {_progress(found['resync'])}")
    lines.extend(_paused(found))
    lines.extend(_waits(found))
    lines.extend(_verifies(found))
    if found.get("device"):
        lines.append(f"  device: {found['device']}")
    lines.extend(f"  {found[key]}" for key in ("problem",) if found.get(key))
    if found.get("split_brain"):
        own, peers = (format_bytes(found[f"split_brain_{side}_bytes"]) for side in ("own", "peer"))
        since = f" since {found['split_brain_since']}" if found.get("split_brain_since") else ""
        lines.append(f"  apart{since}: {own} changed here, {peers} on the peer")
        lines.append(f"  to resolve it: {mirror_resolve.remedy(found['name'], decided_here=decided_here)}")
    return "\n".join(lines)


def _progress(run: dict[str, Any]) -> str:
    """How far a resync or a verify has come."""
    left = f", {format_duration_ms(run['eta_ms'])} left" if run.get("eta_ms") is not None else ""
    return f"{format_bytes(run['done_bytes'])} of {format_bytes(run['total_bytes'])}{left}"


def _paused(found: dict[str, Any]) -> list[str]:
    """Who holds every resync (`pause-sync`), whether or not one is under way."""
    name = found["name"]
    told = (
        ("paused", f"here: relevo mirror resume-sync {name}"),
        ("peer_paused", f"on the peer: relevo mirror resume-sync {name} there"),
    )
    return [f"  resync is paused {sentence} lets it go on" for key, sentence in told if found.get(key)]


def _waits(found: dict[str, Any]) -> list[str]:
    """What stands still until somebody does something."""
    name = found["name"]
    lines = []
    if found.get("io_suspended"):
        lines.append(f"  what is read and written is held: relevo mirror resume-io {name} lets it go on")
    if found.get("suspended"):
        lines.append("  writes wait: the peer is lost, and nothing has allowed this side yet to go on alone")
    if found["connection"] == "StandAlone" and not found.get("split_brain"):
        lines.append(f"  it does not look for its peer: relevo mirror connect {name} begins that again")
    if found["disk"] == "Diskless":
        lines.append(f"  no disk is in use here: relevo mirror attach {name}, when it is in order")
    return lines


def _verifies(found: dict[str, Any]) -> list[str]:
    """The verify under way, the last one that anybody began, and those that begin by themselves."""
    lines = []
    if run := found.get("verify"):
        lines.append(
            f"  verify: {_progress(run)}, {format_bytes(run['out_of_sync_blocks'] * BLOCK_BYTES)} differ so far"
        )
    if last := found.get("last_verify"):
        part = "" if last["complete"] else " (of a part)"
        lines.append(f"  last verify{part} since the mirror's start: {format_bytes(last['bytes'])} differed")
        if last["bytes"] and found["out_of_sync_bytes"]:
            mend = f"relevo mirror resync {found['name']}"
            lines.append(f"  to write the active server's blocks over the other one's, there: {mend}")
        elif last["bytes"]:
            lines.append("  and has been made equal since")
    return [*lines, *_verified(found.get("verify_schedule") or {})]


def _verified(schedule: dict[str, Any]) -> list[str]:
    """When the copies were last compared by themselves, what that found, and when it is due again."""
    if not schedule.get("every_ms"):
        return ["  verified by itself: never (no verify_every is set)"]
    last = "never"
    if schedule["last_ended"]:
        last = f"{schedule['last_ended']}, {format_bytes(schedule['last_blocks'] * BLOCK_BYTES)} differed"
    waits = f", waits: {schedule['waits']}" if schedule["waits"] else ""
    return [f"  verified: {last}; due {schedule['next_due']}{waits}"]
