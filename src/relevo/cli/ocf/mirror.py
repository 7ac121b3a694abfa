"""`ocf:relevo:mirror`: a mirror as a promotable resource. Started is Secondary, promoted is Primary."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

from relevo.agents.daemon import is_away
from relevo.base.control import DaemonUnreachable, Message, Refused, call, watch
from relevo.base.errors import RelevoError
from relevo.cli.context import Context
from relevo.cli.drbdadm.change import STANDALONE, promote
from relevo.cli.drbdadm.life import bring_up
from relevo.cli.drbdadm.process import end_started
from relevo.cli.drbdadm.show import CONNECTED_STATES
from relevo.cli.node_runs import node_runs
from relevo.cli.ocf import pacemaker
from relevo.cli.ocf.codes import ActionFailed, Code, Given
from relevo.cli.ocf.pacemaker import Peer
from relevo.config.model import MirrorSite
from relevo.config.site import find_site
from relevo.device.held import is_held

PARAMETER = "mirror"
BOTH, ALONE, THROUGH_PEER = 10_000, 1000, 10
"""Scores: both copies are current; this one is, the other is not seen; this server has access, but no copy."""
CONNECT_WAIT_S = 5.0
"""How long `start` waits to meet the peer, so that the first score is the right one."""
PROMOTE_PATIENCE_S = 30.0
"""How long a promotion is tried: the mirror may notice later than the cluster that its peer has died."""
PAUSE_S = 0.5
UP_TO_DATE, OUTDATED, PRIMARY = "UpToDate", "Outdated", "Primary"
ALONE_ATTRIBUTE, OUTDATED_ATTRIBUTE = "relevo-alone", "relevo-outdated"
"""Node attributes, with the name of the mirror behind a hyphen: a generation of the data, without its lowest bit."""


class MirrorActions:
    """The actions on one mirror.

    Args:
        context: where things lie.
        given: what Pacemaker says.
    """

    def __init__(self, context: Context, given: Given) -> None:
        self._context = context
        self._given = given
        self._socket: pathlib.Path = context.paths.socket(f"mirror-{given.name}")

    def actions(self) -> dict[str, Callable[[], Code]]:
        """Name -> what does it."""
        return {
            "start": self.start,
            "stop": self.stop,
            "promote": self.promote,
            "demote": self.demote,
            "monitor": self.monitor,
            "notify": self.notify,
            "validate-all": self.validate,
        }

    # ---- looking

    def _status(self) -> Message | None:
        """What the mirror's process says; None when it does not run.

        Raises:
            ActionFailed: it runs and does not answer.
        """
        try:
            return call(self._socket, "status", timeout_s=self._given.limit_s)
        except DaemonUnreachable as error:
            if is_away(error):
                return None
            raise ActionFailed(Code.GENERIC, error.what, error.remedy) from error

    def _paused(self) -> bool:
        """A process that is being replaced under its device, which waits for it."""
        return is_held(self._context.paths.device_folder(self._given.name))

    def monitor(self) -> Code:
        """Its role; says the score, and lets a Primary go on whose peer the cluster has fenced."""
        status = self._status()
        if status is None:
            return Code.RUNNING_PROMOTED if self._paused() else Code.NOT_RUNNING
        if not self._given.probe:
            status = self._without_peer(status)
            self._tell(status)
        if status["role"] != PRIMARY:
            return Code.SUCCESS
        if not status.get("device"):
            raise ActionFailed(Code.FAILED_PROMOTED, status.get("problem") or "It is Primary but has no device.")
        return Code.RUNNING_PROMOTED

    def notify(self) -> Code:
        """After each change anywhere: look whether the score is still right."""
        when, _ = self._given.notice
        status = self._status()
        if when == "post" and status is not None:
            self._tell(self._without_peer(status))
        return Code.SUCCESS

    def _tell(self, status: Message) -> None:
        pacemaker.set_score(self._given, score(status))

    def validate(self) -> Code:
        """Whether this server can have it."""
        self._site()
        return Code.SUCCESS

    def _site(self) -> MirrorSite:
        try:
            site = find_site(self._context.paths, self._context.node, self._given.name)
        except RelevoError as error:
            raise ActionFailed(Code.INSTALLED, str(error)) from error
        if node_runs(self._context):
            what = "The node daemon of Relevo runs here, and decides: two managers cannot."
            raise ActionFailed(Code.INSTALLED, what, "Stop relevo-node and relevo-heartbeat on every server.")
        return site

    # ---- changing

    def start(self) -> Code:
        """Its process runs, uses the disk, and has looked for its peer."""
        site = self._site()
        bring_up(self._context, site)
        self._tell(self._settled())
        return Code.SUCCESS

    def _settled(self) -> Message:
        """The state when the peer was met, or is not there."""
        status: Message = {}
        with contextlib.suppress(DaemonUnreachable):
            limit_s = min(CONNECT_WAIT_S, self._given.limit_s / 2)
            for status in watch(self._socket, timeout_s=limit_s):
                if status["connection"] in CONNECTED_STATES or status["connection"] == STANDALONE:
                    break
        return status or call(self._socket, "status", timeout_s=self._given.limit_s)

    def stop(self) -> Code:
        """Secondary, the peer left in order, the process ended. What does not run is stopped."""
        pacemaker.set_score(self._given, None)
        self._say_alone(None)
        status = self._status()
        if status is None and self._paused():
            status = self._await_new_process()
        if status is None:
            return Code.SUCCESS
        if status["role"] == PRIMARY:
            self._ask("secondary")
        self._ask("down")
        self._await_end()
        return Code.SUCCESS

    def promote(self) -> Code:
        """Primary. Never by force: a copy that may be stale is left to a person."""
        site = self._site()
        end_s = time.monotonic() + min(PROMOTE_PATIENCE_S, self._given.limit_s)
        while True:
            try:
                self._must_be_safe(site)
                promote(self._context, site, force=False)
                break
            except (Refused, DaemonUnreachable) as error:
                if time.monotonic() + PAUSE_S >= end_s:
                    raise ActionFailed(Code.GENERIC, error.what, error.remedy) from error
            time.sleep(PAUSE_S)
        status = self._status()
        if status is not None:
            self._tell(status)
        return Code.SUCCESS

    def _must_be_safe(self, site: MirrorSite) -> None:
        """With `alone = "ask"` a mirror that does not see its peer is promoted only if that is accounted for.

        Raises:
            Refused: nobody knows whether the peer is at work.
        """
        status = call(self._socket, "status", timeout_s=self._given.limit_s)
        if site.mirror.alone != "ask" or status["role"] == PRIMARY or status["connection"] in CONNECTED_STATES:
            return
        if not pacemaker.look_at(site.peer, self._given).accounted_for:
            what = f"{site.peer} is not seen, and the cluster cannot say that it is off: it may be at work."
            raise Refused("PeerNotFenced", what, 'Enable fencing (stonith-enabled), or accept it: alone = "risk".')

    def demote(self) -> Code:
        """Secondary, when everything is on both disks."""
        status = self._status()
        if status is None and self._paused():
            status = self._await_new_process()
        if status is None:
            return Code.NOT_RUNNING
        if status["role"] == PRIMARY:
            self._ask("secondary")
        self._say_alone(None)
        return Code.SUCCESS

    def _ask(self, do: str, **arguments: Any) -> Message:
        try:
            return call(self._socket, do, timeout_s=self._given.limit_s, **arguments)
        except (Refused, DaemonUnreachable) as error:
            raise ActionFailed(Code.GENERIC, error.what, error.remedy) from error

    def _without_peer(self, status: Message) -> Message:
        """Settle with the peer's agent, by node attributes, who goes on when the link between the mirrors is cut.

        A Primary that has lost its peer says so, with the generation that the peer has. A Secondary of that one that
        sees it marks its copy as Outdated and says of which generation: it is not promoted any more without what is
        written from then on. That, or that the peer is off, is the permission for which a Primary with `alone = "ask"`
        waits.
        """
        if status["connection"] in CONNECTED_STATES:
            if status["role"] == PRIMARY:
                self._say_alone(None)
            return status
        if status["disk"] not in {UP_TO_DATE, OUTDATED}:
            return status
        with contextlib.suppress(RelevoError):  # tried again at the next look
            site = find_site(self._context.paths, self._context.node, self._given.name)
            peer = pacemaker.look_at(site.peer, self._given)
            if status["role"] == PRIMARY:
                self._go_on_alone(status, peer)
            else:
                self._give_way(status, peer)
            return self._status() or status
        return status

    def _go_on_alone(self, status: Message, peer: Peer) -> None:
        waits, base = bool(status.get("suspended")), _generation(status["bitmap_uuid"])
        self._say_alone(_generation(status["current_uuid"]) if waits else base)
        outdated = peer.attributes.get(f"{OUTDATED_ATTRIBUTE}-{self._given.name}", "")
        given_way = peer.online and outdated == _generation(status["current_uuid"])
        if waits and peer.quorum and (peer.off or given_way):
            call(self._socket, "allow_alone", timeout_s=self._given.limit_s, epoch=int(status.get("epoch", 0)))

    def _say_alone(self, generation: str | None) -> None:
        pacemaker.set_attribute(f"{ALONE_ATTRIBUTE}-{self._given.name}", generation)

    def _give_way(self, status: Message, peer: Peer) -> None:
        own = _generation(status["current_uuid"])
        alone = peer.attributes.get(f"{ALONE_ATTRIBUTE}-{self._given.name}", "")
        if not (peer.quorum and peer.online and peer.promoted and own == alone):
            return
        if status["disk"] == UP_TO_DATE:
            call(self._socket, "outdate", timeout_s=self._given.limit_s)
        # ORDER: Outdated on the disk before anybody relies on it
        pacemaker.set_attribute(f"{OUTDATED_ATTRIBUTE}-{self._given.name}", own)

    def _await_new_process(self) -> Message | None:
        end_s = time.monotonic() + self._given.limit_s / 2
        while self._paused() and time.monotonic() < end_s:
            status = self._status()
            if status is not None:
                return status
            time.sleep(PAUSE_S)
        return self._status()

    def _await_end(self) -> None:
        """Until nobody listens any more."""
        end_started(self._context, self._given.name)
        end_s = time.monotonic() + self._given.limit_s / 2
        while self._status_or_dying() is not None:
            if time.monotonic() >= end_s:
                raise ActionFailed(Code.GENERIC, f"The process of mirror {self._given.name} does not end.")
            time.sleep(PAUSE_S / 5)

    def _status_or_dying(self) -> Message | None:
        try:
            return call(self._socket, "status", timeout_s=1.0)
        except DaemonUnreachable as error:
            return None if is_away(error) else {}


def _generation(uuid: str) -> str:
    """A generation; its lowest bit only says that somebody was Primary."""
    return f"{int(uuid, 16) & ~1:016x}"


def score(status: Message) -> int | None:
    """How good it is to promote this copy; None: never by itself.

    Args:
        status: what the mirror's process says.
    """
    primary, disk = status["role"] == PRIMARY, status["disk"]
    connected = status["connection"] in CONNECTED_STATES
    if status.get("split_brain") and not primary:
        return None  # which side's changes stay is for a person to say
    if disk == UP_TO_DATE:
        return BOTH if primary or connected else ALONE
    if primary and connected and status["peer_disk"] == UP_TO_DATE:
        return THROUGH_PEER
    return None
