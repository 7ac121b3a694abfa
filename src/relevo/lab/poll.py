"""A client that asks for one address again and again, and writes down each answer: the ruler for service gaps.

Run inside a lab as `python -m relevo.lab.poll URL`. Polls are independent: one starts every interval whatever became of
the others, each has its own connection and time limit. Each finished poll is a JSON line on standard output:
`{"sent": s, "done": s, "good": bool, "why": text}`, times by CLOCK_MONOTONIC, which all namespaces of a host share.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import pathlib
import sys
import time
import urllib.parse

import msgspec

INTERVAL_MS = 50
LIMIT_MS = 1000
MAX_ANSWER_BYTES = 1 << 20


class Poll(msgspec.Struct, frozen=True):
    """One question and what became of it; times in seconds of CLOCK_MONOTONIC."""

    sent: float
    done: float
    good: bool
    why: str


async def _ask(host: str, port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read(MAX_ANSWER_BYTES)
    finally:
        writer.transport.abort()
    status = answer.split(b"\r\n", 1)[0].split(b" ")
    return status[1].decode() if len(status) > 1 else "no answer"


async def _poll(host: str, port: int, path: str, limit_ms: int) -> None:
    sent = time.monotonic()
    try:
        async with asyncio.timeout(limit_ms / 1000):
            why = await _ask(host, port, path)
    except TimeoutError:
        why = "time limit"
    except OSError as error:
        why = type(error).__name__
    poll = Poll(sent, time.monotonic(), why == "200", why)
    sys.stdout.buffer.write(msgspec.json.encode(poll) + b"\n")
    sys.stdout.buffer.flush()


async def poll_for_ever(url: str, interval_ms: int = INTERVAL_MS, limit_ms: int = LIMIT_MS) -> None:
    """Start a poll every `interval_ms`, each limited to `limit_ms`, until cancelled."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    running: set[asyncio.Task[None]] = set()
    following = time.monotonic()
    while True:
        task = asyncio.create_task(_poll(parts.hostname, parts.port or 80, parts.path or "/", limit_ms))
        running.add(task)
        task.add_done_callback(running.discard)
        following += interval_ms / 1000
        await asyncio.sleep(max(0.0, following - time.monotonic()))


def read_polls(log: pathlib.Path) -> list[Poll]:
    """The polls of a log, in the order of their answers; a last line that was cut off is left out."""
    lines = log.read_bytes().splitlines(keepends=True)
    return sorted(
        (msgspec.json.decode(line, type=Poll) for line in lines if line.endswith(b"\n")), key=lambda poll: poll.done
    )


def longest_gap_s(polls: list[Poll], start: float, end: float) -> float:
    """The longest time between two neighbouring good answers of which the later came between `start` and `end`.

    When no good answer came after the last one before `end`, the time until `end` counts too.

    Args:
        polls: in the order of their answers.
        start: seconds of CLOCK_MONOTONIC.
        end: seconds of CLOCK_MONOTONIC.
    """
    good = [poll.done for poll in polls if poll.good and poll.done <= end]
    before = max((at for at in good if at < start), default=start)
    moments = [before, *(at for at in good if at >= start)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    return max([*gaps, end - moments[-1]])


def main() -> None:
    """Read the arguments and poll until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--interval-ms", type=int, default=INTERVAL_MS)
    parser.add_argument("--limit-ms", type=int, default=LIMIT_MS)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(poll_for_ever(arguments.url, arguments.interval_ms, arguments.limit_ms))


if __name__ == "__main__":
    main()
