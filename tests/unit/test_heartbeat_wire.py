"""The message format: recorded traffic of the original, round trips, and damaged datagrams."""

from __future__ import annotations

import base64
import pathlib
import subprocess
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_support import CAPTURES, CRC, KEYS, SHA1, datagrams
from relevo.config.model import AuthKey
from relevo.heartbeat import wire
from relevo.heartbeat.wire import Message

SHA256 = AuthKey(number=3, method="sha256", secret="clave")
MD5 = AuthKey(number=4, method="md5", secret="clave")
ALL = {**KEYS, 3: SHA256, 4: MD5}

names = st.text(st.sampled_from("abcdefgXYZ0189_-. "), min_size=1, max_size=20)
values = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
)
messages = st.lists(st.tuples(names, values), max_size=20, unique_by=lambda field: field[0]).map(
    lambda fields: Message(tuple(fields))
)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_recorded_traffic_is_read_verified_and_written_back_byte_for_byte(path: pathlib.Path) -> None:
    types: Counter[str] = Counter()
    for datagram in set(datagrams(path)):
        message = wire.decode(datagram, KEYS)
        key = CRC if "crc" in path.name else SHA1
        assert wire.encode(message, key) == datagram
        types[message.required("t")] += 1
    assert types["status"] > 50
    assert types["NS_ackmsg"] > 5


def classic_text(message: wire.Message) -> bytes:
    """The fields before `auth` as the classic form writes them: what its signature (and the inner one) covers."""
    lines = []
    for name, value in message.fields:
        if name == "auth":
            break
        text = base64.b64encode(value) if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        lines.append(b"%b%b=%b\n" % (b"(1)" if isinstance(value, bytes) else b"", name.encode("ascii"), text))
    return b"".join(lines)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_the_inner_signature_covers_the_classic_text(path: pathlib.Path) -> None:
    checked = 0
    for datagram in set(datagrams(path)):
        message = wire.decode(datagram, KEYS)
        number, given_signature = message.required("auth").split(" ")
        assert wire.signature(KEYS[int(number)], classic_text(message)) == given_signature
        checked += 1
    assert checked > 50


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_recorded_messages_are_understood_in_the_classic_form(path: pathlib.Path) -> None:
    message = wire.decode(next(datagrams(path)), KEYS)
    datagram = b">>>\n" + classic_text(message) + f"auth={message.required('auth')}\n".encode() + b"<<<\n\0"
    assert wire.decode(datagram, KEYS).fields == message.fields[:-1]
    with pytest.raises(wire.BadSignature):
        wire.decode(datagram.replace(b"src=nodo", b"src=otro"), KEYS)
    with pytest.raises(wire.Truncated):
        wire.decode(datagram[:-20], KEYS)


def test_the_numbers_of_a_recorded_status() -> None:
    first = next(datagrams(next(path for path in CAPTURES if "crc-start" in path.name)))
    message = wire.decode(first, KEYS)
    assert message.required("t") == "status"
    assert message.number("hg") == 0x6B03945A
    assert message.number("dt") == 4000
    uuid = message.binary("srcuuid")
    assert uuid is not None
    assert len(uuid) == 16
    assert message.text("srcuuid") is None
    with pytest.raises(wire.MissingField):
        message.number("none")
    with pytest.raises(wire.BadNumber):
        message.number("st")


def test_crc_is_cksum_without_the_length(tmp_path: pathlib.Path) -> None:
    # cksum(1) appends the length in as many bytes as it needs, lowest first: five bytes give one more byte, 5
    path = tmp_path / "five"
    path.write_bytes(b"abcde")
    printed = subprocess.run(["cksum", str(path)], capture_output=True, text=True, check=True).stdout
    assert wire.cksum(b"abcde\x05") == int(printed.split()[0])


@given(messages, st.sampled_from([CRC, SHA1, SHA256, MD5]))
def test_what_is_written_is_read_again(message: Message, key: AuthKey) -> None:
    datagram = wire.encode(message, key)
    assert wire.decode(datagram, ALL) == message
    assert wire.encode(wire.decode(datagram, ALL), key) == datagram


