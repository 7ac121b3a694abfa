"""An original Heartbeat with auto_failback legacy: it does not say what it holds, and asks for each line. Pure.

Each node always runs what belongs on it. One that starts asks the other for it (`ip-request`, once for each line of
haresources, named by its first word) and takes it when the other says that nothing of it is there (`ip-request-resp`).
"""

from __future__ import annotations

from relevo.heartbeat.handover_words import Group, Say, Their, Told
from relevo.heartbeat.wire import Message

ASK_AGAIN_MS = 5000
"""A line of ours for which no answer has come is asked for again so much later."""
REQUEST, ANSWER = "ip-request", "ip-request-resp"


class Legacy:
    """Our side towards one run of such an original."""

    def __init__(self) -> None:
        self._asked: dict[str, str] = {}  # key of theirs -> who asked for it
        self._released: set[str] = set()
        self._next_ms = 0
        self._others: list[tuple[str, str]] = []

    def heard(self, message: Message, me: str, told: Told | None) -> None:
        """A message of it, of any type."""
        key, sender = message.text("ipaddr") or "", message.text("src") or ""
        if message.text("t") == REQUEST and key and told is not None:
            if key in told.their_keys:
                self._asked[key] = sender
            elif key not in told.our_keys and (told.their_keys or Group.THEIRS not in told.active):
                self._others.append((key, sender))
        elif message.text("t") == ANSWER and message.text("dest") == me and message.text("ok") == "OK":
            self._released.add(key)

    @property
    def giving(self) -> frozenset[Group]:
        """What it waits for."""
        return frozenset({Group.THEIRS}) if self._asked else frozenset()

    def their(self, group: Group, told: Told) -> Their:
        """What it has of a group."""
        if group in told.active:
            return Their.FREE  # it asks before it takes
        if group is Group.THEIRS:
            return Their.HELD
        answered = bool(told.our_keys) and set(told.our_keys) <= self._released
        return Their.FREE if answered else Their.UNKNOWN

    def due(self, told: Told, now_ms: int) -> list[Say]:
        """What is to be said now."""
        said = [_answer(key, sender, "no") for key, sender in self._others]
        self._others = []
        if self._asked and Group.THEIRS in told.giving - told.active - told.moving:
            said += [_answer(key, sender, "yes") for key, sender in self._asked.items()]
            self._asked = {}
        missing = [key for key in told.our_keys if key not in self._released]
        wanted = told.ready and not told.leaving and Group.OURS in told.able - told.active
        if missing and wanted and now_ms >= self._next_ms:
            self._next_ms = now_ms + ASK_AGAIN_MS
            said += [Say(REQUEST, (("ipaddr", key),)) for key in missing]
        return said


def _answer(key: str, to: str, had: str) -> Say:
    return Say(ANSWER, (("dest", to), ("ipaddr", key), ("weown", had), ("ok", "OK")))
