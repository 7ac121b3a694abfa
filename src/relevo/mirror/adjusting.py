"""A changed configuration taken over by a running mirror.

At once where it can be, by a new connection where the peer has to know it; what needs a new process is named and stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from relevo.base.errors import RelevoError
from relevo.config.drbd_options import DrbdOptions
from relevo.config.model import Mirror, MirrorSite
from relevo.mirror import events as ev
from relevo.mirror.control import Client
from relevo.mirror.differences import differences

_SITE_RESTART = ("disk", "meta", "device")
_SITE_CONNECT = ("own", "other")
_MIRROR_RESTART = ("al_extents", "resume")
_MIRROR_CONNECT = ("secret", "hmac", "port", "connect_interval_ms")
_OPTIONS_RESTART = (
    *("protocol", "max_buffers", "max_epoch_size", "al_updates"),
    *("disk_barrier", "disk_flushes", "disk_drain", "md_flushes", "disk_timeout_ms"),
)
_OPTIONS_CONNECT = (
    *("after_sb_0pri", "after_sb_1pri", "after_sb_2pri", "rr_conflict", "discard_node", "always_asbp"),
    *("verify_alg", "csums_alg", "data_integrity_alg", "use_rle", "sndbuf_bytes", "rcvbuf_bytes", "tcp_cork"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What a new configuration comes to.

    Attributes:
        site: what can be taken over: the new one, with the old values of what needs a new process.
        connect: the peer has to know some of it.
        restart: names of what needs a new process.
    """

    site: MirrorSite
    connect: bool
    restart: tuple[str, ...]


def compare(old: MirrorSite, new: MirrorSite) -> Change:
    """What has changed, and what it needs."""
    a, b = old.mirror, new.mirror
    restart = [name for name in _SITE_RESTART if getattr(old, name) != getattr(new, name)]
    restart += [name for name in _MIRROR_RESTART if getattr(a, name) != getattr(b, name)]
    restart += [name for name in _OPTIONS_RESTART if getattr(a.options, name) != getattr(b.options, name)]
    connect = (
        any(getattr(old, name) != getattr(new, name) for name in _SITE_CONNECT)
        or any(getattr(a, name) != getattr(b, name) for name in _MIRROR_CONNECT)
        or any(getattr(a.options, name) != getattr(b.options, name) for name in _OPTIONS_CONNECT)
    )
    options: DrbdOptions = _with_old(a.options, b.options, _OPTIONS_RESTART)
    mirror: Mirror = msgspec.structs.replace(_with_old(a, b, _MIRROR_RESTART), options=options)
    site: MirrorSite = msgspec.structs.replace(_with_old(old, new, _SITE_RESTART), mirror=mirror)
    return Change(site, connect, tuple(restart))


def _with_old(old: Any, new: Any, names: tuple[str, ...]) -> Any:
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in names})


class Adjuster:
    """Carries a request `adjust` out.

    Args:
        site: what the mirror has now.
        read: reads the configuration anew.
        taken: called with the site as it is from now on, while nobody is connected or the peer need not know of it.
        step: gives the core an event.
        now_ms: the present time.
        connected: whether a connection is there or wanted.
    """

    def __init__(
        self,
        site: MirrorSite,
        read: Callable[[], MirrorSite],
        taken: Callable[[MirrorSite], None],
        step: Callable[[ev.Event], None],
        now_ms: Callable[[], int],
        connected: Callable[[], bool],
    ) -> None:
        self._site = site
        self._read = read
        self._taken = taken
        self._step = step
        self._now_ms = now_ms
        self._connected = connected

    def begin(self, client: Client) -> None:
        """Take over what has changed, then answer.

        Raises:
            RelevoError: the configuration is wrong; nothing has changed.
        """
        new = self._read()
        change = compare(self._site, new)
        changed = differences(self._site, new)
        self._site = change.site
        if not change.connect or not self._connected():
            self._taken(change.site)
            _answer(client, change, changed)
            return

        def left(error: RelevoError | None) -> None:
            self._taken(change.site)
            if error is not None:
                client.refuse(error)
                return
            self._step(ev.Connect(self._now_ms(), lambda _: _answer(client, change, changed)))

        self._step(ev.Disconnect(self._now_ms(), left))


def _answer(client: Client, change: Change, changed: tuple[str, ...]) -> None:
    sentences = [f"{name} has changed, which needs a new process: down, then up." for name in change.restart]
    client.answer({"changed": list(changed), "restart": sentences, "connected_anew": change.connect})