@given(messages, st.data())
def test_a_changed_byte_is_always_noticed(message: Message, data: st.DataObject) -> None:
    datagram = bytearray(wire.encode(message, SHA256))
    position = data.draw(st.integers(0, len(datagram) - 1))
    datagram[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(wire.WireError):
        wire.decode(bytes(datagram), ALL)


@given(messages, st.sampled_from([CRC, SHA1]), st.data())
def test_a_shortened_datagram_is_always_noticed(message: Message, key: AuthKey, data: st.DataObject) -> None:
    datagram = wire.encode(message, key)
    with pytest.raises(wire.WireError):
        wire.decode(datagram[: data.draw(st.integers(0, len(datagram) - 1))], ALL)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"###\n", b">>>\n"]), st.sampled_from([b"", b"%%%\n", b"<<<\n\0"])
)
def test_noise_raises_only_the_typed_error(noise: bytes, start: bytes, end: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(start + noise + end, ALL)


@given(st.binary(max_size=300))
def test_a_signed_but_malformed_body_raises_only_the_typed_error(body: bytes) -> None:
    covered = b"###\n" + body + b"%%%\n"
    trailer = f"1 {wire.signature(CRC, covered)}".encode()
    try:
        message = wire.decode(b"%b%d:%b," % (covered, len(trailer), trailer), ALL)
    except wire.WireError:
        return
    assert wire.encode(message, CRC).startswith(covered)


@given(st.lists(st.tuples(names, st.binary(max_size=60)), max_size=5))
def test_a_signed_classic_body_raises_only_the_typed_error(pairs: list[tuple[str, bytes]]) -> None:
    body = b"".join(b"%b=%b\n" % (name.encode(), value) for name, value in pairs)
    datagram = b">>>\n%bauth=1 %b\n<<<\n" % (body, wire.signature(CRC, body).encode())
    try:
        message = wire.decode(datagram, ALL)
    except wire.WireError:
        return
    assert all(name != "auth" or "\n" not in str(value) for name, value in message.fields)


def test_each_error_has_its_name() -> None:
    message = Message((("t", "status"), ("bin", base64.b64decode("AAEC"))))
    good = wire.encode(message, SHA1)
    with pytest.raises(wire.UnknownKey):
        wire.decode(good, {1: CRC})
    with pytest.raises(wire.BadSignature):
        wire.decode(good, {2: AuthKey(number=2, method="sha1", secret="other")})
    with pytest.raises(wire.BadSignature):
        wire.decode(good, {2: AuthKey(number=2, method="sha256", secret="HI!")})
    with pytest.raises(wire.Truncated):
        wire.decode(good[:-3], KEYS)
    with pytest.raises(wire.Truncated):
        wire.decode(good[:20], KEYS)
    with pytest.raises(wire.Truncated):
        wire.decode(b"##", KEYS)
    with pytest.raises(wire.Malformed):
        wire.decode(b"hello", KEYS)
    with pytest.raises(wire.Malformed):
        wire.decode(good + b"x", KEYS)
    with pytest.raises(wire.TooLarge):
        wire.decode(bytes(wire.MAX_DATAGRAM_BYTES + 1), KEYS)


@pytest.mark.parametrize(
    "fields",
    [
        (("", "empty name"),),
        (("a=b", "x"),),
        (("a\nb", "x"),),
        (("(1)a", "x"),),
        (("ñ", "x"),),
        (("a", "x"), ("a", "y")),
        (("a", "\ud800"),),
    ],
)
def test_what_cannot_be_written_is_refused(fields: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(wire.Malformed):
        wire.encode(Message(fields), CRC)


def test_limits_of_what_is_written() -> None:
    with pytest.raises(wire.TooLarge):
        wire.encode(Message((("a", "x" * wire.MAX_DATAGRAM_BYTES),)), CRC)
    with pytest.raises(wire.TooLarge):
        wire.encode(Message(tuple((f"f{number}", "") for number in range(wire.MAX_FIELDS + 1))), CRC)
