"""Where a witness takes requests: each is carried out once, in its sender's order, whatever the network does.

A request names the session of the witness (drawn anew at each start) and a number above the sender's last. One that is
repeated gets the same answer again; one that comes late, or was recorded and sent again by somebody else, is refused.
Whoever does not know session or number is told both, and asks again. Pure: the shell stores, sends and tells the time.

A datagram is `MAGIC`, the HMAC-SHA256 of direction and body under the cluster's key, and the body: one JSON object.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

import msgspec

from relevo.arbiter.register import Answer, Book, Name, Number, Operation, Register
from relevo.base.errors import NOT_JSON, RelevoError

MAGIC = b"RLV1"
MAX_DATAGRAM_BYTES = 8192
MAX_NODES = 16
"""Nodes of one cluster that a witness remembers numbers of."""

_DIGEST_BYTES = hashlib.sha256().digest_size
_TO_WITNESS, _TO_NODE = b">", b"<"
_Word = Annotated[str, msgspec.Meta(max_length=32)]


class BadDatagram(RelevoError):
    """A datagram that is not of the witness's protocol, or is signed with another key."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a node sends.

    Attributes:
        session: the witness's, as it told it last; empty: not known yet.
        number: above the last one of this node in that session.
        nonce: drawn anew for each request; the reply repeats it.
    """

    cluster: Name
    node: Name
    session: _Word
    number: Number
    nonce: _Word
    operations: Annotated[tuple[Operation, ...], msgspec.Meta(max_length=32)]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness sends back.

    Attributes:
        session: its present one.
        number: the last one of the node that asks.
        answers: one for each operation; empty when the request was not carried out because of session or number.
    """

    nonce: _Word
    session: _Word
    number: Number
    answers: tuple[Answer, ...]


_request_decoder = msgspec.json.Decoder(Request)
_reply_decoder = msgspec.json.Decoder(Reply)


def _sign(key: str, direction: bytes, body: bytes) -> bytes:
    return MAGIC + hmac.digest(key.encode(), direction + body, "sha256") + body


def _body(datagram: bytes) -> bytes:
    if len(datagram) > MAX_DATAGRAM_BYTES or not datagram.startswith(MAGIC):
        raise BadDatagram("This is no datagram of a witness.")
    return datagram[len(MAGIC) + _DIGEST_BYTES :]


def _check(datagram: bytes, key: str, direction: bytes, who: str) -> None:
    if not hmac.compare_digest(_sign(key, direction, _body(datagram)), datagram):
        raise BadDatagram(f"What {who} sends is signed with another key.", "Give both the same key.")


def encode_request(request: Request, key: str) -> bytes:
    """As it is sent."""
    return _sign(key, _TO_WITNESS, msgspec.json.encode(request))


def decode_request(datagram: bytes, keys: dict[str, str]) -> Request:
    """What a node asks.

    Args:
        datagram: as received.
        keys: name of a cluster -> its key.

    Raises:
        BadDatagram: it is something else, of an unknown cluster, or not signed with its key.
    """
    try:
        request = _request_decoder.decode(_body(datagram))
    except NOT_JSON as error:  # nothing of it was believed yet
        raise BadDatagram(f"A request cannot be read ({error}).") from error
    if request.cluster not in keys:
        raise BadDatagram(f"There is no cluster {request.cluster!r} here.", "Add it to witness.toml with its key.")
    _check(datagram, keys[request.cluster], _TO_WITNESS, f"{request.node} of cluster {request.cluster}")
    return request


def encode_reply(reply: Reply, key: str) -> bytes:
    """As it is sent."""
    return _sign(key, _TO_NODE, msgspec.json.encode(reply))


def decode_reply(datagram: bytes, key: str) -> Reply:
    """What the witness says.

    Raises:
        BadDatagram: it is something else, or not signed with the key.
    """
    _check(datagram, key, _TO_NODE, "the witness")
    try:
        return _reply_decoder.decode(_body(datagram))
    except NOT_JSON as error:
        raise BadDatagram(f"The witness's reply cannot be read ({error}).", "Is it of the same version?") from error


class Desk:
    """One cluster at a witness.

    Args:
        book: what was on stable storage.
        session: drawn anew at each start of the witness.
        now_ms: the clock of `Register`.
    """

    def __init__(self, book: Book, session: str, now_ms: int) -> None:
        self.register = Register(book, now_ms)
        self._session = session
        self._last: dict[str, tuple[int, Reply]] = {}

    def serve(self, request: Request, now_ms: int) -> Reply:
        """Carry a request out, once. What changed has to be stored before the reply is sent."""
        number, reply = self._last.get(request.node, (0, None))
        if reply is not None and request.nonce == reply.nonce:
            return reply
        if request.session != self._session or request.number <= number or self._is_crowded(request.node):
            return Reply(nonce=request.nonce, session=self._session, number=number, answers=())
        answers = tuple(self.register.do(request.node, operation, now_ms) for operation in request.operations)
        made = Reply(nonce=request.nonce, session=self._session, number=request.number, answers=answers)
        self._last[request.node] = (request.number, made)
        return made

    def _is_crowded(self, node: str) -> bool:
        return node not in self._last and len(self._last) >= MAX_NODES
