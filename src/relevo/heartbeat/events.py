"""What `Membership` is told at its start, what goes into its `step` and what comes out.

All is frozen, and every event carries the time at which it happened.

`now_ms` is a clock that never goes back and that also runs while the process is stopped (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from relevo.config.model import HeartbeatTimings
from relevo.heartbeat.handover_words import Told
from relevo.heartbeat.wire import Message


class PeerState(enum.StrEnum):
    """What is known of another node."""

    UNKNOWN = "unknown"
    """Never heard since the start, and initdead is not over."""
    INIT = "init"
    """Heard; it has only begun."""
    UP = "up"
    """Heard; it has not yet heard every node."""
    ACTIVE = "active"
    """Heard; its membership is settled."""
    DEAD = "dead"
    """Silent for deadtime, or never heard when initdead was over."""
    LEFT = "left"
    """It said goodbye and has not begun anew."""


ALIVE = frozenset({PeerState.INIT, PeerState.UP, PeerState.ACTIVE})


class Sign(enum.StrEnum):
    """What moves a peer from one state to another."""

    SAYS_INIT = "status init"
    SAYS_UP = "status up"
    SAYS_ACTIVE = "status active"
    HEARD = "other message"
    BEGUN = "new generation"
    GOODBYE = "shutdone"
    SILENCE = "deadtime over"
    INITDEAD = "initdead over"


def _transitions() -> dict[tuple[PeerState, Sign], PeerState]:
    table = {(state, Sign.BEGUN): PeerState.INIT for state in PeerState}
    for state in PeerState:
        if state is not PeerState.LEFT:  # a goodbye holds until a new generation begins
            table[state, Sign.SAYS_INIT] = PeerState.INIT
            table[state, Sign.SAYS_UP] = PeerState.UP
            table[state, Sign.SAYS_ACTIVE] = PeerState.ACTIVE
            table[state, Sign.GOODBYE] = PeerState.LEFT
        if state in ALIVE:
            table[state, Sign.SILENCE] = PeerState.DEAD
    table[PeerState.UNKNOWN, Sign.INITDEAD] = PeerState.DEAD
    table[PeerState.UNKNOWN, Sign.HEARD] = PeerState.INIT
    table[PeerState.DEAD, Sign.HEARD] = PeerState.INIT
    return table


TRANSITIONS: Mapping[tuple[PeerState, Sign], PeerState] = _transitions()
"""(state, sign) -> next state; what is not in the table changes nothing."""


class Reason(enum.StrEnum):
    """Why a datagram had no effect, or not at once."""

    OWN_ECHO = "own_echo"
    """Our own broadcast came back."""
    DUPLICATE = "duplicate"
    """A copy of a message accepted a moment ago (another link, broadcast beside unicast)."""
    AFTER_GOODBYE = "after_goodbye"
    """The peer has left; Heartbeat goes on sending for some seconds."""
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_NODE = "unknown_node"
    """A good signature, but the sender is not in the configuration."""
    NAME_TAKEN = "name_taken"
    """Another machine uses our name, or two machines use the same one."""
    REPLAYED = "replayed"
    """Seen long ago, or before our last start."""
    OLD_GENERATION = "old_generation"
    """Older than a generation of the sender that was heard before."""
    HELD = "held"
    """No loss: it waits until the mark kept on disk against replay covers it, and is accepted then."""
    STALE_FACTS = "stale_facts"
    """Facts that were not made during our present run, or older than those we have."""


EVERYDAY = frozenset({Reason.OWN_ECHO, Reason.DUPLICATE, Reason.AFTER_GOODBYE, Reason.HELD})
"""Nothing is wrong: every message is sent several times on purpose, and marks are written now and then."""


class Mark(msgspec.Struct, frozen=True, order=True):
    """How far a peer was heard: everything up to and including it is refused after our next start.

    Attributes:
        generation: of the peer.
        sequence: in that generation.
    """

    generation: int
    sequence: int


NOTHING_HEARD = Mark(0, 0)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the core is told once.

    Attributes:
        me: our name.
        uuid: our 16 bytes, the same for all our runs.
        generation: of this run. ORDER: higher than every earlier one, and on stable storage already.
        boot_id: of our server.
        peers: the other configured nodes.
        links: the names of the links.
        timings: keepalive, warntime, deadtime, initdead.
        config_hash: told to the peers; a difference is shown.
        marks: how far each peer was heard in earlier runs, from disk.
    """

    me: str
    uuid: bytes
    generation: int
    boot_id: str
    peers: tuple[str, ...]
    links: tuple[str, ...]
    timings: HeartbeatTimings
    config_hash: str
    marks: Mapping[str, Mark]


