"""`relevo history`: what this server has seen happen, from its file."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
import typer

from relevo.base import units
from relevo.base.errors import RelevoError
from relevo.cli.context import of, print_json
from relevo.node.history import Event, history_path, read_history


class BadSince(RelevoError):
    """`--since` is neither a duration nor a date."""


class NoHistory(RelevoError):
    """There is no file to read."""


def history(
    ctx: typer.Context,
    *,
    since: Annotated[str, typer.Option(help="From when on: 2h, or 2026-01-31, or 2026-01-31T22:00.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON list.")] = False,
) -> None:
    """Print what happened, when, on which server and why, as this server saw it; times are local ones."""
    path = history_path(of(ctx).paths)
    try:
        events = read_history(path)
    except FileNotFoundError:
        raise NoHistory(f"{path} is not there.", "The node daemon of this server makes it: does it run?") from None
    if since:
        begin = begin_of(since, dt.datetime.now().astimezone())
        events = [event for event in events if _when(event) >= begin]
    if as_json:
        print_json([msgspec.to_builtins(event) for event in events])
        return
    for event in events:
        typer.echo(f"{_when(event).astimezone():%Y-%m-%d %H:%M:%S}  {event.node:12}  {event.what}")


def begin_of(since: str, now: dt.datetime) -> dt.datetime:
    """The moment that `--since` names.

    Args:
        since: a duration before now, or a date, or a date and time (local unless it says otherwise).
        now: with its time zone.

    Raises:
        BadSince: it is neither.
    """
    try:
        return now - dt.timedelta(milliseconds=units.parse_duration_ms(since))
    except (units.BadUnit, OverflowError):
        pass
    try:
        begin = dt.datetime.fromisoformat(since)
    except ValueError:
        raise BadSince(
            f"--since {since} is neither a duration nor a date.", "Write 2h, 2026-01-31 or 2026-01-31T22:00."
        ) from None
    return begin if begin.tzinfo is not None else begin.replace(tzinfo=now.tzinfo)


def _when(event: Event) -> dt.datetime:
    try:
        when = dt.datetime.fromisoformat(event.at)
    except ValueError:
        return dt.datetime.fromtimestamp(0, tz=dt.UTC)
    return when if when.tzinfo is not None else when.replace(tzinfo=dt.UTC)
