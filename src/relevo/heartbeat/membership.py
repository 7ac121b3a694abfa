"""Who is alive: the pure core. An event goes into `Membership.step`, effects come out; no clock, socket or disk.

Three rules carry it (docs/internals/heartbeat.md has them in full):

- A sign of life is a message with a good signature whose number is higher than every earlier one of that generation.
- A message proves that it was made in our present run if it names our present generation as heard. Without that proof
  it must lie above the mark that was on disk at our start; facts always need the proof. And every message waits until
  the mark on disk covers it, so that nothing is accepted again after a crash.
- Silence is counted in time in which we ourselves ran: a pause of ours is no evidence against anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from relevo.heartbeat import outbox
from relevo.heartbeat.events import (
    ALIVE,
    EVERYDAY,
    NOTHING_HEARD,
    TRANSITIONS,
    DatagramRefused,
    Dropped,
    Effect,
    Event,
    FactsReceived,
    Hold,
    Join,
    Leave,
    LinkChanged,
    Mark,
    MessageReceived,
    NextTick,
    Paused,
    PeerChanged,
    PeerState,
    Persist,
    Persisted,
    Publish,
    Reason,
    SelfChanged,
    Settings,
    Sign,
    Suspect,
    Tick,
)
from relevo.heartbeat.handover import Handover
from relevo.heartbeat.peer import Incarnation, Peer, PeerLink, Received
from relevo.heartbeat.voice import Voice
from relevo.heartbeat.wire import Message, WireError

PAUSE_KEEPALIVES = 2
"""A step that comes more than so many keepalives after the one before means that we were stopped; the time beyond is
not counted as anyone's silence."""
GRACE_KEEPALIVES = 2
"""After a pause of ours every peer has at least so many keepalives to be heard, once in each silence."""

_SAYS = {"init": Sign.SAYS_INIT, "up": Sign.SAYS_UP, "active": Sign.SAYS_ACTIVE}


