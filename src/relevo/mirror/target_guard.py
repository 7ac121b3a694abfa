"""What comes before a copy is overwritten: changes that only it has are kept, and the administrator may refuse.

Both end with a decision while the copy still is what it was: nothing is marked Inconsistent before. Pure.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror.bitmap import BLOCK_BYTES, Bitmap
from relevo.mirror.requests import Then
from relevo.mirror.state import SECTOR_BYTES, Shared
from relevo.mirror.states import Disk

MAX_RANGES = 1 << 16
"""Changed blocks are told in so many ranges at most; when there are more, neighbours are taken together."""
_IGNORED_STATUS = 3
"""An answer of drbd's oldest tools to before-resync-source that means nothing."""
Refuse = Callable[[str], None]
Next = Callable[[], None]


def changed_ranges(bitmap: Bitmap, size_bytes: int, limit: int = MAX_RANGES) -> tuple[tuple[int, int], ...]:
    """(offset, length) in bytes of all marked blocks; clean blocks between them are included when there are too many.

    Args:
        bitmap: the marks.
        size_bytes: size of the device, which may end within the last block.
        limit: most ranges.
    """
    granule = 1
    while True:
        found = _runs(bitmap, granule, limit)
        if found is not None:
            end = size_bytes
            return tuple((a * BLOCK_BYTES, min(b * BLOCK_BYTES, end) - a * BLOCK_BYTES) for a, b in found)
        granule *= 8


def _runs(bitmap: Bitmap, granule: int, limit: int) -> list[tuple[int, int]] | None:
    """Runs of marked bits whose ends are multiples of `granule`; None: more than `limit`."""
    found: list[tuple[int, int]] = []
    first = bitmap.next_set(0)
    while first >= 0:
        stop = bitmap.next_clear(first)
        end = bitmap.bits if stop < 0 else min(-(-stop // granule) * granule, bitmap.bits)
        if found and found[-1][1] >= first // granule * granule:
            found[-1] = (found[-1][0], end)
        elif len(found) == limit:
            return None
        else:
            found.append((first, end))
        first = bitmap.next_set(end)
    return found


class TargetGuard:
    """Stands before both roles of a resync. `refuse` leaves the peer for good and says why."""

    def __init__(self, shared: Shared, refuse: Refuse) -> None:
        self._s = shared
        self._refuse = refuse
        self._ranges: tuple[tuple[int, int], ...] | None = None
        self.kept = False
        """The copy was kept before the resync that begins."""

    def begin(self, *, gives_up: bool) -> None:
        """This side is going to be the target; with `gives_up` it loses a split brain. Before anything is marked."""
        s = self._s
        self._ranges = None
        self.kept = False
        if gives_up and s.disk > Disk.INCONSISTENT and s.bitmap.count:
            self._ranges = changed_ranges(s.bitmap, s.size_sectors * SECTOR_BYTES)

    def before_target(self, then: Next) -> None:
        """Go on when the changes are kept and the administrator's command has nothing against it."""
        ranges, self._ranges = self._ranges, None
        if ranges is None:
            self._ask("before-resync-target", then)
            return
        s, u = self._s, self._s.uuids

        def saved(errno: int, _: e.Buffer) -> None:
            if errno:
                self._refuse(_not_kept(errno))
            else:
                self.kept = True
                self._ask("before-resync-target", then)

        s.log("warning", "gives_up_changes", bytes=sum(length for _, length in ranges))
        generations = (u.current, u.bitmap, u.history0, u.history1)
        token = Then(self._on_link(saved))
        s.out.append(e.SaveTarget(token, "split-brain", ranges, required=True, generations=generations))

    def before_source(self, then: Next) -> None:
        """Go on when the administrator's command has nothing against it."""
        self._ask("before-resync-source", then)

    def after(self, *, target: bool) -> None:
        """A resync has ended well."""
        s = self._s
        if target:
            s.out.append(e.RunHandler(None, "after-resync-target", {}))
            return
        s.out.append(e.RunHandler(None, "after-resync-source", {}))
        if s.settings.options.fencing != "dont-care":
            s.out.append(e.RunHandler(None, "unfence-peer", {}))

    def _ask(self, name: str, then: Next) -> None:
        s = self._s
        if name not in s.settings.options.handlers:
            then()
            return

        def ended(status: int, _: e.Buffer) -> None:
            if status == 0 or (name == "before-resync-source" and status == _IGNORED_STATUS):
                then()
            else:
                self._refuse(f"The handler {name} refused the resync (exit status {status}).")

        s.out.append(e.RunHandler(Then(self._on_link(ended)), name, {}))

    def _on_link(self, then: Callable[[int, e.Buffer], None]) -> Callable[[int, e.Buffer], None]:
        """Go on only if the link is still the same."""
        number = self._s.link_number

        def call(outcome: int, buffer: e.Buffer) -> None:
            if self._s.link and self._s.link_number == number:
                then(outcome, buffer)

        return call


def _not_kept(errno: int) -> str:
    why = {
        errnos.ENOSPC: "there is no room for them in the folder of saved copies (/var/lib/relevo/saved; "
        "relevo mirror saved list NAME shows what is kept already, and could go)",
        errnos.EBUSY: "another copy is being kept",
    }.get(errno, f"error {errno}, see the log")
    return f"This side's changes are not given up, because they could not be kept: {why}."