# --- events -----------------------------------------------------------------------------------------------------------


class MessageReceived(msgspec.Struct, frozen=True):
    """A datagram was decoded and its signature is good."""

    link: str
    message: Message
    now_ms: int


class DatagramRefused(msgspec.Struct, frozen=True):
    """A datagram was no good message; `origin` is the address it claims to come from."""

    link: str
    reason: Reason
    origin: str
    now_ms: int


class Tick(msgspec.Struct, frozen=True):
    """Time has passed: due when the last `NextTick` said, harmless at any other moment."""

    now_ms: int


class LinkChanged(msgspec.Struct, frozen=True):
    """Our own end of a link lost or regained its carrier (or vanished, or came)."""

    link: str
    up: bool
    now_ms: int


class Publish(msgspec.Struct, frozen=True):
    """Our own facts are new: a JSON object as text. `runs`: some service is here, or may be."""

    facts: str
    now_ms: int
    runs: bool = False


class Hold(msgspec.Struct, frozen=True):
    """What the node daemon says of the services here, for a peer that is an original Heartbeat."""

    told: Told
    now_ms: int


class Leave(msgspec.Struct, frozen=True):
    """Say goodbye, then be silent (but go on judging the others)."""

    now_ms: int


class Join(msgspec.Struct, frozen=True):
    """Begin anew after a goodbye.

    ORDER: `generation` is higher than every earlier one of ours and is on stable storage already.
    """

    generation: int
    now_ms: int


class Suspect(msgspec.Struct, frozen=True):
    """Something outside (a reset connection) makes a peer doubtful: probe it now. No verdict follows from this."""

    peer: str
    now_ms: int


class Persisted(msgspec.Struct, frozen=True):
    """The marks of a `Persist` are on stable storage."""

    marks: Mapping[str, Mark]
    now_ms: int


Event = (
    MessageReceived | DatagramRefused | Tick | LinkChanged | Publish | Hold | Leave | Join | Suspect | Persisted
)  # fmt: skip


# --- effects (unordered) ----------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Sign a message and send it on every link that is up.

    The sender adds what a pure core cannot know: ts (time), ld (load) and ttl.

    Attributes:
        message: numbered already.
        to: by unicast to each of these peers.
        broadcast: by broadcast, too.
    """

    message: Message
    to: tuple[str, ...]
    broadcast: bool


class PeerChanged(msgspec.Struct, frozen=True):
    """Something that others can see of a peer has changed (its state or anything else but its facts)."""

    peer: str
    before: PeerState
    state: PeerState


class FactsReceived(msgspec.Struct, frozen=True):
    """A peer has published new facts."""

    peer: str
    number: int


class SelfChanged(msgspec.Struct, frozen=True):
    """Our own state, a link of ours, or the end of initdead."""


class Persist(msgspec.Struct, frozen=True):
    """Replace the marks on disk by these, then report `Persisted`.

    ORDER: a message above the marks already on disk is accepted by the step that handles `Persisted`, not before; so
    marks are raised in blocks ahead of need. Of several outstanding ones only the newest has to be written.
    """

    marks: Mapping[str, Mark]


class Dropped(msgspec.Struct, frozen=True):
    """A datagram had no effect; it is counted already. `sender` is the name or address it claims."""

    reason: Reason
    sender: str
    link: str


class Paused(msgspec.Struct, frozen=True):
    """Our own process did not run for so long that it lost heartbeats of its own."""

    for_ms: int


class SaidGoodbye(msgspec.Struct, frozen=True):
    """Every goodbye is sent: the process may end."""


class NextTick(msgspec.Struct, frozen=True):
    """The next `Tick` is due at this time; replaces the one before."""

    at_ms: int


Effect = (
    Send | PeerChanged | FactsReceived | SelfChanged | Persist | Dropped | Paused | SaidGoodbye | NextTick
)  # fmt: skip
