"""What a changed configuration comes to: at once, by a new connection, or by a new process."""

from __future__ import annotations

import pathlib
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest

from relevo.config.model import Endpoint, Mirror, MirrorSite
from relevo.config.verify_schedule import VerifySchedule
from relevo.mirror import events as ev
from relevo.mirror.adjusting import Adjuster, Change, compare
from relevo.mirror.differences import differences

HERE = Endpoint(address=IPv4Address("10.0.0.1"), port=7788)
THERE = Endpoint(address=IPv4Address("10.0.0.2"), port=7788)
SITE = MirrorSite(
    mirror=Mirror(name="r0", link="cross", secret="x"),
    cluster="pair",
    me="nodo1",
    peer="nodo2",
    own=HERE,
    other=THERE,
    disk=pathlib.Path("/disk"),
)


def changed(**fields: Any) -> MirrorSite:
    """The site with other values: of itself, of its mirror, or of the mirror's options."""
    mirror = SITE.mirror
    options = {key: value for key, value in fields.items() if hasattr(mirror.options, key)}
    own = {key: value for key, value in fields.items() if hasattr(mirror, key) and key not in options}
    rest = {key: value for key, value in fields.items() if key not in options and key not in own}
    mirror = msgspec.structs.replace(mirror, **own, options=msgspec.structs.replace(mirror.options, **options))
    return msgspec.structs.replace(SITE, mirror=mirror, **rest)


@pytest.mark.parametrize(
    ("fields", "connect", "restart"),
    [
        ({}, False, ()),
        ({"timeout_ms": 9000, "resync_rate_bytes": 1 << 20, "ko_count": 3}, False, ()),
        ({"handlers": {"split-brain": "true"}, "c_max_rate_bytes": 1 << 20}, False, ()),
        ({"secret": "y"}, True, ()),
        ({"other": HERE}, True, ()),
        ({"verify_alg": "sha1"}, True, ()),
        ({"al_extents": 3000}, False, ("al_extents",)),
        ({"protocol": "A", "disk": pathlib.Path("/other"), "hmac": "sha1"}, True, ("disk", "protocol")),
    ],
)
def test_what_a_change_needs(fields: dict[str, Any], connect: bool, restart: tuple[str, ...]) -> None:
    new = changed(**fields)
    change = compare(SITE, new)
    assert (change.connect, change.restart) == (connect, restart)
    if not restart:
        assert change.site == new
    assert compare(change.site, new) == Change(change.site, connect=False, restart=restart), (
        "told again, not done again"
    )


class Rig:
    """What an adjuster is connected to."""

    def __init__(self, new: MirrorSite, *, connected: bool) -> None:
        self.log: list[Any] = []
        self.adjuster = Adjuster(SITE, lambda: new, self.log.append, self.log.append, lambda: 1, lambda: connected)

    def answer(self, fields: Any) -> None:
        self.log.append(fields)

    def refuse(self, error: Exception) -> None:
        self.log.append(error)


def test_the_peer_is_left_first_and_looked_for_again() -> None:
    new = changed(secret="y", al_extents=3000)
    rig = Rig(new, connected=True)
    rig.adjuster.begin(rig)  # type: ignore[arg-type]
    (disconnect,) = rig.log
    assert isinstance(disconnect, ev.Disconnect)
    disconnect.token(None)
    taken, connect = rig.log[1:]
    assert (taken.mirror.secret, taken.mirror.al_extents) == ("y", SITE.mirror.al_extents)
    assert isinstance(connect, ev.Connect)
    connect.token(None)
    answer = rig.log[-1]
    assert answer["connected_anew"]
    assert answer["changed"] == ["secret: (the old one) -> (another one)", "al_extents: 1237 -> 3000"]
    assert "al_extents" in answer["restart"][0]


def test_each_changed_setting_is_named_with_its_old_and_its_new_value() -> None:
    new = changed(
        timeout_ms=9000,
        verify_alg="crc32c",
        size_bytes=1 << 30,
        tcp_cork=False,
        verify=VerifySchedule(every_ms=86_400_000, minute=180),
        handlers={"split-brain": "mail root"},
        disk=pathlib.Path("/other"),
    )
    assert set(differences(SITE, new)) == {
        "disks: /disk -> /other",
        "timeout: 6.0 s -> 9.0 s",
        "verify_every: (none) -> 1440 min 0 s",
        "verify_at: (none) -> 03:00",
        "verify_alg: (none) -> crc32c",
        "size: 0 B -> 1.0 GiB",
        "tcp_cork: true -> false",
        "handlers.split-brain: (none) -> mail root",
    }
    assert differences(new, new) == ()


@pytest.mark.parametrize(("fields", "connected"), [({"timeout_ms": 1}, True), ({"secret": "y"}, False)])
def test_what_the_peer_need_not_know_is_taken_at_once(fields: dict[str, Any], connected: bool) -> None:
    rig = Rig(changed(**fields), connected=connected)
    rig.adjuster.begin(rig)  # type: ignore[arg-type]
    assert rig.log[0] == changed(**fields)
    assert rig.log[1]["restart"] == []
