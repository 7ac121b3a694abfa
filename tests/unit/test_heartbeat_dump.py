"""Heartbeats for people: recordings of the original, damaged ones, wrong keys, and files that are no recordings."""

from __future__ import annotations

import datetime as dt
import gzip
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from heartbeat_support import CAPTURES, CRC, DATA, KEYS, SHA1, timed_datagrams
from relevo.cli.main import app
from relevo.config.model import AuthKey
from relevo.heartbeat import wire
from relevo.heartbeat.capture import CaptureUnusable, Datagram, datagram_of, recorded
from relevo.heartbeat.dump import Dump, look
from relevo.heartbeat.wire import Message

PORT = 694
EVENTS = DATA / "heartbeat-fast-crc-events.pcap.gz"


def lines(path: pathlib.Path) -> list[str]:
    dump = Dump(KEYS, dt.UTC)
    return [dump.line(datagram) for datagram in recorded(path, PORT)]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_every_recorded_heartbeat_is_shown_and_none_is_refused(path: pathlib.Path) -> None:
    shown = lines(path)
    assert len(shown) == len(list(timed_datagrams(path)))
    assert not [line for line in shown if "no heartbeat" in line or "NOT ACCEPTED" in line]


def test_the_story_of_a_stop_and_a_return() -> None:
    story = "\n".join(line.partition("  ")[2] for line in lines(EVENTS))
    for part in (
        "nodo1 resource       holds nothing, not stable yet, shutdown",
        "nodo1 shutdone       has stopped everything: it is gone in order",
        "nodo2 resource       holds everything, stable, req_our_resources()",
        "nodo1 reqnodes       asks nodo2 for its list of nodes",
        "nodo2 ask_resources  wants to give away foreign resources",
        "nodo1 ask_resources  agrees to take foreign resources",
        "nodo2 ask_resources  has finished handing over foreign resources",
    ):
        assert part in story, part
    order = [story.index(part) for part in ("away foreign", "take foreign", "handing over foreign")]
    assert order == sorted(order)


def test_a_message_that_comes_on_two_ways_is_shown_as_such() -> None:
    first, second = lines(EVENTS)[:2]
    assert first.endswith("#236 of generation 1795396698")
    assert second.endswith("#236 of generation 1795396698, again")
    assert "192.168.0.28 > 192.168.0.255" in first


def test_retransmissions_are_named() -> None:
    assert any("asks nodo1 again for 1044-1044" in line for line in lines(DATA / "heartbeat-fast-sha1-rexmit.pcap.gz"))


def test_a_wrong_key_does_not_hide_the_message() -> None:
    message = Message((("t", "status"), ("st", "active"), ("src", "nodo1")))
    payload = wire.encode(message, SHA1)
    assert look(payload, {2: SHA1}).problem == ""
    assert look(payload, None).problem == ""
    other = AuthKey(number=2, method="sha1", secret="another")
    assert "does not fit" in look(payload, {2: other}).problem
    line = Dump({1: CRC}, dt.UTC).line(Datagram(0, "eth0", "10.0.0.1", "10.0.0.2", payload))
    assert line.startswith("00:00:00.000 eth0 10.0.0.1 > 10.0.0.2  nodo1 status")
    assert "NOT ACCEPTED: A message is signed with key 2" in line


def test_an_unknown_type_shows_its_fields() -> None:
    payload = wire.encode(Message((("t", "news"), ("src", "a"), ("what", "x\x1b[1m"), ("ld", "0.1"))), CRC)
    line = Dump(KEYS, dt.UTC).line(Datagram(0, "", "1.1.1.1", "2.2.2.2", payload))
    assert "a news           what=x" in line
    assert "\x1b" not in line, "nothing in a message reaches the terminal as it is"


@given(st.binary(max_size=400))
def test_nothing_that_comes_from_outside_breaks_it(payload: bytes) -> None:
    for content in (payload, b"###\n" + payload + b"%%%\n"):
        assert "\n" not in Dump(KEYS, dt.UTC).line(Datagram(0, "", "1.1.1.1", "2.2.2.2", content))
    datagram_of(payload, PORT, 0, "eth0")


def test_files_that_are_no_recordings(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    for content, part in (
        (b"", "no pcap"),
        (b"hello, this is no recording at all", "no pcap"),
        (gzip.compress(b"neither"), "no pcap"),
        (gzip.decompress(EVENTS.read_bytes())[:500], "ends in the middle"),
        (b"\xd4\xc3\xb2\xa1" + bytes(16) + b"\x77\x00\x00\x00", "link of type 119"),
    ):
        path.write_bytes(content)
        with pytest.raises(CaptureUnusable, match=part):
            list(recorded(path, PORT))
    with pytest.raises(CaptureUnusable, match="cannot be read"):
        list(recorded(tmp_path / "none", PORT))


def test_the_command() -> None:
    done = CliRunner().invoke(app, ["heartbeat", "dump", "--file", str(EVENTS), "--count", "3"])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) == 3
