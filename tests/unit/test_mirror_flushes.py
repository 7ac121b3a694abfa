"""Flushes: shared, left out when nothing was written, begun early for who always flushes."""

from __future__ import annotations

import errno

from relevo.mirror.flushes import HABIT, Flushes, Then


class Disk:
    """Notes which flushes were begun, and ends them when told."""

    def __init__(self) -> None:
        self.begun: list[Then] = []
        self.answers: list[tuple[str, int]] = []
        self.flushes = Flushes(self.begun.append)

    def ask(self, name: str) -> None:
        self.flushes.ask(lambda number: self.answers.append((name, number)))

    def end(self, number: int = 0) -> None:
        self.begun.pop(0)(number)


def test_a_flush_begins_after_what_was_reported_when_it_was_asked_for() -> None:
    disk = Disk()
    disk.ask("first")
    disk.flushes.written()
    disk.ask("second")
    disk.ask("third")
    assert len(disk.begun) == 1
    disk.end()
    assert disk.answers == [("first", 0)]
    assert len(disk.begun) == 1
    disk.end()
    assert disk.answers == [("first", 0), ("second", 0), ("third", 0)]


def test_who_asks_while_nothing_new_was_written_shares_the_one_under_way() -> None:
    disk = Disk()
    disk.flushes.written()
    disk.ask("first")
    disk.ask("second")
    disk.end()
    assert disk.answers == [("first", 0), ("second", 0)]
    disk.ask("third")
    assert disk.answers[-1] == ("third", 0)
    assert not disk.begun


def test_nothing_is_known_of_the_time_before() -> None:
    disk = Disk()
    disk.ask("first")
    assert len(disk.begun) == 1


def accustom(disk: Disk) -> None:
    for _ in range(HABIT):
        disk.flushes.written()
        disk.ask("habit")
        disk.end()
    disk.answers.clear()


def test_who_always_flushes_finds_the_flush_begun() -> None:
    disk = Disk()
    accustom(disk)
    disk.flushes.written()
    assert len(disk.begun) == 1
    disk.ask("under way")
    assert not disk.answers
    disk.end()
    assert disk.answers == [("under way", 0)]
    disk.flushes.written()
    disk.end()
    disk.ask("done")
    assert disk.answers == [("under way", 0), ("done", 0)]
    assert not disk.begun


def test_the_early_flush_does_not_serve_a_later_write() -> None:
    disk = Disk()
    accustom(disk)
    disk.flushes.written()
    disk.flushes.written()
    disk.ask("both")
    disk.end()
    assert not disk.answers
    disk.end()
    assert disk.answers == [("both", 0)]


def test_a_second_write_without_a_flush_ends_the_habit() -> None:
    disk = Disk()
    accustom(disk)
    disk.flushes.written()
    disk.end()
    disk.flushes.written()
    disk.flushes.written()
    assert not disk.begun
    disk.ask("asked for")
    disk.end()
    disk.flushes.written()
    assert not disk.begun


def test_a_failed_flush_is_told_to_everybody_who_asks_later_even_if_nobody_waited_for_it() -> None:
    disk = Disk()
    accustom(disk)
    disk.flushes.written()
    disk.end(errno.EIO)
    disk.ask("later")
    disk.flushes.written()
    disk.ask("much later")
    assert disk.answers == [("later", errno.EIO), ("much later", errno.EIO)]
    assert not disk.begun


def test_a_failed_flush_fails_those_who_wait_for_the_next() -> None:
    disk = Disk()
    disk.ask("first")
    disk.flushes.written()
    disk.ask("second")
    disk.end(errno.EIO)
    assert disk.answers == [("first", errno.EIO), ("second", errno.EIO)]
    assert not disk.begun
