"""`relevo mirror proc`: what `cat /proc/drbd` of drbd 8.4 prints, so that monitoring written for that goes on working.

One block for each mirror of this node in the order of minors; an empty line where numbers are left out. The fields are
explained in the manual of drbd 8.4, "/proc/drbd".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import typer

from relevo import __version__
from relevo.base.control import DaemonUnreachable, Message, call
from relevo.base.errors import RelevoError
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.outcome import ask
from relevo.config.errors import ConfigErrors
from relevo.config.model import MirrorSite
from relevo.config.site import sites_here

VERSION = "version: 8.4.11 (api:1/proto:86-101)"
"""What a program asks for that wants to know which format follows; the next line says who wrote it."""
UNCONFIGURED = "Unconfigured"
SYNCING = frozenset({"SyncSource", "SyncTarget"})
VERIFYING = frozenset({"VerifyS", "VerifyT"})
WANTS = frozenset({"SyncTarget", "VerifyS"})
"""The side that sets the pace says which it aims at."""
COUNTERS = dict.fromkeys(("ns", "nr", "dw", "dr", "al", "bm", "lo", "pe", "ua", "ap"), 0) | {"ep": 1, "wo": "f"}
"""As the process counts them: the first four in KiB. What stands where it does not (yet)."""
BLOCK_BYTES = 4096
BAR = 20
LARGE_BYTES = 4 << 30
"""From here on a resync is counted in MB."""
_COARSE_BLOCKS = 1024
"""The share is counted in steps of so many blocks, as the kernel does."""


def register(app: typer.Typer) -> None:
    """Add the verb to `relevo mirror`."""
    app.command("proc")(proc)


def proc(ctx: typer.Context) -> None:
    """Print what `cat /proc/drbd` prints, for every mirror of this node."""
    context = of(ctx)
    try:
        sites = sites_here(context.paths, context.node)
    except ConfigErrors as error:  # what runs goes on, and whoever watches it wants to see that
        typer.echo(f"relevo: {error}", err=True)
        typer.echo(proc_text(_running(context)), nl=False)
        return
    found = [(site, _status(context, site)) for site in sites]
    typer.echo(proc_text((site.minor or 0, site.mirror.options.protocol, status) for site, status in found), nl=False)


def _running(context: Context) -> list[tuple[int, str, Message]]:
    """Minor, protocol and status of each mirror whose process answers, whatever the configuration says."""
    found = []
    for socket in context.paths.run.glob("mirror-*.sock"):
        with contextlib.suppress(RelevoError):
            status = call(socket, "status")
            found.append((int(status.get("minor", 0)), str(status.get("protocol", "C")), status))
    return sorted(found, key=lambda one: one[0])


def _status(context: Context, site: MirrorSite) -> Message | None:
    try:
        return ask(context, site, "status")
    except DaemonUnreachable:
        return None


def proc_text(mirrors: Iterable[tuple[int, str, Message | None]]) -> str:
    """The whole text.

    Args:
        mirrors: minor, protocol and status of each (None: it is not up), in the order of minors.
    """
    lines = [VERSION, f"srcversion: RELEVO-{__version__} "]
    following = 0
    for minor, protocol, status in mirrors:
        if minor != following:
            lines.append("")
        following = minor + 1
        lines.extend(_mirror(minor, protocol, status))
    return "\n".join(lines) + "\n"


def _mirror(minor: int, protocol: str, status: Message | None) -> Iterator[str]:
    if status is None or (
        (status["connection"], status["disk"], status["role"]) == ("StandAlone", "Diskless", "Secondary")
    ):
        yield f"{minor:2}: cs:{UNCONFIGURED}"
        return
    letter = " " if status["connection"] == "StandAlone" else protocol
    yield (
        f"{minor:2}: cs:{status['connection']} ro:{status['role']}/{status['peer_role']} "
        f"ds:{status['disk']}/{status['peer_disk']} {letter} {_flags(status)}"
    )
    yield f"    {_counters(status)}"
    if status["connection"] in SYNCING | VERIFYING:
        yield from _progress(status)


def _flags(status: Message) -> str:
    """I/O runs or is suspended; the resync waits for another, for the peer, for a person; congestion; activity log."""
    return "".join(
        (
            "s" if status["suspended"] or status.get("io_suspended") else "r",
            "a" if status.get("resync_waits") else "-",
            "p" if status.get("peer_paused") else "-",
            "u" if status.get("paused") else "-",
            "-",
            "-",
        )
    )


def _counters(status: Message) -> str:
    counted = status.get("counters") or {}
    words = [f"{name}:{counted.get(name, otherwise)}" for name, otherwise in COUNTERS.items()]
    return " ".join([*words, f"oos:{int(status['out_of_sync_bytes']) >> 10}"])


def _progress(status: Message) -> Iterator[str]:
    run = status.get("verify" if status["connection"] in VERIFYING else "resync") or {}
    total, done = int(run.get("total_bytes", 0)), int(run.get("done_bytes", 0))
    left = max(0, total - done)
    share = _per_mille(left // BLOCK_BYTES, total // BLOCK_BYTES)
    filled = share * BAR // 1000
    bar = "=" * (filled - 1) + ">" + "." * (BAR - filled)
    what = "verified" if status["connection"] in VERIFYING else "sync'ed"
    shift, unit = (20, "M") if total > LARGE_BYTES else (10, "K")
    yield f"\t[{bar}] {what}:{share // 10:3}.{share % 10}% ({left >> shift}/{total >> shift}){unit}"
    yield f"\t{_pace(status, run)}"


def _per_mille(left: int, total: int) -> int:
    return max(0, 1000 - left // _COARSE_BLOCKS * 1000 // (total // _COARSE_BLOCKS + 1))


def _pace(status: Message, run: Message) -> str:
    rate = int(run.get("rate_bytes") or 0)
    average = int(run.get("average_bytes") or rate)
    eta_s = int(run.get("eta_ms") or 0) // 1000
    text = f"finish: {eta_s // 3600}:{eta_s % 3600 // 60:02}:{eta_s % 60:02} speed: {rate >> 10:,} ({average >> 10:,})"
    if status["connection"] in WANTS and run.get("wanted_bytes"):
        text += f" want: {int(run['wanted_bytes']) >> 10:,}"
    return f"{text} K/sec{' (stalled)' if run.get('stalled') else ''}"
