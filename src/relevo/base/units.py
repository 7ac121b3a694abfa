"""Quantities with units as people write them: `500 ms`, `3 s`, `512 MiB`.

Inside the program a duration is a whole number of milliseconds (`*_ms`; where it says so, microseconds, `*_us`) and a
size a whole number of bytes (`*_bytes`).
"""

from __future__ import annotations

import re

from relevo.base.errors import RelevoError

_DURATIONS_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATIONS_US = {"us": 1, "µs": 1, "ms": 1000}
_SIZES_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZES_BYTES |= {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_QUANTITY = re.compile(r"\s*(\d+)(?:\.(\d+))?\s*([A-Za-zµ]+)\s*", re.ASCII)
_ROUNDS_TO_1024 = 1023.95
_ROUNDS_TO_60_S = 59_950


class BadUnit(RelevoError):
    """A quantity was written without a unit, or with one that does not fit."""


def _parse(text: str, units: dict[str, int], kind: str, example: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[3] not in units:
        raise BadUnit(
            f"{text!r} is not a {kind}.", f"Write a number and one of {', '.join(units)}, such as {example!r}."
        )
    whole, fraction, unit = match[1], match[2] or "", units[match[3]]
    divisor = int("1" + "0" * len(fraction))
    return (int(whole + fraction) * unit + divisor // 2) // divisor


def parse_duration_ms(text: str) -> int:
    """Read a duration such as `500 ms` or `1.5 s`; the result is in milliseconds.

    Raises:
        BadUnit: no unit, or an unknown one.
    """
    return _parse(text, _DURATIONS_MS, "duration", "500 ms")


def parse_duration_us(text: str) -> int:
    """Read a very short duration such as `200 us` or `1 ms`; the result is in microseconds.

    Raises:
        BadUnit: no unit, or an unknown one.
    """
    return _parse(text, _DURATIONS_US, "short duration", "200 us")


def parse_size_bytes(text: str) -> int:
    """Read a size such as `512 MiB` or `2 GB`; the result is in bytes.

    Raises:
        BadUnit: no unit, or an unknown one.
    """
    return _parse(text, _SIZES_BYTES, "size", "512 MiB")


def format_bytes(count: int) -> str:
    """A size for people, in binary units with one decimal: `1.5 MiB`."""
    if count < 1024:
        return f"{count} B"
    value = count / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if value < _ROUNDS_TO_1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_duration_ms(duration_ms: int) -> str:
    """A duration for people: `250 ms`, `2.4 s`, `3 min 20 s`."""
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    if duration_ms < _ROUNDS_TO_60_S:
        return f"{duration_ms / 1000:.1f} s"
    minutes, rest_s = divmod((duration_ms + 500) // 1000, 60)
    return f"{minutes} min {rest_s} s"
