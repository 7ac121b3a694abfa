"""How Heartbeat 3.0.6 manages resources with auto_failback on or off, as a model for simulations.

Taken from its behaviour and its source: which group it believes to hold, when it starts and stops one, what it says.
Groups are `local` (its own) and `foreign` here, as it calls them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

BOTH = frozenset({"local", "foreign"})
NONE: frozenset[str] = frozenset()
WORDS = {"none": NONE, "local": frozenset({"local"}), "foreign": frozenset({"foreign"}), "all": BOTH}
START_DELAY_MS = 10_000
"""After the first statement of the other node it takes what is its own, though nothing is stable."""
ANSWER_LIMIT_MS = 10_000
WORK_MS = (20, 900)
"""Starting or stopping a group takes so long."""


def word(groups: frozenset[str]) -> str:
    return next(name for name, meant in WORDS.items() if meant == groups)


def swapped(groups: frozenset[str]) -> frozenset[str]:
    return frozenset("foreign" if group == "local" else "local" for group in groups)


class OriginalNode:
    """One run of Heartbeat, from start to end.

    Args:
        dice: how long things take.
        later: calls something after so many milliseconds, if this run is still there.
        send: says something: type and fields.
        run: notes that a group begins or has ceased to run here.
        auto_failback: what its ha.cf says.
    """

    def __init__(
        self,
        dice: random.Random,
        later: Callable[[int, Callable[[], None]], None],
        send: Callable[..., None],
        run: Callable[..., None],
        *,
        auto_failback: bool,
    ) -> None:
        self._dice = dice
        self._later = later
        self._send_out = send
        self._run = run
        self._auto_failback = auto_failback
        self.state = "init"
        self.holds: frozenset[str] = NONE
        self.running: set[str] = set()
        self._other_holds: frozenset[str] = NONE
        self._other_stable = False
        self._needs_failback = False
        self._standby = "not"
        self._standby_groups: frozenset[str] = NONE
        self._standby_number = 0
        self._jobs: list[Callable[[], None]] = []
        self._busy = False
        self._taking_over = False
        self._wants_shutdown = False
        self._delay_begun = False
        self.ended = False

    # --- work: one thing at a time ------------------------------------------------------------------------------------

    def _work(self, groups: frozenset[str], *, start: bool, then: Callable[[], None]) -> None:
        def begin() -> None:
            for group in groups:
                if start and group not in self.running:
                    self.running.add(group)
                    self._run(group, on=True)
            self._later(self._dice.randint(*WORK_MS), end)

        def end() -> None:
            for group in groups:
                if not start and group in self.running:
                    self.running.remove(group)
                    self._run(group, on=False)
            self._busy = False
            then()
            self._next_job()
            self._shutdown_if_possible()

        self._jobs.append(begin)
        if not self._busy:
            self._next_job()

    def _next_job(self) -> None:
        if self._jobs:
            self._busy = True
            self._jobs.pop(0)()

    # --- saying -------------------------------------------------------------------------------------------------------

    def _say(self, kind: str, **fields: str) -> None:
        self._send_out(kind, **fields)
        self.heard(kind, fields, mine=True)

    def _say_holds(self, *, stable: bool, info: str = "") -> None:
        more = {"info": info} if info else {}
        self._say("resource", rsc_hold=word(self.holds), rtype="full", isstable="1" if stable else "0", **more)

    # --- what happens -------------------------------------------------------------------------------------------------

    def links_up(self) -> None:
        """All nodes were heard, or initdead is over."""
        self.state = "starting"
        self._say("starting")

    def other_died(self) -> None:
        """Silence for deadtime, or initdead without a word."""
        if self._standby != "not":
            self._standby = "not"
            self._standby_number += 1
        if self.state == "shutdown":
            return
        self._needs_failback = True
        self._take_over()

    def _take_over(self) -> None:
        if self.state == "shutdown":
            return
        self._other_holds, self._other_stable = NONE, True
        if "foreign" not in self.holds or "foreign" not in self.running:
            self._taking_over = True
        self.holds |= {"foreign"}
        self._take_own(anyway=True)
        self._work(frozenset({"foreign"}), start=True, then=self._took_over)
        if self.state != "init":
            self.state = "stable"

    def _took_over(self) -> None:
        self._taking_over = False
        self._needs_failback = True
        self._other_stable = True
        self._say("resource", rsc_hold="foreign", info="mach_down")

    def _take_own(self, *, anyway: bool) -> None:
        if self.state == "shutdown":
            return
        taken = "foreign" in self._other_holds or "local" in self.holds
        if taken and not anyway and self._standby == "not":
            return
        self.holds |= {"local"}
        self._work(frozenset({"local"}), start=True, then=lambda: self._say_holds(stable=True, info="req"))

    def heard(self, kind: str, fields: dict[str, str], *, mine: bool = False) -> None:
        """A message of the other node's, or one of its own."""
        if kind == "reqnodes" and not mine:
            self._send_out("repnodes", dest="ours")
        elif self.state == "init":
            return
        elif kind == "starting" and not mine:
            self._other_stable = False
            self._say_holds(stable=self.state == "stable")
        elif kind == "resource":
            self._on_resource(fields, mine=mine)
        elif kind == "ask_resources":
            self._on_ask(fields, mine=mine)
        elif kind == "hb_takeover" and not mine:
            self.hb_standby(swapped(WORDS[fields["rsc_hold"]]))
        self._shutdown_if_possible()

    def other_left(self) -> None:
        """shutdone."""
        self._other_stable = True
        self._other_holds = NONE
        if self.state not in {"init", "shutdown"} and self.holds != BOTH:
            self._work(BOTH - self.holds, start=True, then=lambda: None)
            self._standby = "not"
        self._take_over()

    def _on_resource(self, fields: dict[str, str], *, mine: bool) -> None:
        groups = WORDS[fields["rsc_hold"]]
        full = fields.get("rtype") == "full" or not groups
        if mine:
            self.holds = groups if full else self.holds | groups
            return
        if self.state == "starting":
            self.state = "received"
            if not self._delay_begun:
                self._delay_begun = True
                self._later(START_DELAY_MS, self._delay_over)
        self._other_holds = groups if full else self._other_holds | groups
        stable = fields.get("isstable")
        if stable == "1" and not self._other_stable:
            self._other_stable = True
            self._say_holds(stable=self.state == "stable")
            self._fail_back()
        elif stable == "0":
            self._other_stable = False
        if self.state not in {"stable", "shutdown"} and self._other_stable:
            self._take_own(anyway=False)
            self.state = "stable"
            self._say_holds(stable=True)
            self._fail_back()

    def _delay_over(self) -> None:
        if self.state == "received":
            self._take_own(anyway=False)
            self.state = "stable"
            self._say_holds(stable=True)

    def _fail_back(self) -> None:
        if "foreign" not in self.holds or not self._needs_failback or not self._auto_failback:
            self._needs_failback = False
            return
        if self._standby != "not" or not self._other_stable or self.state != "stable":
            self._later(1000, self._fail_back)
            return
        self._needs_failback = False
        self.hb_standby(frozenset({"foreign"}))

    # --- the handshake ------------------------------------------------------------------------------------------------

    def hb_standby(self, groups: frozenset[str]) -> None:
        """What the command of that name says."""
        self._say("ask_resources", rsc_hold=word(groups), info="me")

    def _timer(self) -> None:
        self._standby_number += 1
        number = self._standby_number

        def over() -> None:
            if self._standby == "me" and self._standby_number == number:
                self._standby = "not"
                self._other_stable = True
                self._shutdown_if_possible()

        self._later(ANSWER_LIMIT_MS, over)

    def _on_ask(self, fields: dict[str, str], *, mine: bool) -> None:
        if self.state == "shutdown":
            return
        groups, info = WORDS[fields["rsc_hold"]], fields["info"]
        if info == "me" and self._standby != "not":
            return
        if self._standby == "not":
            if not self._other_stable or self.state != "stable" or info != "me":
                return
            self._standby_groups = groups
            self._other_stable = False
            self._standby = "me" if mine else "other"
            if mine:
                self._timer()
            else:
                self._say("ask_resources", rsc_hold=word(groups), info="other")
        elif self._standby == "me":
            if not mine and info == "other":
                self._give(groups)
            elif mine and info == "done":
                self._standby = "done"
                self.holds -= self._standby_groups
        elif self._standby == "other" and info == "done" and not mine:
            self._standby = "done"
            theirs = swapped(groups)
            self._work(theirs, start=True, then=lambda: self._say("ask_resources", rsc_hold=word(groups), info="done"))
        elif self._standby == "done" and info == "done":
            self._standby = "not"
            self._standby_number += 1
            if mine:
                self.holds |= swapped(groups)
            self._say_holds(stable=True)

    def _give(self, groups: frozenset[str]) -> None:
        self._standby_number += 1
        self._standby_groups = groups
        self._other_stable = False
        self.holds -= groups
        self._say_holds(stable=False, info="standby")
        self._work(groups, start=False, then=lambda: self._say("ask_resources", rsc_hold=word(groups), info="done"))

    # --- the end ------------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """heartbeat -k."""
        self._wants_shutdown = True
        self._shutdown_if_possible()

    def is_quiet(self) -> bool:
        """Nothing is on its way."""
        settled = self._other_stable and not self._taking_over and self._standby == "not"
        return settled and not self._busy and self.state == "stable"

    def _shutdown_if_possible(self) -> None:
        quiet = self._other_stable and not self._taking_over and self._standby == "not" and not self._busy
        if not self._wants_shutdown or self.state not in {"init", "stable"} or (self.state != "init" and not quiet):
            return
        self.state = "shutdown"
        self.holds = NONE
        self._say_holds(stable=False, info="shutdown")
        self._work(BOTH, start=False, then=self._end)

    def _end(self) -> None:
        self._send_out("shutdone", st="dead")
        self.ended = True
