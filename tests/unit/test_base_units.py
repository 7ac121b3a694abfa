"""Quantities with units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.base.units import BadUnit, format_bytes, format_duration_ms, parse_duration_ms, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("500 ms", 500), ("3 s", 3000), ("3s", 3000), (" 1.5 s ", 1500), ("2 min", 120_000), ("1 h", 3_600_000),
     ("1 d", 86_400_000), ("0 ms", 0)],
)  # fmt: skip
def test_durations(text: str, expected_ms: int) -> None:
    assert parse_duration_ms(text) == expected_ms


@pytest.mark.parametrize(
    ("text", "expected_bytes"),
    [("512 MiB", 512 << 20), ("2 GB", 2 * 10**9), ("1.5 KiB", 1536), ("7 B", 7), ("1TiB", 1 << 40), ("3 kB", 3000)],
)
def test_sizes(text: str, expected_bytes: int) -> None:
    assert parse_size_bytes(text) == expected_bytes


@pytest.mark.parametrize("text", ["", "500", "ms", "-1 s", "1 sec", "1 S", "1 MiB", "1,5 s", "1 s 2", "١ s", "1e3 s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadUnit, match="is not a duration") as caught:
        parse_duration_ms(text)
    assert "500 ms" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "512", "512 mib", "1 s", "-1 B", "nan B"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(BadUnit, match="is not a size"):
        parse_size_bytes(text)


@given(st.integers(0, 10**15))
def test_whole_numbers_are_exact(number: int) -> None:
    assert parse_size_bytes(f"{number} B") == number
    assert parse_duration_ms(f"{number} ms") == number


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 << 10, "1.5 MiB"), (5 << 40, "5.0 TiB"),
     (5000 << 40, "5000.0 TiB"), ((1 << 20) - 1, "1.0 MiB"), ((1 << 30) - 1, "1.0 GiB")],
)  # fmt: skip
def test_sizes_for_people(count: int, expected: str) -> None:
    assert format_bytes(count) == expected


@pytest.mark.parametrize(
    ("duration_ms", "expected"),
    [(0, "0 ms"), (250, "250 ms"), (2400, "2.4 s"), (59_940, "59.9 s"), (59_990, "1 min 0 s"), (200_000, "3 min 20 s")],
)
def test_durations_for_people(duration_ms: int, expected: str) -> None:
    assert format_duration_ms(duration_ms) == expected


@given(st.integers(1, 59_000))
def test_short_durations_can_be_read_back(duration_ms: int) -> None:
    assert abs(parse_duration_ms(format_duration_ms(duration_ms)) - duration_ms) <= 50
