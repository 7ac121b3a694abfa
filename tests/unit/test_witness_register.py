"""What a witness keeps: first come first served, leases, and nothing done twice or late."""

from __future__ import annotations

import msgspec
import pytest

from relevo.arbiter.desk import (
    MAGIC,
    BadDatagram,
    Desk,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from relevo.arbiter.register import Answer, Book, Hold, Operation, Read, Register, Release, Swap

A, B = "A000000000000000", "B000000000000000"
LEASE_MS = 3000
KEYS = {"office": "one long secret"}


def swap(version: int, *nodes: str, generation: str = A, epoch: int = 1, force: bool = False) -> Swap:
    return Swap(
        mirror="r0",
        version=version,
        generation=generation,
        in_sync=nodes,
        epoch=epoch,
        services=("web",),
        lease_ms=LEASE_MS,
        force=force,
    )


@pytest.fixture
def register() -> Register:
    """Both have everything."""
    made = Register(Book(), 0)
    assert made.do("nodo1", swap(0, "nodo1", "nodo2"), 0).ok
    return made


def test_of_two_that_ask_to_be_alone_the_first_wins(register: Register) -> None:
    assert register.do("nodo2", swap(1, "nodo2"), 10).ok
    late = register.do("nodo1", swap(1, "nodo1"), 11)
    assert not late.ok
    assert late.entry is not None
    assert late.entry.in_sync == ("nodo2",)


def test_who_is_not_in_sync_cannot_write_itself_in(register: Register) -> None:
    register.do("nodo1", swap(1, "nodo1"), 0)
    assert not register.do("nodo2", swap(2, "nodo2"), LEASE_MS * 9).ok
    assert not register.do("nodo2", swap(2, "nodo1", "nodo2"), 0).ok
    assert register.do("nodo1", swap(2, "nodo1", "nodo2"), 0).ok


def test_a_person_may_pass_over_that(register: Register) -> None:
    register.do("nodo1", swap(1, "nodo1"), 0)
    answer = register.do("nodo2", swap(2, "nodo2", force=True), 1)
    assert answer.entry is not None
    assert answer.entry.in_sync == ("nodo2",)


def test_a_node_cannot_ask_for_another(register: Register) -> None:
    assert not register.do("nodo2", swap(1, "nodo1"), 0).ok


def test_nobody_is_left_out_under_a_lower_epoch(register: Register) -> None:
    assert register.do("nodo1", swap(1, "nodo1", epoch=7), 0).ok
    assert register.do("nodo1", swap(2, "nodo1", "nodo2", generation=B, epoch=0), 0).ok, "this leaves nobody out"
    assert not register.do("nodo1", swap(3, "nodo1", epoch=6), 0).ok
    answer = register.do("nodo1", swap(3, "nodo1", epoch=7), 0)
    assert answer.entry is not None
    assert answer.entry.epoch == 7


def test_a_leader_is_left_out_only_when_its_lease_is_over(register: Register) -> None:
    assert register.do("nodo1", Hold(service="web", lease_ms=LEASE_MS), 1000).ok
    waits = register.do("nodo2", swap(1, "nodo2"), 1000)
    early = register.do("nodo2", swap(1, "nodo2"), 1000 + LEASE_MS - 1)
    assert early.why == waits.why, "a sentence that counts down would be an event in the history each time"
    assert (early.ok, early.leader, early.left_ms) == (False, "nodo1", 1)
    assert register.do("nodo2", swap(1, "nodo2"), 1000 + LEASE_MS).ok
    assert not register.do("nodo1", Hold(service="web", lease_ms=LEASE_MS), 1000 + LEASE_MS + 1).ok


def test_a_leader_itself_waits_for_nothing(register: Register) -> None:
    register.do("nodo1", Hold(service="web", lease_ms=LEASE_MS), 0)
    assert register.do("nodo1", swap(1, "nodo1"), 1).ok


def test_a_lease_that_is_given_back_is_over(register: Register) -> None:
    register.do("nodo1", Hold(service="web", lease_ms=LEASE_MS), 0)
    register.do("nodo2", Release(service="web"), 1)
    assert not register.do("nodo2", swap(1, "nodo2"), 1).ok
    register.do("nodo1", Release(service="web"), 1)
    assert register.do("nodo2", swap(1, "nodo2"), 1).ok


def test_after_a_restart_nobody_else_leads_for_one_lease(register: Register) -> None:
    register.do("nodo1", Hold(service="web", lease_ms=LEASE_MS), 0)
    stored = msgspec.json.decode(msgspec.json.encode(register.book), type=Book)
    again = Register(stored, 900_000)
    assert not again.do("nodo2", swap(1, "nodo2"), 900_000 + LEASE_MS - 1).ok
    assert again.do("nodo1", Hold(service="web", lease_ms=LEASE_MS), 900_001).ok
    assert not again.changed
    assert again.do("nodo2", swap(1, "nodo2"), 900_001 + LEASE_MS).ok


def request(desk_session: str, number: int, nonce: str, *operations: Operation, node: str = "nodo1") -> Request:
    return Request(cluster="office", node=node, session=desk_session, number=number, nonce=nonce, operations=operations)


READ = Read(mirror="r0")


def test_who_does_not_know_the_session_is_told() -> None:
    desk = Desk(Book(), "s1", 0)
    told = desk.serve(request("", 1, "a", READ), 0)
    assert told == Reply(nonce="a", session="s1", number=0, answers=())
    assert desk.serve(request("s1", 1, "b", READ), 0).answers == (Answer(ok=True),)


def test_a_repeated_request_is_done_once_and_answered_again() -> None:
    desk = Desk(Book(), "s1", 0)
    first = desk.serve(request("s1", 1, "a", swap(0, "nodo1")), 0)
    assert desk.serve(request("s1", 1, "a", swap(0, "nodo1")), 0) == first
    assert desk.register.book.mirrors["r0"].version == 1


def test_a_request_that_was_overtaken_is_not_carried_out() -> None:
    desk = Desk(Book(), "s1", 0)
    desk.serve(request("s1", 1, "a", swap(0, "nodo1", "nodo2")), 0)
    desk.serve(request("s1", 3, "c", READ), 0)
    late = desk.serve(request("s1", 2, "b", swap(1, "nodo1")), 0)
    assert (late.answers, late.number) == ((), 3)
    assert desk.register.book.mirrors["r0"].version == 1


def test_a_request_of_an_earlier_life_of_the_witness_is_not_carried_out() -> None:
    desk = Desk(Book(), "s2", 0)
    assert desk.serve(request("s1", 9, "a", swap(0, "nodo1")), 0).answers == ()
    assert not desk.register.changed


def test_datagrams_are_signed_both_ways() -> None:
    asked = request("s1", 1, "a", READ, swap(3, "nodo1"), Hold(service="web", lease_ms=1), Release(service="web"))
    sent = encode_request(asked, KEYS["office"])
    assert decode_request(sent, KEYS) == asked
    reply = Reply(nonce="a", session="s1", number=1, answers=(Answer(ok=True),))
    assert decode_reply(encode_reply(reply, KEYS["office"]), KEYS["office"]) == reply
    with pytest.raises(BadDatagram, match="signed with another key"):
        decode_reply(sent, KEYS["office"])
    with pytest.raises(BadDatagram, match="signed with another key"):
        decode_request(encode_request(asked, "another"), KEYS)
    with pytest.raises(BadDatagram, match="no cluster 'office'"):
        decode_request(sent, {"lab": "x"})


UNSIGNED = MAGIC + bytes(32)


@pytest.mark.parametrize(
    "datagram",
    [
        *(b"", MAGIC, b"GET / HTTP/1.0", MAGIC + bytes(200), MAGIC + bytes(100_000), UNSIGNED + b"{"),
        UNSIGNED + b'{"cluster":"\xff"}',
        UNSIGNED + b'{"x":' + b"[" * 4000,
    ],
)
def test_what_is_no_request_is_refused(datagram: bytes) -> None:
    with pytest.raises(BadDatagram):
        decode_request(datagram, KEYS)


def test_every_changed_byte_is_noticed() -> None:
    sent = encode_request(request("s1", 1, "a", READ), KEYS["office"])
    for place in range(len(sent)):
        forged = sent[:place] + bytes([sent[place] ^ 1]) + sent[place + 1 :]
        with pytest.raises(BadDatagram):
            decode_request(forged, KEYS)
