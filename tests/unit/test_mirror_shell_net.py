"""The mirror's sockets: finding each other, streams that stall, the greeting, the control socket."""

from __future__ import annotations

import itertools
import json
import pathlib
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.device.buffers import Buffer, BufferPool
from relevo.mirror import packets as p
from relevo.mirror import wire
from relevo.mirror.auth import Authentication, WrongSecret
from relevo.mirror.connector import Connector
from relevo.mirror.control import Client, ControlEndpoint
from relevo.mirror.greeting import OUR_FEATURES, Done, Greeting, OutOfTurn, VersionsApart
from relevo.mirror.loop import Loop, now_ms
from relevo.mirror.sockets import Stream

LIMIT_MS = 10_000
ONE, TWO = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def turn(loop: Loop, until: Callable[[], bool]) -> None:
    """Serve until something is so."""
    end = now_ms() + LIMIT_MS
    while not until():
        assert now_ms() < end, "it did not come about"
        loop.round(50)


# ---------------------------------------------------------------- loop


def test_timers_and_the_alarm_come_in_order_and_can_be_taken_back(loop: Loop) -> None:
    calls: list[str] = []
    loop.call_in(20, lambda: calls.append("second"))
    loop.call_in(5, lambda: calls.append("first"))
    loop.call_in(10, lambda: calls.append("never")).cancel()
    loop.on_alarm(lambda: calls.append("alarm"))
    loop.set_alarm(now_ms() + 500_000)
    loop.set_alarm(now_ms() + 40)
    turn(loop, lambda: "alarm" in calls)
    assert calls == ["first", "second", "alarm"]


# ---------------------------------------------------------------- connector


class End:
    """One side of a search."""

    def __init__(self, loop: Loop, me: tuple[str, int], peer: tuple[str, int]) -> None:
        self.pairs: list[tuple[socket.socket, socket.socket, bool]] = []
        self.knocks = 0
        self.connector = Connector(loop, me, peer, 60, lambda *pair: self.pairs.append(pair), self._knocked)

    def _knocked(self) -> None:
        self.knocks += 1

    def close(self) -> None:
        self.connector.stop()
        for data, meta, _ in self.pairs:
            data.close()
            meta.close()


def port() -> int:
    with socket.socket() as probe:
        probe.bind((ONE, 0))
        found: int = probe.getsockname()[1]
        return found


def test_a_wake_up_that_was_meant_for_another_socket_drops_none(loop: Loop) -> None:
    """A descriptor that was closed and given anew within a round is told of what happened on the old one."""
    end = End(loop, (ONE, port()), (TWO, port()))
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    end.connector._hold(p.Command.INITIAL_DATA, ours, accepted=False)
    end.connector._held_readable(p.Command.INITIAL_DATA, ours)
    assert end.connector._held[p.Command.INITIAL_DATA][0] is ours
    theirs.close()
    turn(loop, lambda: not end.connector._held)
    assert ours.fileno() < 0
    end.close()


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[End, End]]:
    number = port()
    one, two = (ONE, number), (TWO, number)
    made = End(loop, one, two), End(loop, two, one)
    yield made
    for end in made:
        end.close()


def met(loop: Loop, one: End, two: End) -> None:
    """Both have a pair, the sockets of the two pairs belong together, and one side breaks ties."""
    turn(loop, lambda: bool(one.pairs and two.pairs))
    (data1, meta1, tie1), (data2, meta2, tie2) = one.pairs[-1], two.pairs[-1]
    assert data1.getsockname() == data2.getpeername()
    assert meta1.getsockname() == meta2.getpeername()
    assert tie1 is not tie2


def test_one_waits_and_the_other_comes(loop: Loop, ends: tuple[End, End]) -> None:
    one, two = ends
    one.connector.search()
    loop.round(10)
    two.connector.search()
    met(loop, one, two)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_connect_at_the_same_moment(loop: Loop, ends: tuple[End, End], order: tuple[int, int]) -> None:
    for end in ends:
        end.connector.listen()
    for index in order:
        ends[index].connector.search()
    met(loop, *ends)


def test_a_knock_on_a_link_that_is_up_is_told(loop: Loop, ends: tuple[End, End]) -> None:
    one, two = ends
    one.connector.search()
    two.connector.search()
    met(loop, one, two)
    one.connector.listen()
    two.connector.search()
    turn(loop, lambda: one.knocks > 0)
    assert len(one.pairs) == 1


