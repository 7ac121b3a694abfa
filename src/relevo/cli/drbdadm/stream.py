"""`relevo mirror events`: every change of a mirror as one JSON object on a line of its own.

The process of each mirror tells its whole state whenever something in it changes; `Differences` makes events of what is
different. How far a run is, and the counters, change all the time: they are told once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import pathlib
import select
import signal
import sys
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from relevo.base.control import DaemonUnreachable, Message, Refused, acall, awatch
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.outcome import ALL, resolve
from relevo.config.model import MirrorSite

SAMPLE_S = 1.0
"""How often progress and counters are looked at."""
RETRY_S = 0.2
"""How often a mirror that is not up is tried."""
STATES = ("role", "peer_role", "connection", "disk", "peer_disk", "suspended", "split_brain", "problem", "device")
"""What makes a `change` of its own."""
SIZES = ("size_bytes", "out_of_sync_bytes")
RUNS = ("resync", "verify")
"""What has a progress."""
RESULTS = {"last_verify": "verified", "last_handler": "handler"}
"""Outcome in the status -> name of the event that tells it."""


def register(app: typer.Typer) -> None:
    """Add the verb to `relevo mirror`."""
    app.command("events")(events)


def events(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[all|RESOURCE…]", help="Which mirrors.")] = None,
    *,
    now: Annotated[bool, typer.Option("--now", help="Print the present state and end.")] = False,
    statistics: Annotated[bool, typer.Option("--statistics", help="Counters too, at most once a second.")] = False,
) -> None:
    """Print the state of the mirrors and then every change, one JSON object on a line each."""
    context = of(ctx)
    sites = resolve(context, names or [ALL])
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_run(context, sites, once=now, statistics=statistics))
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has no reader


async def _run(context: Context, sites: list[MirrorSite], *, once: bool, statistics: bool) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    follow = _once if once else _follow
    told = [(site, Differences(site.mirror.name, statistics=statistics)) for site in sites]
    tasks = [asyncio.create_task(follow(context, site, differences)) for site, differences in told]
    if not once:
        tasks.append(asyncio.create_task(_reader_gone()))
    everything = asyncio.create_task(_all(tasks))
    ended = asyncio.create_task(stopped.wait())
    await asyncio.wait([ended, everything], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if everything.done():
        everything.result()
    everything.cancel()
    await asyncio.gather(everything, return_exceptions=True)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    """Until the last has ended, or one has failed; none is left behind."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _reader_gone() -> None:
    """End when nobody reads any more, even if nothing happens that could be written."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    with contextlib.suppress(OSError):  # a file or a terminal has no such thing
        poller = select.epoll()
        poller.register(sys.stdout.fileno(), 0)  # errors and hang-ups only
        loop.add_reader(poller.fileno(), gone.set)
    await gone.wait()
    raise BrokenPipeError


async def _once(context: Context, site: MirrorSite, told: Differences) -> None:
    try:
        _print(told.status(await acall(_socket(context, site), "status")))
    except DaemonUnreachable:
        _print(told.gone())


async def _follow(context: Context, site: MirrorSite, told: Differences) -> None:
    while True:
        sampler = asyncio.create_task(_sample(context, site, told))
        try:
            async for status in awatch(_socket(context, site)):
                _print(told.status(status))
        except (DaemonUnreachable, Refused):
            pass  # its process has ended: that is told below, and it is looked for again
        finally:
            sampler.cancel()
            await asyncio.gather(sampler, return_exceptions=True)
        _print(told.gone())
        await asyncio.sleep(RETRY_S)


async def _sample(context: Context, site: MirrorSite, told: Differences) -> None:
    while True:
        await asyncio.sleep(SAMPLE_S)
        if told.wants_samples:
            with contextlib.suppress(DaemonUnreachable, Refused):
                _print(told.sample(await acall(_socket(context, site), "status")))


def _socket(context: Context, site: MirrorSite) -> pathlib.Path:
    return context.paths.socket(f"mirror-{site.mirror.name}")


def _print(found: Iterator[Message]) -> None:
    wrote = False
    for event in found:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        wrote = True
    if wrote:
        sys.stdout.flush()


class Differences:
    """What is new in each state of one mirror.

    Args:
        mirror: its name.
        statistics: tell the counters too.
    """

    def __init__(self, mirror: str, *, statistics: bool = False) -> None:
        self._name = mirror
        self._statistics = statistics
        self._last: Message | None = None
        self._up: bool | None = None
        self._counters: Message = {}

    @property
    def wants_samples(self) -> bool:
        """Whether something may change that nobody tells."""
        last = self._last
        return last is not None and (self._statistics or any(last.get(run) for run in RUNS))

    def status(self, status: Message) -> Iterator[Message]:
        """A whole state came: the first is told as it is, of the others what is different."""
        last, self._last = self._last, status
        if last is None:
            self._up = True
            yield self._event(
                "exists", **{key: status.get(key) for key in (*STATES, "size_bytes", "out_of_sync_bytes")}
            )
            last = {}
        else:
            for key in STATES:
                if status.get(key) != last.get(key):
                    yield self._event("change", what=key, old=last.get(key), new=status.get(key))
        for run in RUNS:
            yield from self._run(run, last.get(run), status.get(run), status)
        for key, name in RESULTS.items():
            if status.get(key) and status.get(key) != last.get(key):
                yield self._event(name, **status[key])
        if last == {}:
            yield from self._counted(status)

    def _run(self, run: str, before: Message | None, now: Message | None, status: Message) -> Iterator[Message]:
        if now and not before:
            yield self._event(f"{run}-started", total_bytes=now["total_bytes"])
        elif before and not now:
            yield self._event(f"{run}-ended", out_of_sync_bytes=status.get("out_of_sync_bytes"))

    def sample(self, status: Message) -> Iterator[Message]:
        """Progress and counters, when it is time for them."""
        for run in RUNS:
            if status.get(run):
                yield self._event("progress", what=run, **status[run])
        yield from self._counted(status)

    def _counted(self, status: Message) -> Iterator[Message]:
        counters = {**(status.get("counters") or {}), "out_of_sync_bytes": status.get("out_of_sync_bytes")}
        if self._statistics and counters != self._counters:
            self._counters = counters
            yield self._event("statistics", **counters)

    def gone(self) -> Iterator[Message]:
        """The mirror's process does not answer."""
        self._last = None
        self._counters = {}
        if self._up is not False:
            self._up = False
            yield self._event("unconfigured")

    def _event(self, event: str, **fields: object) -> Message:
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        return {"time": time, "mirror": self._name, "event": event, **fields}