class Membership:
    """The membership as one node sees it.

    Args:
        settings: fixed for the life of this object.
        now_ms: the time of the start; initdead begins here.
    """

    def __init__(self, settings: Settings, now_ms: int) -> None:
        self._settings = settings
        self._timings = settings.timings
        self._now_ms = now_ms
        self._awake_ms = 0  # the awake clock: like now_ms, but pauses of ours are cut short
        self._voice = Voice(settings)
        self._peers = {name: self._new_peer(name) for name in settings.peers}
        self._own_links = dict.fromkeys(settings.links, True)
        self._initdead_passed = False
        self._persist_due = False
        self._runs = False
        self._counters: Counter[Reason] = Counter(dict.fromkeys(Reason, 0))
        self._last_dropped: Dropped | None = None
        self._pauses = 0
        self._effects: list[Effect] = []

    def _new_peer(self, name: str) -> Peer:
        mark = self._settings.marks.get(name, NOTHING_HEARD)
        links = {link: PeerLink() for link in self._settings.links}
        pair = len(self._settings.peers) == 1  # an original with haresources knows two nodes
        handover = Handover() if pair else None
        return Peer(
            name=name,
            floor=mark,
            links=links,
            heard_ms=0,
            deadline_ms=0,
            reserved=mark,
            wanted=mark,
            handover=handover,
        )

    # --- one step -----------------------------------------------------------------------------------------------------

    def step(self, event: Event) -> list[Effect]:
        """Take one event; the effects are unordered."""
        self._effects = []
        before = {name: (peer.state, peer.visible()) for name, peer in self._peers.items()}
        own_before = self._own_view()
        self._advance(event.now_ms)
        self._dispatch(event)
        self._judge()
        self._send_what_is_due()
        for name, peer in self._peers.items():
            state, visible = before[name]
            if visible != peer.visible():
                self._effects.append(PeerChanged(name, state, peer.state))
        if own_before != self._own_view():
            self._effects.append(SelfChanged())
        if self._persist_due:
            self._persist_due = False
            self._effects.append(Persist({name: peer.wanted for name, peer in self._peers.items()}))
        self._plan_tick()
        return self._effects

    def _dispatch(self, event: Event) -> None:
        match event:
            case MessageReceived():
                self._on_message(event.link, event.message)
            case DatagramRefused():
                self._drop(event.reason, event.origin, event.link)
            case LinkChanged():
                assert event.link in self._own_links
                self._own_links[event.link] = event.up
                if event.up:
                    self._voice.hasten(self._awake_ms)
            case Publish() | Hold() | Leave() | Join():
                self._on_wish(event)
            case Suspect():
                self._on_suspect(event.peer)
            case Persisted():
                self._on_persisted(event.marks)
            case Tick():
                pass  # what is due is done in every step

    def _on_wish(self, event: Publish | Hold | Leave | Join) -> None:
        match event:
            case Publish():
                self._runs = event.runs
                self._voice.publish(event.facts, self._awake_ms)
            case Hold():
                for handover in self._handovers:
                    handover.told(event.told, self._awake_ms)
            case Leave():
                self._voice.leave(self._heard(), self._awake_ms)
            case Join():
                self._voice.join(event.generation, self._awake_ms)
                for handover in self._handovers:
                    handover.we_begin()

    def _advance(self, now_ms: int) -> None:
        gap_ms = max(0, now_ms - self._now_ms)
        self._now_ms = max(self._now_ms, now_ms)
        most_ms = PAUSE_KEEPALIVES * self._timings.keepalive_ms
        self._awake_ms += min(gap_ms, most_ms)
        if gap_ms <= most_ms:
            return
        self._pauses += 1
        self._effects.append(Paused(gap_ms))
        for peer in self._peers.values():
            if not peer.graced:
                peer.graced = True
                grace_ms = GRACE_KEEPALIVES * self._timings.keepalive_ms
                peer.deadline_ms = max(peer.deadline_ms, self._awake_ms + grace_ms)

    # --- what is received ---------------------------------------------------------------------------------------------

    def _on_message(self, link: str, message: Message) -> None:
        try:
            kind, source = message.required("t"), message.required("src")
            generation = message.number("hg")
            numbered = not kind.startswith("NS_")
            sequence = message.number("seq") if numbered else 0
        except WireError:
            self._drop(Reason.MALFORMED, message.printable("src"), link)
            return
        if source == self._settings.me:
            own = message.binary("srcuuid") == self._settings.uuid and self._voice.said(generation, sequence)
            self._drop(Reason.OWN_ECHO if own else Reason.NAME_TAKEN, source, link)
            return
        peer = self._peers.get(source)
        if peer is None:
            self._drop(Reason.UNKNOWN_NODE, message.printable("src"), link)
        elif not numbered:
            self._on_unnumbered(kind, message)  # may be a replay: neither a sign of life nor anything else
        else:
            self._on_numbered(peer, link, message, Mark(generation, sequence))

    def _on_unnumbered(self, kind: str, message: Message) -> None:
        if kind != "NS_rexmit" or message.text("dest") != self._settings.me or self._voice.left:
            return
        try:
            first, last = message.decimal("firstseq"), message.decimal("lastseq")
        except WireError:
            return
        self._effects.extend(self._voice.outbox.again(first, last, self._awake_ms))

    def _on_numbered(self, peer: Peer, link: str, message: Message, mark: Mark) -> None:
        proven = outbox.heard_generation(message, self._settings.me) in self._voice.generations
        if peer.present is None or mark.generation >= peer.present.generation:
            peer.answered_generation = mark.generation
        if message.text(outbox.RELEVO) == "1" and not proven:
            self._voice.hasten(self._awake_ms)  # it does not know yet that we (in this run) are here
        received = Received(link, message, mark, proven, self._awake_ms)
        # a disk that hangs must not make a live peer look dead: after a while go on without it
        since_ms = peer.held_since_ms
        impatient = since_ms is not None and self._awake_ms - since_ms >= self._timings.deadtime_ms // 2
        refusal = peer.refusal(received, impatient=impatient)
        if refusal in (None, Reason.DUPLICATE) and peer.present is not None:
            self._note_link(peer, received)
        if refusal is None:
            self._accept(peer, received)
            return
        if refusal is Reason.HELD:
            peer.hold(received)
            self._reserve(peer, received)
        self._drop(refusal, peer.name, link)

    def _note_link(self, peer: Peer, received: Received) -> None:
        assert peer.present is not None
        record, mark = peer.links[received.link], received.mark
        if mark.generation == peer.present.generation and mark.sequence > record.sequence:
            record.sequence = mark.sequence
            record.heard_ms = received.at_ms
            record.up = self._own_links[received.link]

    def _accept(self, peer: Peer, received: Received) -> None:
        state_before, mark = peer.state, received.mark
        present = peer.present
        begun = present is None or mark.generation > present.generation
        if present is None or begun:
            present = self._begin(peer, received)
        newest = present.window.accept(mark.sequence)
        self._note_link(peer, received)
        self._reserve(peer, received)
        present.confirmed = present.confirmed or received.proven
        if peer.state is PeerState.LEFT:
            self._drop(Reason.AFTER_GOODBYE, peer.name, received.link)
            return
        self._learn(peer, received.message)
        if peer.handover is not None and peer.original:
            peer.handover.heard(received.message, mark.sequence, self._settings.me, received.at_ms)
        if newest:
            peer.heard_ms = received.at_ms
            peer.deadline_ms = received.at_ms + self._timings.deadtime_ms
            peer.graced = False
        self._on_content(peer, present, received, newest=newest)
        if begun or (state_before not in ALIVE and peer.state in ALIVE):
            self._voice.hasten(self._awake_ms)
            self._voice.facts_due(self._awake_ms)
        # only an original sends again what has no repetition of its own
        present.gaps.heard(mark.sequence, received.at_ms, ask=not peer.relevo)

    def _begin(self, peer: Peer, received: Received) -> Incarnation:
        peer.present = Incarnation(received.mark.generation, received.uuid)
        peer.relevo = False
        if peer.handover is not None:
            peer.handover.begun()
        peer.boot_id = peer.config_hash = ""
        for record in peer.links.values():
            record.sequence = 0
        self._sign(peer, Sign.BEGUN)
        return peer.present

    def _learn(self, peer: Peer, message: Message) -> None:
        if message.text(outbox.RELEVO) == "1":
            if not peer.relevo:
                peer.relevo = True
                self._voice.facts_due(self._awake_ms)
            peer.boot_id = message.printable(outbox.BOOT) or peer.boot_id
            peer.config_hash = message.printable(outbox.CONFIG) or peer.config_hash

    def _on_content(self, peer: Peer, present: Incarnation, received: Received, *, newest: bool) -> None:
        message = received.message
        kind = message.text("t")
        if kind == "shutdone":
            self._sign(peer, Sign.GOODBYE)
            return
        if newest:  # an older message that was overtaken says nothing about now
            self._sign(peer, _SAYS.get(message.text("st") or "", Sign.HEARD) if kind == "status" else Sign.HEARD)
        if kind == outbox.RELEVO:
            self._on_facts(peer, present, received)
        elif kind == "reqnodes" and message.text("dest") == self._settings.me and not self._voice.left:
            names = sorted([self._settings.me, *self._peers])
            self._effects.append(self._voice.outbox.node_list(peer.name, names, self._heard()))

    def _on_facts(self, peer: Peer, present: Incarnation, received: Received) -> None:
        try:
            number = received.message.number("no")
            facts = msgspec.json.decode(received.message.required("facts"), type=dict[str, Any])
        except (WireError, ValueError, RecursionError):
            self._drop(Reason.MALFORMED, peer.name, received.link)
            return
        if not received.proven or number < present.facts_no:
            self._drop(Reason.STALE_FACTS, peer.name, received.link)
        elif number > present.facts_no:
            present.facts, present.facts_no = facts, number
            self._effects.append(FactsReceived(peer.name, number))

    def _drop(self, reason: Reason, sender: str, link: str) -> None:
        dropped = Dropped(reason, sender, link)
        self._counters[reason] += 1
        if reason not in EVERYDAY:
            self._last_dropped = dropped
        self._effects.append(dropped)

    # --- marks on disk ------------------------------------------------------------------------------------------------

    def _reserve(self, peer: Peer, received: Received) -> None:
        if peer.reserve(received):
            self._persist_due = True

    def _on_persisted(self, marks: Mapping[str, Mark]) -> None:
        for name, mark in marks.items():
            peer = self._peers.get(name)
            if peer is None or mark <= peer.reserved:
                continue
            peer.reserved = mark
            for received in peer.covered():
                if peer.refusal_for_good(received) is None:
                    self._accept(peer, received)
            peer.held_since_ms = peer.held[0].at_ms if peer.held else None

    def final_marks(self) -> dict[str, Mark]:
        """The exact marks, for the end of the process. ORDER: nothing may be received after this is called."""
        return {name: peer.final_mark() for name, peer in self._peers.items()}

    # --- suspicion ----------------------------------------------------------------------------------------------------

    def _on_suspect(self, name: str) -> None:
        peer = self._peers.get(name)
        if peer is None or self._voice.left:
            return
        self._voice.hasten(self._awake_ms)
        self._effects.append(self._voice.outbox.node_list_request(name, self._heard()))

    # --- what time brings ---------------------------------------------------------------------------------------------

    def _sign(self, peer: Peer, sign: Sign) -> None:
        peer.state = TRANSITIONS.get((peer.state, sign), peer.state)

    def _judge(self) -> None:
        if self._awake_ms >= self._timings.initdead_ms:
            self._initdead_passed = True
        for peer in self._peers.values():
            silent_ms = self._awake_ms - peer.heard_ms
            if peer.state in ALIVE and self._awake_ms >= peer.deadline_ms:
                self._sign(peer, Sign.SILENCE)
            if self._initdead_passed:
                self._sign(peer, Sign.INITDEAD)
            peer.late = peer.state in ALIVE and silent_ms >= self._timings.warntime_ms
            for name, record in peer.links.items():
                silent = self._awake_ms - record.heard_ms >= self._timings.deadtime_ms
                if silent or not self._own_links[name]:
                    record.up = False
        settled = self._initdead_passed or all(peer.state is not PeerState.UNKNOWN for peer in self._peers.values())
        if settled:
            self._voice.settle(self._awake_ms)

    def _heard(self) -> dict[str, int]:
        return {name: peer.answered_generation for name, peer in self._peers.items() if peer.answered_generation}

    def _send_what_is_due(self) -> None:
        if not self._voice.left:
            for peer in self._peers.values():
                self._mind_gaps(peer)
                self._hand_over(peer)
        understanding = [name for name, peer in self._peers.items() if peer.relevo]
        self._effects += self._voice.due(self._awake_ms, self._heard(), understanding)

    def _hand_over(self, peer: Peer) -> None:
        if peer.handover is None:
            return
        peer.handover.liveness(alive=peer.original and peer.state in ALIVE)
        for say in peer.handover.due(self._awake_ms, active=self._voice.state is PeerState.ACTIVE):
            send = (
                self._voice.outbox.node_list_request(peer.name, self._heard())
                if say.kind == "reqnodes"
                else self._voice.outbox.say(say.kind, say.fields, peer.name, self._heard())
            )
            self._effects.append(send)

    def _mind_gaps(self, peer: Peer) -> None:
        if peer.present is None or peer.state not in ALIVE:
            return
        gaps, uuid = peer.present.gaps, peer.present.uuid
        for first, last in gaps.questions(self._awake_ms):
            self._effects.append(self._voice.outbox.question(peer.name, uuid, first, last))
        if (complete := gaps.acknowledge()) is not None:
            self._effects.append(self._voice.outbox.acknowledgement(peer.name, uuid, complete))

    def _plan_tick(self) -> None:
        # even with nothing to do (after a goodbye) a step comes at least so often: a longer gap means a pause of ours
        due = [self._awake_ms + self._timings.keepalive_ms]
        due += self._voice.next_ms()
        if not self._initdead_passed:
            due.append(self._timings.initdead_ms)
        for peer in self._peers.values():
            if peer.state in ALIVE:
                due.append(peer.deadline_ms)
                if not peer.late:
                    due.append(peer.heard_ms + self._timings.warntime_ms)
                asking_ms = peer.present.gaps.next_ms() if peer.present and not self._voice.left else None
                if asking_ms is not None:
                    due.append(asking_ms)
                if peer.handover is not None and peer.original and not self._voice.left:
                    due.append(peer.handover.next_ms(self._awake_ms))
            due.extend(link.heard_ms + self._timings.deadtime_ms for link in peer.links.values() if link.up)
        self._effects.append(NextTick(self._now_ms + max(0, min(due) - self._awake_ms)))

    # --- what others may see ------------------------------------------------------------------------------------------

    @property
    def left(self) -> bool:
        """We said goodbye and have not begun anew."""
        return self._voice.left

    @property
    def may_say_goodbye(self) -> bool:
        """Whether an end without `leave` may be told: a goodbye is taken for "nothing runs here any more"."""
        if self._runs:
            return False
        return not any(peer.original and peer.handover and peer.handover.claims for peer in self._peers.values())

    @property
    def _handovers(self) -> list[Handover]:
        return [peer.handover for peer in self._peers.values() if peer.handover is not None]

    def _own_view(self) -> tuple[object, ...]:
        return self._voice.state, self._voice.left, self._initdead_passed, tuple(self._own_links.values())

    def view(self, now_ms: int) -> dict[str, Any]:
        """The whole state as `watch` and `status` tell it (docs/internals/heartbeat.md)."""
        gap_ms = min(max(0, now_ms - self._now_ms), PAUSE_KEEPALIVES * self._timings.keepalive_ms)
        awake_ms = self._awake_ms + gap_ms
        return {
            "me": self._settings.me,
            "boot_id": self._settings.boot_id,
            "generation": self._voice.outbox.generation,
            "state": PeerState.LEFT.value if self._voice.left else self._voice.state.value,
            "initdead_passed": self._initdead_passed,
            "links": {name: "up" if up else "down" for name, up in self._own_links.items()},
            "peers": {name: peer.view(awake_ms, self._settings.config_hash) for name, peer in self._peers.items()},
            "counters": {reason.value: self._counters[reason] for reason in Reason},
            "last_dropped": msgspec.structs.asdict(self._last_dropped) if self._last_dropped else None,
            "pauses": self._pauses,
        }
