"""When the mirror's loop looks again instead of sleeping: only where that pays, and never at others' expense."""

from __future__ import annotations

import os
import threading
import time

from relevo.mirror.loop import READ, Loop
from relevo.mirror.spin import CREDIT_MAX, CROWDED_NS, MISS, REST, Spin

LIMIT_NS = 200_000


def busy() -> Spin:
    """One that has seen many short waits."""
    spin = Spin(LIMIT_NS)
    for _ in range(CREDIT_MAX):
        spin.waited(LIMIT_NS // 2)
    return spin


def test_it_begins_with_sleep_and_spins_after_a_short_wait() -> None:
    spin = Spin(LIMIT_NS)
    assert not spin.wanted(0)
    spin.waited(LIMIT_NS)
    assert spin.wanted(0)


def test_long_waits_end_it_soon_and_one_does_not() -> None:
    spin = busy()
    spin.waited(LIMIT_NS + 1)
    assert spin.wanted(0)
    for _ in range(CREDIT_MAX // MISS):
        spin.waited(LIMIT_NS + 1)
    assert not spin.wanted(0)


def test_mostly_long_waits_never_bring_it_back() -> None:
    spin = busy()
    wanted = 0
    for number in range(1000):
        spin.waited(LIMIT_NS // 2 if number % 4 == 0 else 10 * LIMIT_NS)
        wanted += spin.wanted(0)
    assert wanted < 300, "it would spin in vain most of the time"


def test_a_program_that_computes_is_left_alone_for_a_multiple_of_what_it_took() -> None:
    spin = busy()
    assert not spin.crowded(CROWDED_NS - 1, 1000)
    assert spin.wanted(1000)
    assert spin.crowded(3_000_000, 1000)
    assert not spin.wanted(1000 + REST * 3_000_000 - 1)
    assert spin.wanted(1000 + REST * 3_000_000)


def _echo(loop: Loop, rounds: int, pause_s: float) -> tuple[float, int]:
    """Events that come one by one, from another thread; CPU seconds used and events seen here."""
    reading, writing = os.pipe()
    back, answer = os.pipe()
    seen = 0

    def came(_: int) -> None:
        nonlocal seen
        os.read(reading, 1)
        seen += 1
        os.write(answer, b"x")

    def ask() -> None:
        for _ in range(rounds):
            time.sleep(pause_s)
            os.write(writing, b"x")
            os.read(back, 1)

    loop.add(reading, READ, came)
    thread = threading.Thread(target=ask)
    began = time.thread_time()
    thread.start()
    while seen < rounds:
        loop.round(1000)
    thread.join()
    used = time.thread_time() - began
    loop.remove(reading)
    for fd in (reading, writing, back, answer):
        os.close(fd)
    return used, seen


def test_a_loop_that_spins_handles_everything_and_an_idle_one_costs_nothing() -> None:
    loop = Loop(spin_us=250)
    try:
        assert _echo(loop, 500, 0)[1] == 500
        used_s, seen = _echo(loop, 20, 0.02)
    finally:
        loop.close()
    assert seen == 20
    assert used_s < 0.2, "of 0.4 s of waiting for events that come every 20 ms"


def test_timers_are_kept_while_spinning() -> None:
    loop = Loop(spin_us=5000)
    try:
        _echo(loop, 50, 0)
        calls: list[int] = []
        loop.call_in(2, lambda: calls.append(1))
        end = time.monotonic() + 10
        while not calls and time.monotonic() < end:
            loop.round()
    finally:
        loop.close()
    assert calls == [1]