def test_noise_and_strangers_are_turned_away(loop: Loop, ends: tuple[End, End]) -> None:
    one, _ = ends
    one.connector.search()
    address = one.connector._me
    with socket.create_connection(address, source_address=(TWO, 0)) as noise:
        noise.sendall(b"GET / HTTP/1.0\r\n\r\n")
        noise.settimeout(0)
        gone = []

        def closed() -> bool:
            try:
                gone.append(noise.recv(10))
            except BlockingIOError:
                return False
            except ConnectionError:
                gone.append(b"")
            return bool(gone)

        turn(loop, closed)
    assert gone == [b""]
    assert not one.pairs
    assert one.knocks == 0


# ---------------------------------------------------------------- streams


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((ONE, 0)) as server:
        one = socket.create_connection(server.getsockname())
        two, _ = server.accept()
    one.settimeout(0)
    two.settimeout(0)
    return one, two


class Collector:
    """Keeps what a stream hands over; buffers go back when told."""

    def __init__(self) -> None:
        self.got: list[tuple[p.Packet, bytes]] = []
        self.held: list[Buffer] = []
        self.failures: list[str] = []

    def take(self, packet: p.Packet, buffer: Buffer | None) -> None:
        self.got.append((packet, b"" if buffer is None else bytes(buffer.view)))
        if buffer is not None:
            self.held.append(buffer)

    def release(self) -> None:
        while self.held:
            self.held.pop().release()


def stream(loop: Loop, sock: socket.socket, pool: BufferPool, who: Collector) -> Stream:
    made = Stream(loop, sock, wire.DATA_COMMANDS, pool, who.take, who.failures.append)
    made.decoder.header = wire.Header.H100
    made.start()
    return made


def test_payloads_arrive_whole_although_the_pool_is_small(loop: Loop) -> None:
    rng = random.Random(1)
    one, two = tcp_pair()
    sent, received = Collector(), Collector()
    small = BufferPool(4 << 20)
    sender, receiver = stream(loop, one, BufferPool(64 << 20), sent), stream(loop, two, small, received)
    payloads = [rng.randbytes(rng.choice([0, 4096, 65536, 1 << 20])) for _ in range(40)]
    source = BufferPool(64 << 20)
    for number, payload in enumerate(payloads):
        if payload:
            buffer = source.take(len(payload))
            assert buffer is not None
            buffer.view[:] = payload
            sender.send_with_payload(p.Data(number, number, number, 0, len(payload)), buffer, release=True)
        else:
            sender.send(p.Barrier(number))
    sender.flush()
    stalls = itertools.count()

    def complete() -> bool:
        if receiver.stalled:
            next(stalls)
            received.release()
            receiver.resume()
        return len(received.got) == len(payloads)

    turn(loop, complete)
    assert [payload for _, payload in received.got] == payloads
    assert next(stalls) > 0
    received.release()
    assert all(small.take(1 << 20) is not None for _ in range(4))  # every buffer came back
    receiver.close()
    turn(loop, lambda: bool(sent.failures))
    sender.close()
    assert not received.failures


def test_what_nobody_waits_for_goes_with_the_next_packet_or_alone(loop: Loop) -> None:
    one, two = tcp_pair()
    who = Collector()
    sender, receiver = stream(loop, one, BufferPool(4 << 20), Collector()), stream(loop, two, BufferPool(4 << 20), who)
    sender.send_later(p.Barrier(1))
    sender.flush()
    loop.round(0)
    assert not who.got
    sender.send(p.UnplugRemote())
    sender.send_later(p.Barrier(2))  # behind one that is waited for: it goes along
    sender.flush()
    turn(loop, lambda: len(who.got) == 3)
    sender.send_later(p.Barrier(3))
    sender.send_later(p.Barrier(4))
    turn(loop, lambda: len(who.got) == 5)
    assert [packet for packet, _ in who.got] == [
        *(p.Barrier(1), p.UnplugRemote(), p.Barrier(2)),
        *(p.Barrier(3), p.Barrier(4)),
    ]
    sender.send_later(p.Barrier(5))
    sender.close()
    turn(loop, lambda: bool(who.failures))
    receiver.close()


def test_a_stream_out_of_step_fails_with_a_sentence(loop: Loop) -> None:
    one, two = tcp_pair()
    who = Collector()
    receiver = stream(loop, two, BufferPool(4 << 20), who)
    one.sendall(bytes(64))
    turn(loop, lambda: bool(who.failures))
    assert "no DRBD header" in who.failures[0]
    receiver.close()
    one.close()


# ---------------------------------------------------------------- greeting


