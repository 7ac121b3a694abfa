"""Our own messages: composed, numbered, and kept for a while in case somebody asks for one again. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from relevo.heartbeat.events import Send
from relevo.heartbeat.wire import Message, Value

MAX_FACTS_BYTES = 60 * 1024
"""Facts travel in one datagram, which IP cuts into fragments; this leaves room for the other fields."""
HISTORY_MESSAGES = 64
"""So many of our last messages can be asked for again (NS_rexmit)."""
RESEND_MESSAGES = 16
"""At most so many are sent again for one request."""
RESEND_GAP_MS = 100
"""One message is not sent again more often than this."""

PROTOCOL = "1"
RELEVO = "relevo"
"""Field: 1 on every numbered message of ours; also the type of the message that carries facts."""
HEARD = "relevo_heard"
"""Field: `NAME:GENERATION ` for each peer heard, the newest generation of it that was seen."""
BOOT = "relevo_boot"
CONFIG = "relevo_config"


def heard_generation(message: Message, name: str) -> int | None:
    """The generation of node `name` that the sender had heard when it made this message; None if it does not say."""
    for item in (message.text(HEARD) or "").split():
        node, _, generation = item.rpartition(":")
        if node == name:
            try:
                return int(generation, 16)
            except ValueError:
                return None
    return None


class Outbox:
    """Composes messages of one generation after another.

    Args:
        me: our node name.
        uuid: our 16 bytes.
        boot_id, config_hash: told to the peers in each status.
        generation: of this run.
    """

    def __init__(self, me: str, uuid: bytes, boot_id: str, config_hash: str, generation: int) -> None:
        self._me = me
        self._uuid = uuid
        self._boot_id = boot_id
        self._config_hash = config_hash
        self._history: OrderedDict[int, tuple[Send, int]] = OrderedDict()
        self.generation = generation
        self.sequence = 0

    def begin(self, generation: int) -> None:
        """A new generation: numbers start at 1 again, nothing of the old one is sent any more."""
        assert generation > self.generation
        self.generation = generation
        self.sequence = 0
        self._history.clear()

    def status(self, state: str, deadtime_ms: int, heard: Mapping[str, int], to: tuple[str, ...]) -> Send:
        """The heartbeat."""
        fields = (("t", "status"), ("st", state), ("dt", f"{deadtime_ms:x}"), ("protocol", PROTOCOL))
        own = ((BOOT, self._boot_id), (CONFIG, self._config_hash))
        return self._numbered((*fields, *own), heard, to, broadcast=True)

    def facts(self, text: str, number: int, heard: Mapping[str, int], to: tuple[str, ...]) -> Send:
        """Facts, for peers that understand them."""
        fields = (("t", RELEVO), ("no", f"{number:x}"), (BOOT, self._boot_id), ("facts", text))
        return self._numbered(fields, heard, to, broadcast=False)

    def goodbye(self, heard: Mapping[str, int], to: tuple[str, ...]) -> Send:
        """The last message of a generation."""
        return self._numbered((("t", "shutdone"), ("st", "dead")), heard, to, broadcast=True)

    def node_list_request(self, peer: str, heard: Mapping[str, int]) -> Send:
        """A question that is answered at once."""
        return self._numbered((("t", "reqnodes"), ("dest", peer)), heard, (peer,), broadcast=True)

    def node_list(self, peer: str, names: Iterable[str], heard: Mapping[str, int]) -> Send:
        """The answer to it."""
        listed = "".join(f"{name} " for name in names)
        fields = (("dest", peer), ("t", "repnodes"), ("nodelist", listed), ("delnodelist", " "))
        return self._numbered(fields, heard, (peer,), broadcast=True)

    def say(self, kind: str, fields: tuple[tuple[str, str], ...], peer: str, heard: Mapping[str, int]) -> Send:
        """What the hand-over of resources has to say to an original."""
        return self._numbered((("t", kind), *fields), heard, (peer,), broadcast=True)

    def acknowledgement(self, peer: str, uuid: bytes, sequence: int) -> Send:
        """Tell a peer up to which number we heard everything; not numbered."""
        fields = (("t", "NS_ackmsg"), ("dest", peer), ("ackseq", f"{sequence:x}"), ("destuuid", uuid))
        return Send(Message((*fields, *self._origin(), *self._generation())), (peer,), broadcast=True)

    def question(self, peer: str, uuid: bytes, first: int, last: int) -> Send:
        """Ask a peer for messages of it that are missing; not numbered. These two numbers are decimal."""
        wanted = (("firstseq", f"{first}"), ("lastseq", f"{last}"))
        fields = (("t", "NS_rexmit"), ("dest", peer), *wanted, ("destuuid", uuid))
        return Send(Message((*fields, *self._origin(), *self._generation())), (peer,), broadcast=True)

    def again(self, first: int, last: int, now_ms: int) -> list[Send]:
        """Messages sent before, as far as they are still known; the range is cut to `RESEND_MESSAGES`."""
        sends = []
        for sequence in range(first, min(last, first + RESEND_MESSAGES - 1) + 1):
            send, not_before_ms = self._history.get(sequence, (None, 0))
            if send is not None and now_ms >= not_before_ms:
                self._history[sequence] = (send, now_ms + RESEND_GAP_MS)
                sends.append(send)
        return sends

    def _numbered(
        self, fields: tuple[tuple[str, Value], ...], heard: Mapping[str, int], to: tuple[str, ...], *, broadcast: bool
    ) -> Send:
        self.sequence += 1
        told = "".join(f"{name}:{generation:x} " for name, generation in sorted(heard.items()))
        ours = ((RELEVO, "1"), (HEARD, told), *self._origin(), ("seq", f"{self.sequence:x}"), *self._generation())
        send = Send(Message((*fields, *ours)), to, broadcast)
        self._history[self.sequence] = (send, 0)
        if len(self._history) > HISTORY_MESSAGES:
            self._history.popitem(last=False)
        return send

    def _origin(self) -> tuple[tuple[str, Value], ...]:
        return (("src", self._me), ("srcuuid", self._uuid))

    def _generation(self) -> tuple[tuple[str, Value], ...]:
        return (("hg", f"{self.generation:x}"),)
