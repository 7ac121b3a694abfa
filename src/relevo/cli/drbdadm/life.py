"""up, down, adjust and the waiting verbs: the life of a mirror that no init system runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer

from relevo.base.control import DaemonUnreachable, Message, watch
from relevo.base.errors import RelevoError
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.change import STANDALONE
from relevo.cli.drbdadm.outcome import Exit, MaybeNames, Names, ask, is_shim, note, over
from relevo.cli.drbdadm.process import end_started, start_detached
from relevo.cli.drbdadm.show import CONNECTED_STATES
from relevo.cli.node_runs import node_runs
from relevo.config.model import MirrorSite
from relevo.mirror.create import read_superblock

UP_TIMEOUT_S = 30.0
"""How long a process that was started may take to have read its disk."""
Seconds = Annotated[int | None, typer.Option(min=0, help="In seconds; 0 waits for ever.")]


class NotUp(RelevoError):
    """A mirror was started but cannot be used."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `relevo mirror`."""
    for verb, function in (
        ("up", up),
        ("down", down),
        ("adjust", adjust),
        ("wait-connect", wait_connect),
        ("wait-sync", wait_sync),
    ):
        app.command(verb)(function)


def up(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Start the mirror's process if nobody runs it, use the disk and look for the peer."""
    context = of(ctx)
    over(ctx, names, lambda site: bring_up(context, site))


def bring_up(context: Context, site: MirrorSite) -> None:
    """The mirror's process runs, uses its disk and looks for its peer.

    Raises:
        RelevoError: it does not, and why.
    """
    try:
        status = ask(context, site, "status")
    except DaemonUnreachable:
        if node_runs(context):  # then an init system starts what belongs to the cluster
            raise
        read_superblock(site.disk, site.meta)  # a disk without meta-data is told here, and nothing is started
        start_detached(context, site)
        _until_attached(context, site)
        return
    if status["disk"] == "Diskless":
        ask(context, site, "attach")
    if status["connection"] == STANDALONE:
        ask(context, site, "connect")


def _until_attached(context: Context, site: MirrorSite) -> None:
    """Wait until the disk of a process that was just started is in use."""
    for status in watch(context.paths.socket(f"mirror-{site.mirror.name}"), timeout_s=UP_TIMEOUT_S):
        if status["disk"] != "Diskless":
            return
        if status["problem"]:
            problem = str(status["problem"])
            ask(context, site, "down")
            raise NotUp(problem)
    raise NotUp("The mirror's process has ended.", "Its last words are in its log.")


def down(ctx: typer.Context, names: Names) -> None:
    """Become Secondary, take leave of the peer, let go of the disk and end the process.

    Where the node daemon decides, only the peer is left: the mirror stays alone until `up`.
    """
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        if not take_down(context, site):
            name = site.mirror.name
            note(ctx, site, f"Only the peer was left, for a node daemon decides here. Again: relevo mirror up {name}")

    over(ctx, names, action)


def take_down(context: Context, site: MirrorSite) -> bool:
    """The mirror's process is gone, in order; False: the node daemon decides, and only its peer was left.

    Raises:
        RelevoError: its device is in use, or it does not end.
    """
    try:
        status = ask(context, site, "status")
    except DaemonUnreachable:
        return True  # it is down
    if node_runs(context):
        ask(context, site, "disconnect")
        return False
    if status["role"] == "Primary":
        ask(context, site, "secondary")
    ask(context, site, "down")
    end_started(context, site.mirror.name)
    return True


def adjust(ctx: typer.Context, names: MaybeNames = None) -> None:
    """Take over what has changed in the configuration and say what, connecting anew where the peer has to know it."""
    context = of(ctx)

    def action(site: MirrorSite) -> None:
        try:
            answer = ask(context, site, "adjust")
        except DaemonUnreachable:
            bring_up(context, site)
            return
        if not is_shim(ctx):
            for setting in answer.get("changed") or ["nothing has changed"]:
                typer.echo(f"{site.mirror.name}: {setting}")
        for sentence in answer.get("restart", ()):
            typer.echo(f"relevo: {site.mirror.name}: {sentence}", err=True)
        if answer.get("connected_anew"):
            sentence = (
                "Taken over, by a new connection: it comes when the other server has the same (adjust there too)."
            )
            typer.echo(f"relevo: {site.mirror.name}: {sentence}", err=True)
        bring_up(context, site)

    over(ctx, names, action)


def wait_connect(
    ctx: typer.Context,
    names: MaybeNames = None,
    *,
    wfc_timeout: Seconds = None,
    degr_wfc_timeout: Seconds = None,
    outdated_wfc_timeout: Seconds = None,
    wait_after_sb: Annotated[bool, typer.Option("--wait-after-sb", help="Although both stay alone.")] = False,
) -> None:
    """Wait until the peer is connected (exit code 5: not in time)."""
    context = of(ctx)

    def action(site: MirrorSite) -> Exit:
        options = site.mirror.options
        limits = _Limits(
            options.wfc_timeout_ms / 1000 if wfc_timeout is None else wfc_timeout,
            options.degr_wfc_timeout_ms / 1000 if degr_wfc_timeout is None else degr_wfc_timeout,
            options.outdated_wfc_timeout_ms / 1000 if outdated_wfc_timeout is None else outdated_wfc_timeout,
        )
        limit_s = limits.of(ask(context, site, "status"))

        def over_with(status: Message) -> bool:
            alone = status["connection"] == STANDALONE and not wait_after_sb
            return alone or status["connection"] in CONNECTED_STATES

        return _wait(context, site, over_with, limit_s)

    over(ctx, names, action)


class _Limits:
    """wfc-timeout and its shorter sisters; 0 is for ever.

    What drbdsetup makes of limits that are out of order: a degraded cluster waits no longer than a healthy one, and for
    a peer that is outdated no longer than that.
    """

    def __init__(self, wfc_s: float, degr_s: float, outdated_s: float) -> None:
        self._wfc_s = wfc_s
        self._degr_s = _at_most(degr_s, wfc_s)
        self._outdated_s = _at_most(outdated_s, self._degr_s)

    def of(self, status: Message) -> float:
        """The one that holds for a mirror in this state."""
        if status["peer_disk"] == "Outdated":
            return self._outdated_s
        return self._degr_s if status.get("degraded_at_start") else self._wfc_s


def _at_most(limit_s: float, longer_s: float) -> float:
    return longer_s if longer_s and (not limit_s or limit_s > longer_s) else limit_s


def wait_sync(
    ctx: typer.Context,
    names: MaybeNames = None,
    *,
    timeout: Annotated[int, typer.Option("--timeout", "-t", min=0, help="In seconds; 0 waits for ever.")] = 0,
) -> None:
    """Wait until the peer is connected and no resync is under way (exit code 5: not in time)."""
    context = of(ctx)

    def settled(status: Message) -> bool:
        return status["connection"] in {"Connected", STANDALONE}

    over(ctx, names, lambda site: _wait(context, site, settled, timeout))


def _wait(context: Context, site: MirrorSite, over_with: Callable[[Message], bool], limit_s: float) -> Exit:
    end = time.monotonic() + limit_s if limit_s else None
    try:
        for status in watch(context.paths.socket(f"mirror-{site.mirror.name}"), timeout_s=limit_s or None):
            if over_with(status):
                return Exit.OK
    except DaemonUnreachable:
        if end is not None and time.monotonic() >= end:
            return Exit.WORSE
        raise
    raise NotUp("The mirror's process has ended while it was waited for.")
