"""Handing resources over to and from an original Heartbeat 3: the pure decisions (docs/internals/heartbeat.md).

An original knows two groups of resources, those that belong on it and those that belong on the other node, and moves a
group as a whole. It takes a group in three cases only: the other node is dead or has said goodbye; it starts, and the
group that belongs on it is not claimed by the other; or the other gave it in a handshake of ask_resources (me, other,
done, done). So two rules keep a group from running twice:

- We start a group only once it is *claimed*: nobody else may have it, and from then on every word of ours says so.
- What we run we stop for the original only after it has said that it will take it, and say "done" after the stop.

No clock and no socket: times are on the membership's awake clock, what is to be said comes out as fields of messages.
"""

from __future__ import annotations

from typing import Any

from relevo.heartbeat.handover_words import AT_REST, NONE, SWAPPED, Group, Say, Talk, Their, Told, meant, word
from relevo.heartbeat.legacy import Legacy
from relevo.heartbeat.wire import Message

GREET_MS = 1000
"""So often an original is asked what it holds, until it has answered to our present run."""
STATE_MS = 5000
"""So often it is told what we hold although nothing has changed: its messages and ours may be lost or late."""
ASK_LIMIT_MS = 12_000
"""An original forgets an unanswered request after 10 s; so long ours stands."""
ASK_PAUSE_MS = 3000
"""After one that was not answered we ask again so much later."""
PULL_DELAY_MS = 4000
"""An original that has auto_failback begins by itself as soon as we are stable; so much later we ask it to give."""
PULL_PAUSE_MS = 15_000
"""Then so often."""
TAKE_IDLE_MS = 10_000
"""A group that was given to us and that nobody here starts for so long is reported as taken all the same: the original
does not stop, nor hand over anything else, before it hears that."""
LEGACY_AFTER_MS = 6000
"""An original that is active and hears us but does not say what it holds for so long has auto_failback legacy."""


class Original:
    """What one run of the original has said; begins anew with each generation of it."""

    def __init__(self) -> None:
        self.hears_us = False
        self.fresh = False
        self.holds: frozenset[Group] | None = None
        self.stable = False
        self.going = False
        self.ever_held: frozenset[Group] = NONE
        self.declined: frozenset[Group] = NONE
        self._newest = 0

    def moved(self, groups: frozenset[Group], sequence: int, *, there: bool) -> None:
        """The handshake has moved groups; a statement from before that says nothing about now."""
        self._newest = max(self._newest, sequence)
        held = self.holds or NONE
        self.holds = held | groups if there else held - groups
        self.ever_held |= self.holds
        self.declined -= self.holds

    def on_resource(self, message: Message, sequence: int) -> None:
        """A statement; one that is older than the newest says nothing about now."""
        groups = meant(message.text("rsc_hold"))
        if groups is None or sequence <= self._newest:
            return
        self._newest = sequence
        full = message.text("rtype") == "full" or not groups
        self.holds = groups if full or self.holds is None else self.holds | groups
        self.ever_held |= self.holds
        self.declined -= self.holds
        info, stable = message.text("info"), message.text("isstable")
        self.going = info == "shutdown"
        if stable is not None:
            self.stable = stable == "1"
        elif info == "mach_down":  # the script that took a dead node's resources: it is done
            self.stable = True