def greet(one: Greeting, two: Greeting) -> list[Done]:
    """Let two greetings talk to their end."""
    done: list[Done] = []
    to_one: list[p.Packet] = two.opening()
    to_two: list[p.Packet] = one.opening()
    while to_one or to_two:
        answers = [answer for packet in to_one for answer in one.take(packet)]
        replies = [answer for packet in to_two for answer in two.take(packet)]
        done += [answer for answer in (*answers, *replies) if isinstance(answer, Done)]
        to_one = [answer for answer in replies if not isinstance(answer, Done)]
        to_two = [answer for answer in answers if not isinstance(answer, Done)]
    return done


def greeting(secret: str, seed: int) -> Greeting:
    return Greeting(Authentication(secret, "sha256", random.Random(seed).randbytes(64)))


def test_greetings_end_with_the_features_of_both() -> None:
    assert greet(greeting("s", 1), greeting("s", 2)) == [Done(int(OUR_FEATURES))] * 2


def test_a_wrong_secret_ends_the_greeting() -> None:
    with pytest.raises(WrongSecret):
        greet(greeting("s", 1), greeting("t", 2))


@pytest.mark.parametrize(("low", "high", "error"), [(86, 100, VersionsApart), (118, 124, VersionsApart)])
def test_a_peer_of_another_time_is_refused(low: int, high: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        greeting("s", 1).take(p.ConnectionFeatures(low, 15, high))


def test_the_kernels_and_drbd_9s_versions_are_taken() -> None:
    for low, high in ((86, 101), (86, 124), (101, 0)):
        assert greeting("s", 1).take(p.ConnectionFeatures(low, 15, high))


@pytest.mark.parametrize(
    "packet",
    [p.AuthResponse(bytes(32)), p.Uuids(0, 0, 0, 0, 0, 0), p.AuthChallenge(bytes(64)), p.Data(0, 0, 0, 0, 512)],
)
def test_nothing_else_comes_before_the_features(packet: p.Packet) -> None:
    with pytest.raises(OutOfTurn):
        greeting("s", 1).take(packet)


# ---------------------------------------------------------------- control


class NotNow(RelevoError):
    """A refusal."""


def requests(client: Client, name: str, arguments: Message) -> None:
    if name == "watch":
        client.watching = True
        client.tell({"state": 1})
    elif name == "echo":
        client.answer(arguments)
    else:
        raise NotNow("Not now.", "Later.")


@pytest.fixture
def endpoint(loop: Loop, tmp_path: pathlib.Path) -> Iterator[ControlEndpoint]:
    made = ControlEndpoint(loop, tmp_path / "run" / "x.sock", requests)
    yield made
    made.close()


def connected(endpoint: ControlEndpoint) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(endpoint._path))
    sock.settimeout(0)
    return sock


def lines(loop: Loop, sock: socket.socket, count: int) -> list[Message]:
    got = bytearray()

    def enough() -> bool:
        try:
            got.extend(sock.recv(65536))
        except BlockingIOError:
            return False
        return got.count(b"\n") >= count

    turn(loop, enough)
    return [json.loads(line) for line in got.splitlines()]


def test_requests_are_answered_or_refused(loop: Loop, endpoint: ControlEndpoint) -> None:
    with connected(endpoint) as sock:
        sock.sendall(b'{"do":"echo","x":1}\n{"do":"nothing"}\nnoise\n')
        answers = lines(loop, sock, 3)
    assert answers[0] == {"ok": True, "x": 1}
    assert answers[1] == {"ok": False, "error": "NotNow", "what": "Not now.", "remedy": "Later."}
    assert answers[2]["ok"] is False


def test_a_watcher_is_told_what_is_new_only(loop: Loop, endpoint: ControlEndpoint) -> None:
    with connected(endpoint) as sock:
        sock.sendall(b'{"do":"watch"}\n')
        assert lines(loop, sock, 1) == [{"ok": True, "state": 1}]
        endpoint.tell_watchers(lambda: {"state": 1})
        endpoint.tell_watchers(lambda: {"state": 2})
        assert lines(loop, sock, 1) == [{"ok": True, "state": 2}]
    turn(loop, lambda: not endpoint.clients)


def test_a_watcher_that_does_not_read_is_dropped(loop: Loop, endpoint: ControlEndpoint) -> None:
    with connected(endpoint) as sock:
        sock.sendall(b'{"do":"watch"}\n')
        turn(loop, lambda: any(client.watching for client in endpoint.clients))
        for number in range(100):
            endpoint.tell_watchers(lambda number=number: {"state": number, "long": "x" * 50_000})  # type: ignore[misc]
        assert not endpoint.clients
