"""The sh-* verbs, which scripts such as drbddisk and the OCF agent build upon; they only read the configuration."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Annotated

import typer

from relevo import __version__
from relevo.base.control import DaemonUnreachable, Message
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.outcome import Names, ask, over
from relevo.config.model import MirrorSite
from relevo.config.site import configured_by_drbd, sites_here

Ignored = Annotated[list[str] | None, typer.Argument(hidden=True, help="Ignored, as drbdadm does.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `relevo mirror`."""
    for verb, text in (
        ("sh-resource", lambda _, site: site.mirror.name),
        ("sh-dev", device_name),
        ("sh-minor", lambda _, site: str(site.minor)),
        ("sh-ll-dev", lambda _, site: str(site.disk)),
        ("sh-md-dev", lambda _, site: str(site.meta.path or site.disk)),
        ("sh-md-idx", lambda _, site: meta_index(site)),
        ("sh-ip", lambda _, site: str(site.own.address)),
        ("sh-udev", _udev),
    ):
        app.command(verb, hidden=True, help="For scripts.")(_each(text))
    app.command("sh-resources", hidden=True, help="For scripts: the names of all mirrors.")(sh_resources)
    app.command("sh-status", hidden=True, help="For scripts: the states of all mirrors as variables.")(sh_status)
    app.command("sh-nop", hidden=True, help="For scripts: only read the configuration.")(sh_nop)
    app.command("sh-mod-parms", hidden=True, help="For scripts: what the kernel's module would be loaded with.")(
        sh_mod_parms
    )
    app.command("sh-b-pri", hidden=True, help="For scripts: become Primary at boot, which is nobody's wish here.")(
        sh_b_pri
    )


def _each(text: Callable[[Context, MirrorSite], str]) -> Callable[..., None]:
    def command(ctx: typer.Context, names: Names) -> None:
        context = of(ctx)
        over(ctx, names, lambda site: typer.echo(text(context, site)))

    return command


def device_name(context: Context, site: MirrorSite) -> str:
    """The name of the device that appears while Primary: drbd.conf's, else the one in the run folder."""
    return str(site.device or context.paths.run / "mirror" / site.mirror.name / "device")


def meta_index(site: MirrorSite) -> str:
    """Where on its disk the meta-data lies, in drbd.conf's words."""
    kinds = {"internal": "internal", "flexible": "flex-external"}
    return kinds.get(site.meta.kind, str(site.meta.index))


def _udev(context: Context, site: MirrorSite) -> str:
    device = device_name(context, site).removeprefix("/dev/")
    return f"RESOURCE={site.mirror.name}\nDEVICE={device}\nDISK={str(site.disk).removeprefix('/dev/')}"


def sh_resources(ctx: typer.Context, _names: Ignored = None) -> None:
    """Print the names of all mirrors of this node in one line."""
    context = of(ctx)
    typer.echo(" ".join(site.mirror.name for site in sites_here(context.paths, context.node)))


def sh_nop(ctx: typer.Context, _names: Ignored = None) -> None:
    """Read the configuration; an error in it is told."""
    context = of(ctx)
    sites_here(context.paths, context.node)


def sh_mod_parms(ctx: typer.Context, _names: Ignored = None) -> None:
    """Print `minor_count=N`: at least 32, as drbdadm does."""
    context = of(ctx)
    last = max((site.minor or 0 for site in sites_here(context.paths, context.node)), default=0)
    typer.echo(f"minor_count={max(32, last + 1)}")


def sh_b_pri(ctx: typer.Context, names: Names) -> None:
    """Nobody becomes Primary at boot: that is the cluster's decision."""
    over(ctx, names, lambda _: None)


def sh_status(ctx: typer.Context, _names: Ignored = None) -> None:
    """Print the states of all mirrors as shell variables, with the name of a function to call after each."""
    context = of(ctx)
    origin = context.paths.drbd if configured_by_drbd(context.paths) else context.paths.config
    lines = [f"_drbd_version={__version__}", "_drbd_api=1", f"_config_file={shlex.quote(str(origin))}", "", ""]
    for site in sites_here(context.paths, context.node):
        try:
            status = ask(context, site, "status")
        except DaemonUnreachable:
            status = None
        lines.extend(status_variables(site, status))
    typer.echo("\n".join(lines))


def status_variables(site: MirrorSite, status: Message | None) -> list[str]:
    """One mirror as shell variables; empty ones, and cstate Unconfigured, when it is not up."""
    name = shlex.quote(site.mirror.name)
    known = "Configured" if status else "NA # not available or not yet created"
    run = (status or {}).get("resync")
    share = f"{run['done_bytes'] * 100 / max(1, run['total_bytes']):.1f}" if run else ""

    def field(key: str, otherwise: str = "") -> str:
        return str(status[key]) if status else otherwise

    def flag(key: str) -> str:
        return "1" if status and status.get(key) else ""

    return [
        f"_conf_res_name={name}",
        "",
        "_stacked_on=",
        "_stacked_on_device=",
        "_stacked_on_minor=",
        "_conf_volume=0",
        f"_minor={site.minor}",
        f"_res_name={name if status else ''}",
        f"_volume={0 if status else -1}",
        f"_known={known}",
        "",
        f"_cstate={field('connection', 'Unconfigured')}",
        f"_role={field('role')}",
        f"_peer={field('peer_role')}",
        f"_disk={field('disk')}",
        f"_pdsk={field('peer_disk')}",
        "",
        f"_flags_susp={flag('suspended') or flag('io_suspended')}",
        "_flags_aftr_isp=",
        f"_flags_peer_isp={flag('peer_paused')}",
        f"_flags_user_isp={flag('paused')}",
        "",
        f"_resynced_percent={share}",
        "",
        "_sh_status_process",
        "",
        "",
    ]
