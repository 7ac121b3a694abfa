"""What the mirror process has its keeper do: run handlers, and keep a copy before it is overwritten."""

from __future__ import annotations

import errno
import os
import pathlib
import sys
from collections.abc import Callable

import msgspec
import structlog

from relevo.base.control import Message
from relevo.base.sysrq import MASK_VARIABLE, STAND_IN_VARIABLE, adapted
from relevo.config.model import MirrorSite
from relevo.device.keeper_client import KeeperClient, MessageTooLong
from relevo.device.keeper_proto import KeeperReply
from relevo.mirror import events as ev
from relevo.mirror import saved
from relevo.mirror.saver import Order

HANDLER_LIMIT_MS = 600_000
"""How long a handler may take before it is ended (drbdadm waits as long)."""
SAVE_LIMIT_MS = 3_600_000
"""How long keeping a copy may take."""
SAVED_LIMIT_BYTES = 16 << 30
"""Upper bound of all saved copies of one mirror together."""
NOT_RUN = -1
RESYNC = "resync"
"""The reason of copies that are kept only until the resync has ended well."""
_CONNECTION_HANDLERS = frozenset({"fence-peer", "unfence-peer"})
"""These concern the connection: they are told no single volume."""
_PASSED_ON = ("LANG", "PYTHONPATH", "PYTHONUNBUFFERED", MASK_VARIABLE, STAND_IN_VARIABLE)
_SYSTEM_PATH = "/sbin:/usr/sbin:/bin:/usr/bin"
_log = structlog.get_logger()


def handler_environment(site: MirrorSite, conf: pathlib.Path, name: str, fields: dict[str, str]) -> dict[str, str]:
    """The environment of a handler: what drbd 8.4 and drbdadm give it, with this program's commands in PATH.

    Args:
        site: the mirror as this node has it.
        conf: the file that configures it.
        name: the handler's name.
        fields: further variables.
    """
    minor = str(site.minor or 0)
    found = {
        "HOME": "/",
        "TERM": "linux",
        "PATH": f"{pathlib.Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "DRBD_RESOURCE": site.mirror.name,
        "DRBD_CONF": str(conf),
        "DRBD_MINOR": minor,
        "DRBD_PEER": site.peer,
        "DRBD_PEERS": site.peer,
        "DRBD_PEER_AF": f"ipv{site.other.address.version}",
        "DRBD_PEER_ADDRESS": str(site.other.address),
    }
    if name not in _CONNECTION_HANDLERS:
        found |= {"DRBD_VOLUME": "0", "DRBD_LL_DISK": str(site.disk), "DRBD_MINOR_0": minor}
    return found | _inherited() | fields


def _inherited() -> dict[str, str]:
    return {key: os.environ[key] for key in _PASSED_ON if key in os.environ}


