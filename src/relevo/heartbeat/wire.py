"""Heartbeat 3's messages as bytes and back; pure.

A message is an ordered list of fields. A datagram holds exactly one, in one of two forms, signed with a key of the
`authkeys` file. The netstring form is read and written, the classic form only read. The formats were taken from
recorded traffic of Heartbeat 3.0.6 and are written down in docs/internals/heartbeat.md.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import re
import zlib
from collections.abc import Callable, Mapping

import msgspec

from relevo.base.errors import RelevoError
from relevo.config.model import AuthKey

MAX_DATAGRAM_BYTES = 65_507
"""The largest payload of a UDP datagram over IPv4."""
MAX_FIELDS = 64
MAX_NAME_BYTES = 64
MAX_NUMBER_DIGITS = 16
"""Numbers are hexadecimal and at most 64 bits wide."""
MAX_LENGTH_DIGITS = 5

_START = b"###\n"
_END = b"%%%\n"
_CLASSIC_START = b">>>\n"
_CLASSIC_END = b"<<<\n"
_TRAILER = re.compile(rb"([1-9]\d{0,4}):((\d{1,5}) ([0-9a-f]{1,128})),", re.ASCII)
_CLASSIC_AUTH = re.compile(rb"auth=(\d{1,5}) ([0-9a-f]{1,128})\n", re.ASCII)
_NUMBER = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,16}", re.ASCII)
_STRING, _BINARY = b"(0)", b"(1)"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class WireError(RelevoError):
    """A datagram is not a good message, or a message cannot be written."""


class Truncated(WireError):
    """The datagram ends before its message does."""


class Malformed(WireError):
    """The datagram breaks the format."""


class TooLarge(WireError):
    """More bytes or fields than one datagram may have."""


class UnknownKey(WireError):
    """The message names a key that is not in the authkeys file."""


class BadSignature(WireError):
    """The signature does not belong to the message and the key it names."""


class MissingField(WireError):
    """A field that this message must have is not there."""


class BadNumber(WireError):
    """A field that must be a number is not one."""


Value = str | bytes


class Message(msgspec.Struct, frozen=True):
    """One message: fields in the order in which they stand on the wire, each name once.

    A `str` is a string field (bytes that are not UTF-8 are kept as surrogate escapes), `bytes` a binary one.
    """

    fields: tuple[tuple[str, Value], ...]

    def text(self, name: str) -> str | None:
        """The value of a string field; None if there is none."""
        for key, value in self.fields:
            if key == name:
                return value if isinstance(value, str) else None
        return None

    def printable(self, name: str) -> str:
        """The value of a string field as it can be shown and written as JSON; empty if there is none."""
        return (self.text(name) or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def binary(self, name: str) -> bytes | None:
        """The value of a binary field; None if there is none."""
        for key, value in self.fields:
            if key == name:
                return value if isinstance(value, bytes) else None
        return None

    def required(self, name: str) -> str:
        """The value of a string field that must be there.

        Raises:
            MissingField: it is not.
        """
        value = self.text(name)
        if value is None:
            raise MissingField(f"The message has no field {name!r}.")
        return value

    def number(self, name: str) -> int:
        """The value of a hexadecimal field that must be there.

        Raises:
            MissingField: it is not.
            BadNumber: it is no number of at most `MAX_NUMBER_DIGITS` digits.
        """
        return _read_number(name, self.required(name), _NUMBER, 16)

    def decimal(self, name: str) -> int:
        """The value of a decimal field that must be there (firstseq and lastseq of NS_rexmit are decimal).

        Raises:
            MissingField: it is not.
            BadNumber: it is no number.
        """
        return _read_number(name, self.required(name), _DECIMAL, 10)


def _read_number(name: str, text: str, pattern: re.Pattern[str], base: int) -> int:
    if pattern.fullmatch(text) is None:
        raise BadNumber(f"The field {name!r} holds {text[:MAX_NAME_BYTES]!r}, which is not a number.")
    return int(text, base)


def cksum(data: bytes) -> int:
    """CRC-32 as Heartbeat's `crc` signs: polynomial 0x04C11DB7, highest bit first, start 0, complement at the end.

    This is cksum(1) without the length appended. zlib computes the mirrored CRC, so the bits are turned round before
    and after; a start value of all ones makes its inner register begin at 0.
    """
    mirrored = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF)
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def signature(key: AuthKey, covered: bytes) -> str:
    """The lower-case hexadecimal signature of bytes: HMAC for the hashes, `cksum` without padding for crc."""
    if key.method == "crc":
        return f"{cksum(covered):x}"
    return hmac.digest(key.secret.encode(), covered, key.method).hex()


def encode(message: Message, key: AuthKey) -> bytes:
    """A message as a signed datagram in the netstring form.

    Raises:
        TooLarge: it does not fit into one datagram.
        Malformed: a name or a value cannot be written.
    """
    if len(message.fields) > MAX_FIELDS:
        raise TooLarge(f"A message with {len(message.fields)} fields cannot be sent; {MAX_FIELDS} are allowed.")
    parts = [_START]
    names: set[str] = set()
    for name, value in message.fields:
        if name in names:
            raise Malformed(f"The field {name!r} stands twice in a message.")
        names.add(name)
        item = _field_bytes(name, value)
        parts.append(b"%d:%b," % (len(item), item))
    parts.append(_END)
    covered = b"".join(parts)
    trailer = f"{key.number} {signature(key, covered)}".encode()
    datagram = b"%b%d:%b," % (covered, len(trailer), trailer)
    if len(datagram) > MAX_DATAGRAM_BYTES:
        raise TooLarge(f"A message of {len(datagram)} bytes cannot be sent; {MAX_DATAGRAM_BYTES} fit into a datagram.")
    return datagram


def _field_bytes(name: str, value: Value) -> bytes:
    try:
        label = name.encode("ascii")
        _check_name(label)
        if isinstance(value, bytes):
            return b"%b%b=%b" % (_BINARY, label, value)
        return b"%b%b=%b" % (_STRING, label, value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise Malformed(f"The field {name!r} cannot be written ({error.reason}).") from error


def _check_name(label: bytes) -> None:
    if not 0 < len(label) <= MAX_NAME_BYTES or b"=" in label or b"\n" in label or label.startswith(b"("):
        raise Malformed(f"{label[:MAX_NAME_BYTES]!r} cannot be the name of a field.")


def verify(number: int, given: bytes, covered: bytes, accepted: Mapping[int, AuthKey]) -> None:
    """Check a signature.

    Args:
        number: the key's, as the message says.
        given: the signature, hexadecimal.
        covered: the bytes that it covers.
        accepted: the keys that verify, by number.

    Raises:
        UnknownKey: none has this number.
        BadSignature: it does not fit.
    """
    key = accepted.get(number)
    if key is None:
        raise UnknownKey(
            f"A message is signed with key {number}, which is not in the authkeys file.",
            "The authkeys files of the nodes must be equal.",
        )
    if not hmac.compare_digest(signature(key, covered).encode(), given):
        raise BadSignature(
            f"The signature by key {number} ({key.method}) does not fit its message.",
            "The authkeys files of the nodes must be equal.",
        )


Check = Callable[[int, bytes, bytes, Mapping[int, AuthKey]], None]


def decode(datagram: bytes, accepted: Mapping[int, AuthKey], check: Check = verify) -> Message:
    """The message of a datagram, its signature checked first.

    Args:
        datagram: as received.
        accepted: the keys that verify, by number.
        check: looks at the signature; for whoever only watches, and shows what is not signed well, too.

    Raises:
        WireError: one of its subclasses; nothing else is ever raised.
    """
    if len(datagram) > MAX_DATAGRAM_BYTES:
        raise TooLarge(f"A datagram of {len(datagram)} bytes is larger than UDP can carry.")
    if datagram.startswith(_START):
        return _decode_netstring(datagram, accepted, check)
    if datagram.startswith(_CLASSIC_START):
        return _decode_classic(datagram, accepted, check)
    if _START.startswith(datagram) or _CLASSIC_START.startswith(datagram):
        raise Truncated("The datagram ends within its first mark.")
    raise Malformed("The datagram does not begin as a heartbeat.")


def _decode_netstring(datagram: bytes, accepted: Mapping[int, AuthKey], check: Check) -> Message:
    end = datagram.rfind(_END)  # the trailer cannot hold this mark, a binary field could
    if end < 0:
        raise Truncated("The datagram has no end mark.")
    covered, trailer = datagram[: end + len(_END)], datagram[end + len(_END) :]
    match = _TRAILER.fullmatch(trailer)
    if match is None or int(match[1]) != len(match[2]):
        length, _, rest = trailer.partition(b":")
        if not length or (length.isdigit() and len(rest) <= int(length[:MAX_LENGTH_DIGITS])):
            raise Truncated("The datagram ends within its signature.")
        raise Malformed("The datagram has no well-formed signature after its end mark.")
    check(int(match[3]), match[4], covered, accepted)
    return Message(tuple(_unique(_netstrings(covered[len(_START) : end]))))


def _unique(fields: list[tuple[str, Value]]) -> list[tuple[str, Value]]:
    if len(fields) > MAX_FIELDS:
        raise TooLarge(f"A message has more than {MAX_FIELDS} fields.")
    if len({name for name, _ in fields}) != len(fields):
        raise Malformed("A field stands twice in a message.")
    return fields


def _netstrings(body: bytes) -> list[tuple[str, Value]]:
    fields: list[tuple[str, Value]] = []
    position = 0
    while position < len(body):
        colon = body.find(b":", position, position + MAX_LENGTH_DIGITS + 1)
        digits = body[position:colon] if colon >= 0 else b""
        if not digits.isdigit() or digits.startswith(b"0"):
            raise Malformed("A field does not begin with its length.")
        end = colon + 1 + int(digits)
        if body[end : end + 1] != b",":
            raise Malformed("A field is not as long as it says.")
        fields.append(_field(body[colon + 1 : end]))
        position = end + 1
        if len(fields) > MAX_FIELDS:
            break
    return fields


def _field(item: bytes) -> tuple[str, Value]:
    kind, (label, equals, value) = item[:3], item[3:].partition(b"=")
    if not equals or kind not in (_STRING, _BINARY):
        raise Malformed("A field has no name or is of an unknown type.")
    name = _name(label)
    return name, (value if kind == _BINARY else value.decode("utf-8", "surrogateescape"))


@functools.lru_cache(256)  # the same few names in every datagram
def _name(label: bytes) -> str:
    _check_name(label)
    try:
        return label.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("The name of a field is not ASCII.") from error


def _decode_classic(datagram: bytes, accepted: Mapping[int, AuthKey], check: Check) -> Message:
    body = datagram.removesuffix(b"\0")
    if not body.endswith(b"\n" + _CLASSIC_END):
        raise Truncated("The datagram has no end mark.")
    body = body[len(_CLASSIC_START) : -len(_CLASSIC_END)]
    start = body.rfind(b"\nauth=") + 1
    match = _CLASSIC_AUTH.fullmatch(body[start:])
    if match is None:
        raise Malformed("The datagram has no well-formed signature before its end mark.")
    covered = body[:start]
    check(int(match[1]), match[2], covered, accepted)
    return Message(tuple(_unique([_classic_field(line) for line in covered.split(b"\n")[:-1]])))


def _classic_field(line: bytes) -> tuple[str, Value]:
    label, equals, value = line.partition(b"=")
    if not equals:
        raise Malformed("A line has no name.")
    if not label.startswith(_BINARY):
        return _name(label), value.decode("utf-8", "surrogateescape")
    try:
        return _name(label.removeprefix(_BINARY)), base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise Malformed("A binary field is not base64.") from error
