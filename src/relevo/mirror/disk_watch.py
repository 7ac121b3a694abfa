"""disk-timeout: a backing disk that leaves something unanswered for so long has failed.

Nothing of this is in the way of an operation. Operations are numbered in the order in which they are asked for; every
quarter of the time it is noted how far the numbers have come, and whether the oldest one under way is older than that.
"""

from __future__ import annotations

from collections import deque

LOOKS = 4
"""So many times within the timeout it is looked."""


class DiskWatch:
    """How long the oldest operation has been under way. Pure: numbers and times come in.

    Args:
        timeout_ms: how long one may take; more than 0.
    """

    def __init__(self, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self.interval_ms = max(1, timeout_ms // LOOKS)
        self._looks: deque[tuple[int, int]] = deque()

    def late(self, now_ms: int, oldest: int | None, following: int) -> bool:
        """Whether the disk has failed.

        Args:
            now_ms: the present time.
            oldest: number of the oldest operation under way; None: there is none.
            following: the number that the next operation will get.
        """
        looks = self._looks
        if oldest is None:
            looks.clear()
            return False
        while looks and looks[0][1] <= oldest:  # it had not been asked for yet
            looks.popleft()
        looks.append((now_ms, following))
        return now_ms - looks[0][0] >= self.timeout_ms