class ShellErrands:
    """Sends orders to the keeper and gives the core their outcome.

    Args:
        site: the mirror as this node has it.
        conf: the file that configures it.
        state: folder of what must survive a power cut.
        keeper: who carries the orders out.
        handled: called with the token and exit status of a handler that somebody waits for.
        done: called with the token of `SaveTarget` and 0 or an errno.
    """

    def __init__(
        self,
        site: MirrorSite,
        conf: pathlib.Path,
        state: pathlib.Path,
        keeper: KeeperClient,
        handled: Callable[[ev.Token, int], None],
        done: Callable[[ev.Token, int], None],
    ) -> None:
        self.data_bytes = 0
        """Size of the data area; set when the disk is attached."""
        self.last_handler: Message | None = None
        """The handler that has ended last: its name, its exit status, and how many have ended by now."""
        self._handlers_ended = 0
        self.saved: dict[str, object] | None = None
        """What the status shows of the last copy that was to be kept before it was overwritten."""
        self._site = site
        self._conf = conf
        self._state = state
        self._keeper = keeper
        self._handled = handled
        self._done = done
        self._orders: dict[int, Callable[[KeeperReply], None]] = {}

    def configure(self, site: MirrorSite) -> None:
        """Other handlers, from the next on."""
        self._site = site

    def reply(self, reply: KeeperReply) -> None:
        """The keeper has ended something that was asked for here."""
        self._orders.pop(reply.no)(reply)

    # ---- handlers ----------------------------------------------------------------------------------------------

    def run_handler(self, effect: ev.RunHandler) -> None:
        """Have a handler run; without a configured command it is done at once, with status 0 as drbdadm gives it."""
        command = self._site.mirror.options.handlers.get(effect.name, "")
        if not command:
            self._handler_ended(effect, 0)
            return
        environment = handler_environment(self._site, self._conf, effect.name, effect.fields)
        argv = ["/bin/sh", "-c", adapted(command)]
        try:
            no = self._keeper.run(f"handler {effect.name}", argv, environment, HANDLER_LIMIT_MS, handler=True)
        except MessageTooLong as error:
            _log.error("handler_not_run", handler=effect.name, problem=str(error))
            self._handler_ended(effect, NOT_RUN)
            return
        self._orders[no] = lambda reply: self._handler_ran(effect, reply.status)

    def _handler_ran(self, effect: ev.RunHandler, status: int) -> None:
        self._handlers_ended += 1
        self.last_handler = {"name": effect.name, "status": status, "number": self._handlers_ended}
        self._handler_ended(effect, status)

    def _handler_ended(self, effect: ev.RunHandler, status: int) -> None:
        if effect.token is not None:
            self._handled(effect.token, status)

    # ---- saved copies ------------------------------------------------------------------------------------------

    def save_target(self, effect: ev.SaveTarget) -> None:
        """Have what this copy holds kept."""
        current, bitmap, history0, history1 = (f"{uuid:016x}" for uuid in effect.generations)
        order = Order(
            disk=str(self._site.disk),
            data_bytes=self.data_bytes,
            store=str(saved.store(self._state, self._site.mirror.name)),
            mirror=self._site.mirror.name,
            node=self._site.me,
            reason=effect.reason,
            generations=(current, bitmap, history0, history1),
            limit_bytes=SAVED_LIMIT_BYTES,
        )
        argv = [sys.executable, "-P", "-m", "relevo.mirror.saver", msgspec.json.encode(order).decode()]
        environment = {"HOME": "/", "PATH": os.environ.get("PATH", _SYSTEM_PATH)} | _inherited()
        ranges = os.memfd_create("ranges", os.MFD_CLOEXEC)
        try:
            with open(ranges, "wb", closefd=False) as content:
                content.write(saved.pack_ranges(effect.ranges))
            os.lseek(ranges, 0, os.SEEK_SET)
            no = self._keeper.run("saving the copy", argv, environment, SAVE_LIMIT_MS, input_fd=ranges)
        except MessageTooLong as error:
            _log.error("copy_not_saved", problem=str(error))
            self._done(effect.token, errno.EMSGSIZE)
            return
        finally:
            os.close(ranges)
        self._orders[no] = lambda reply: self._save_ended(effect, reply)

    def _save_ended(self, effect: ev.SaveTarget, reply: KeeperReply) -> None:
        number = reply.status if reply.ok and reply.status >= 0 else errno.EIO
        said = reply.output or reply.what
        self.saved = {"reason": effect.reason, "kept": not number, "what": said.strip()}
        if not number:
            _log.info("copy_saved", reason=effect.reason, where=said)
        elif effect.required:
            _log.error("copy_not_saved", reason=effect.reason, problem=said)
        else:
            _log.warning("copy_not_saved", reason=effect.reason, problem=said, consequence="there is no way back")
        self._done(effect.token, number if effect.required else 0)

    def forget_target(self) -> None:
        """The copy is complete again: have what was kept for the sake of a resync removed."""
        self.saved = None
        store = str(saved.store(self._state, self._site.mirror.name))
        argv = [sys.executable, "-P", "-m", "relevo.mirror.saver", "forget", store, RESYNC]
        environment = {"HOME": "/", "PATH": os.environ.get("PATH", _SYSTEM_PATH)} | _inherited()
        no = self._keeper.run("removing the saved copy", argv, environment, SAVE_LIMIT_MS)
        self._orders[no] = _forgotten


def _forgotten(reply: KeeperReply) -> None:
    said = reply.output or reply.what
    if reply.ok and not reply.status:
        _log.info("saved_copy_removed", what=said)
    else:
        _log.warning("saved_copy_not_removed", problem=said)