class Handover:
    """Our side of the hand-over with one original.

    Attributes:
        claims: the groups that are ours to run, as the original is told.
    """

    def __init__(self) -> None:
        self.claims: frozenset[Group] = NONE
        self._told: Told | None = None
        self._alive = False
        self._their = Original()
        self._talk = Talk.NOT
        self._groups: frozenset[Group] = NONE  # of the handshake
        self._asked: frozenset[Group] = NONE  # of our last request, which may be answered after we gave it up
        self._talk_ms = 0
        self._talked = 0  # number of the last message of the handshake that was heeded
        self._next_ask_ms = 0
        self._next_greet_ms = 0
        self._next_pull_ms: int | None = None
        self._next_state_ms = 0
        self._legacy: Legacy | None = None
        self._silent_since_ms: int | None = None
        self._state_said: tuple[str, bool] | None = None
        self._say: list[Say] = []

    # --- what happens -------------------------------------------------------------------------------------------------

    def begun(self) -> None:
        """The original runs anew."""
        self._their = Original()
        self._legacy = None
        self._silent_since_ms = None
        self._end_talk()
        self._talked = 0
        self._state_said = None
        self._next_greet_ms = 0

    def we_begin(self) -> None:
        """A generation of ours begins: what it said before was not said to this one."""
        self.begun()

    def liveness(self, *, alive: bool) -> None:
        """What the membership says of it."""
        if alive != self._alive:
            self._alive = alive
            self.begun()

    def told(self, told: Told, now_ms: int) -> None:
        """The node daemon has news."""
        self._told = told
        if told.active & self._groups and self._talk is Talk.TAKING:
            self._talk_ms = now_ms

    def heard(self, message: Message, sequence: int, me: str, now_ms: int) -> None:
        """A message of the original was accepted.

        Args:
            message: of any type.
            sequence: its number.
            me: our name.
            now_ms: when.
        """
        match message.text("t"):
            case "starting":
                self._their.fresh = True
                self._state_said = None
            case "repnodes" if message.text("dest") == me:
                self._their.hears_us = True
            case "ip-request":
                self._legacy = self._legacy or Legacy()
            case "resource":
                self._legacy = None
                self._their.on_resource(message, sequence)
                self._given_was_taken()
            case "ask_resources":
                self._on_ask(message, sequence, now_ms)
            case _:
                pass

        if self._legacy is not None:
            self._legacy.heard(message, me, self._told)

    def _given_was_taken(self) -> None:
        """Its "done" may be lost for good; what it holds and calls stable it has taken."""
        held = self._their.holds or NONE
        if self._talk is Talk.GIVEN and self._their.stable and self._groups <= held:
            self._end_talk()

    def _on_ask(self, message: Message, sequence: int, now_ms: int) -> None:
        if sequence <= self._talked or self._told is None:
            return
        theirs = meant(message.text("rsc_hold"))  # the word is relative to who gives
        ours = None if theirs is None else frozenset(SWAPPED[group] for group in theirs)
        if theirs is None or ours is None:
            return
        match message.text("info"):
            case "me" if self._may_take(theirs):
                self._talked = sequence
                self._begin_talk(Talk.OFFERED, theirs, now_ms)
                self._answer(theirs, "other", given_by_us=False)
            case "other" if self._talk in AT_REST and ours == self._asked != NONE:
                self._talked = sequence
                self._begin_talk(Talk.GIVING, ours, now_ms)
            case "done" if self._talk is Talk.OFFERED:
                self._talked = sequence
                self._their.moved(theirs, sequence, there=False)
                self._their.declined |= theirs & {Group.THEIRS}
                self._begin_talk(Talk.TAKING, theirs, now_ms)
                self.claims |= theirs
            case "done" if self._talk is Talk.GIVEN:
                self._talked = sequence
                self._their.moved(self._groups, sequence, there=True)
                self._end_talk()
            case _:
                pass

    def _may_take(self, groups: frozenset[Group]) -> bool:
        told = self._told
        free = self._talk in AT_REST
        return free and told is not None and told.ready and not told.leaving and groups <= told.able | self.claims

    def _begin_talk(self, talk: Talk, groups: frozenset[Group], now_ms: int) -> None:
        self._talk, self._groups, self._talk_ms = talk, groups, now_ms
        self._next_pull_ms = None
        if talk is Talk.ASKED:
            self._asked = groups
        elif talk is not Talk.OFFERED:
            self._asked = NONE

    def _end_talk(self) -> None:
        self._talk, self._groups, self._asked = Talk.NOT, NONE, NONE
        self._state_said = None

    def _answer(self, groups: frozenset[Group], info: str, *, given_by_us: bool) -> None:
        mine = groups if given_by_us else frozenset(SWAPPED[group] for group in groups)
        self._say.append(Say("ask_resources", (("rsc_hold", word(mine)), ("info", info))))

    # --- what follows -------------------------------------------------------------------------------------------------

    def due(self, now_ms: int, *, active: bool) -> list[Say]:
        """What is to be said now.

        Args:
            now_ms: the time.
            active: our own membership is settled; before that an original does not listen.
        """
        self._say, said = [], self._say
        told = self._told
        if told is None:
            return []
        self._claim(told)
        if not self._alive:
            return []
        self._go_on(told, now_ms)
        if active:
            self._notice_legacy(now_ms)
        if active and self._legacy is not None:
            self._say += self._legacy.due(told, now_ms)
        elif active:
            self._greet(now_ms)
            self._state(told, now_ms)
            self._ask(told, now_ms)
            self._pull(told, now_ms)
        self._say, made = [], self._say
        return [*said, *made]

    def _claim(self, told: Told) -> None:
        taking = self._groups if self._talk is Talk.TAKING else NONE
        given = self._groups if self._talk is Talk.GIVEN else NONE
        kept = (self.claims & told.wants) | told.active | taking
        free = frozenset(group for group in told.wants if self.their(group) is Their.FREE) - self._parting
        self.claims = (kept | free) - given if not told.leaving else told.active

    @property
    def _parting(self) -> frozenset[Group]:
        """What is on its way to the original."""
        return self._groups if self._talk in {Talk.GIVING, Talk.GIVEN} else NONE

    def _go_on(self, told: Told, now_ms: int) -> None:
        match self._talk:
            case Talk.ASKED if now_ms >= self._talk_ms + ASK_LIMIT_MS:
                asked = self._asked
                self._end_talk()
                self._asked = asked
                self._next_ask_ms = now_ms + ASK_PAUSE_MS
            case Talk.OFFERED if now_ms >= self._talk_ms + ASK_LIMIT_MS and self._their.stable:
                # it calls itself unstable while it gives: what it asked for it has forgotten
                self._end_talk()
            case Talk.GIVING if self._groups <= told.giving - told.active - told.moving:
                self.claims -= self._groups
                self._answer(self._groups, "done", given_by_us=True)
                self._begin_talk(Talk.GIVEN, self._groups, now_ms)
            case Talk.TAKING if self._groups <= told.started or self._abandoned(told, now_ms):
                self._answer(self._groups, "done", given_by_us=False)
                self._end_talk()
            case _:
                pass

    def _abandoned(self, told: Told, now_ms: int) -> bool:
        return not self._groups & (told.active | told.moving) and now_ms >= self._talk_ms + TAKE_IDLE_MS

    def _notice_legacy(self, now_ms: int) -> None:
        """One that hears us and does not say what it holds has auto_failback legacy."""
        if not self._their.hears_us or self._their.holds is not None:
            self._silent_since_ms = None
        elif self._silent_since_ms is None:
            self._silent_since_ms = now_ms
        elif self._legacy is None and now_ms >= self._silent_since_ms + LEGACY_AFTER_MS:
            self._legacy = Legacy()

    def _greet(self, now_ms: int) -> None:
        their = self._their
        if (their.hears_us and their.holds is not None) or now_ms < self._next_greet_ms:
            return
        self._next_greet_ms = now_ms + GREET_MS
        self._say.append(Say("reqnodes"))
        self._say.append(Say("starting"))
        self._state_said = None

    def _state(self, told: Told, now_ms: int) -> None:
        held = self.claims - self._parting
        settled = told.ready and not told.moving and not told.leaving and self._talk in AT_REST
        state = (word(NONE if told.leaving else held), settled)
        # a request of its may never have taken effect: it is told that we are at rest while it is waited for
        if state == self._state_said and (now_ms < self._next_state_ms or self._talk not in {Talk.NOT, Talk.OFFERED}):
            return
        self._state_said = state
        self._next_state_ms = now_ms + STATE_MS
        why = "shutdown" if told.leaving else "standby" if self._parting else ""
        info = (("info", why),) if why else ()
        stable = "1" if settled else "0"
        self._say.append(Say("resource", (("rsc_hold", state[0]), ("rtype", "full"), ("isstable", stable), *info)))

    def _ready_to_talk(self, told: Told) -> bool:
        their = self._their
        willing = their.hears_us and their.stable and not their.going
        return willing and self._talk is Talk.NOT and told.ready and not told.leaving and not told.moving

    def _ask(self, told: Told, now_ms: int) -> None:
        held = self._their.holds or NONE
        groups = told.gives - held
        if groups and self._ready_to_talk(told) and now_ms >= self._next_ask_ms:
            self._begin_talk(Talk.ASKED, groups, now_ms)
            self._answer(groups, "me", given_by_us=True)

    def _pull(self, told: Told, now_ms: int) -> None:
        groups = told.wants & (self._their.holds or NONE)
        if not groups or not self._ready_to_talk(told):
            self._next_pull_ms = None
        elif self._next_pull_ms is None:
            self._next_pull_ms = now_ms + PULL_DELAY_MS
        elif now_ms >= self._next_pull_ms:
            self._next_pull_ms = now_ms + PULL_PAUSE_MS
            self._say.append(Say("hb_takeover", (("rsc_hold", word(groups)),)))

    def next_ms(self, now_ms: int) -> int:
        """When `due` may have something to say although nothing has happened."""
        if self._told is None or not self._alive:
            return now_ms + STATE_MS
        times = [self._next_state_ms if self._talk is Talk.NOT else now_ms + GREET_MS]
        if not self._their.hears_us or self._their.holds is None:
            times.append(self._next_greet_ms)
        if self._next_pull_ms is not None:
            times.append(self._next_pull_ms)
        if self._told.gives and self._talk is Talk.NOT:
            times.append(self._next_ask_ms)
        return max(now_ms + 1, min(times))

    # --- what is known ------------------------------------------------------------------------------------------------

    def their(self, group: Group) -> Their:
        """What the original has of a group, so far as it may concern who starts it."""
        their = self._their
        if not self._alive or (self._talk is Talk.TAKING and group in self._groups):
            return Their.FREE
        if self._legacy is not None:
            return self._legacy.their(group, self._told) if self._told is not None else Their.UNKNOWN
        if not their.hears_us or their.holds is None:
            return Their.UNKNOWN
        if group in self._groups and self._talk in {Talk.GIVEN, Talk.OFFERED}:
            return Their.MOVING
        if group in their.holds:
            return Their.HELD
        if their.stable:
            return Their.FREE
        # One whose start we saw has nothing of ours; one that is stopping says "none", too, and runs it still.
        fresh = their.fresh and group is Group.OURS and not their.going and group not in their.ever_held
        return Their.FREE if fresh else Their.MOVING

    def view(self) -> dict[str, Any]:
        """What the node daemon is told (docs/internals/heartbeat.md)."""
        giving = self._groups if self._talk is Talk.GIVING else NONE
        return {
            "groups": {group.value: self.their(group).value for group in Group},
            "claims": sorted(self.claims),
            "giving": sorted(giving if self._legacy is None else self._legacy.giving),
            "declined": sorted(self._their.declined),
            "talk": self._talk.value,
            "legacy": self._legacy is not None,
            "told": self._told.number if self._told is not None else 0,
            "leaving": self._their.going,
        }
