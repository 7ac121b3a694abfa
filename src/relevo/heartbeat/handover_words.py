"""The words of the hand-over with an original Heartbeat: groups, states, what is told and said. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec


class Group(enum.StrEnum):
    """The resources of one preferred node."""

    OURS = "ours"
    THEIRS = "theirs"


BOTH = frozenset(Group)
NONE: frozenset[Group] = frozenset()

_WORDS: Mapping[str, frozenset[Group]] = {
    "none": NONE,
    "local": frozenset({Group.OURS}),
    "foreign": frozenset({Group.THEIRS}),
    "all": BOTH,
}
"""As we say them: local is what belongs on the speaker."""
SWAPPED = {Group.OURS: Group.THEIRS, Group.THEIRS: Group.OURS}


def word(groups: Iterable[Group]) -> str:
    """none, local, foreign or all, as we say it."""
    wanted = frozenset(groups)
    return next(name for name, meant in _WORDS.items() if meant == wanted)


def meant(said: str | None) -> frozenset[Group] | None:
    """The groups that the original means by a word; None for a word that it does not have."""
    found = _WORDS.get(said or "")
    return None if found is None else frozenset(SWAPPED[group] for group in found)


class Their(enum.StrEnum):
    """What the original has of a group."""

    UNKNOWN = "unknown"
    HELD = "held"
    MOVING = "moving"
    """It is taking it or giving it up; something of it may run there."""
    FREE = "free"


class Talk(enum.StrEnum):
    """Where a handshake is."""

    NOT = "not"
    ASKED = "asked"
    """We asked it to take a group and have no answer."""
    GIVING = "giving"
    """It agreed; we stop the group."""
    GIVEN = "given"
    """We have stopped it; the original starts it."""
    OFFERED = "offered"
    """It asked us to take a group, and we agreed; it stops the group."""
    TAKING = "taking"
    """It has stopped it; we start it."""


AT_REST = frozenset({Talk.NOT, Talk.ASKED, Talk.OFFERED})
"""We may still be asked, and answered: nothing of ours is on its way."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the node daemon says of the services here; all by group.

    Attributes:
        active: something of it may be here.
        started: all of it is here and runs.
        moving: something of it is being started or stopped.
        wants: it shall run here.
        gives: it shall run on the original, which does not have it.
        able: it could run here if the original asked for that now.
        giving: the groups of which the node daemon knows that they are being given: it starts nothing of them.
        our_keys, their_keys: the first words of the lines of haresources, for an original with auto_failback legacy.
        number: of this word; the view says which one was the last to be heeded.
        ready: the node daemon knows what runs here.
        leaving: this node stops everything and says goodbye.
    """

    active: frozenset[Group] = NONE
    started: frozenset[Group] = NONE
    moving: frozenset[Group] = NONE
    wants: frozenset[Group] = NONE
    gives: frozenset[Group] = NONE
    able: frozenset[Group] = NONE
    giving: frozenset[Group] = NONE
    ready: bool = False
    leaving: bool = False
    our_keys: tuple[str, ...] = ()
    their_keys: tuple[str, ...] = ()
    number: int = 0


class Say(msgspec.Struct, frozen=True):
    """A numbered message to the original: the type and the fields that go with it."""

    kind: str
    fields: tuple[tuple[str, str], ...] = ()
