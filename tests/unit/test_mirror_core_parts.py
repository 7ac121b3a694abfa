"""The small parts of the core: order of ranges, the activity log's policy, both sides' epochs."""

from __future__ import annotations

import dataclasses
import random

import pytest

from relevo.mirror.activity_log import MAX_UPDATES, ActivityLog
from relevo.mirror.epochs import ReceivedEpochs, TransferLog
from relevo.mirror.packets import ProtocolError
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import Write


def test_ranges_that_do_not_overlap_do_not_wait() -> None:
    order = RangeOrder()
    assert order.enter(Ranged(0, 4096))
    assert order.enter(Ranged(4096, 8192))


def test_overlapping_ranges_run_first_come_first_served() -> None:
    order = RangeOrder()
    first, second, third = Ranged(0, 1 << 20), Ranged(4096, 8192), Ranged(0, 12288)
    assert order.enter(first)
    assert not order.enter(second)
    assert not order.enter(third)
    assert order.leave(first) == [second]
    assert order.leave(second) == [third]
    assert order.leave(third) == []
    assert not order


def test_no_two_overlapping_ranges_ever_run_together_and_all_run() -> None:
    rng = random.Random(1)
    order, running, waiting = RangeOrder(), [], set()
    for _ in range(3000):
        if running and rng.random() < 0.5:
            gone = running.pop(rng.randrange(len(running)))
            for entry in order.leave(gone):
                waiting.remove(entry)
                running.append(entry)
        else:
            offset = rng.randrange(64) * 65536
            entry = Ranged(offset, offset + rng.choice((4096, 131072, 1 << 20)))
            if order.enter(entry):
                running.append(entry)
            else:
                waiting.add(entry)
        for i, one in enumerate(running):
            assert not any(one.offset < two.end and two.offset < one.end for two in running[:i])
    while running:
        running += order.leave(running.pop(0))
    assert not order


@dataclasses.dataclass
class FakeWrite:
    extent_first: int
    extent_last: int
    in_log: bool = False


def _write(first: int, last: int | None = None) -> FakeWrite:
    return FakeWrite(first, first if last is None else last)


def _enter(log: ActivityLog, write: FakeWrite) -> None:
    assert not log.enter(write)
    step = log.advance()
    assert step is not None
    assert step.transaction is not None
    assert log.committed() == [write]


def test_a_hot_extent_needs_no_transaction() -> None:
    log = ActivityLog(7, 41)
    _enter(log, _write(3))
    assert log.enter(_write(3))
    assert log.extents() == {3}


def test_the_least_recently_used_extent_goes_and_referenced_ones_stay() -> None:
    log = ActivityLog(7, 0)
    writes = [_write(extent) for extent in range(7)]
    for write in writes:
        _enter(log, write)
    for index in (4, 2, 5):
        log.leave(writes[index])
    assert not log.enter(_write(9))
    step = log.advance()
    assert step is not None
    assert step.evicted == [4]
    assert step.transaction is not None
    assert step.transaction.updates == ((4, 9),)
    assert step.transaction.context == (0, 1, 2, 3, 9, 5, 6)


def test_while_all_extents_are_referenced_even_hot_ones_wait() -> None:
    log = ActivityLog(7, 0)
    writes = [_write(extent) for extent in range(7)]
    for write in writes:
        _enter(log, write)
    stuck = _write(9)
    assert not log.enter(stuck)
    assert log.advance() is None
    assert log.starving
    hot = _write(0)
    assert not log.enter(hot), "or the references would never end"
    log.leave(writes[6])
    step = log.advance()
    assert step is not None
    assert step.ready == [hot]
    assert log.committed() == [stuck]


def test_one_transaction_takes_as_many_changes_as_fit() -> None:
    log = ActivityLog(200, 0)
    for extent in range(100):
        log.enter(_write(extent))
    step = log.advance()
    assert step is not None
    assert step.transaction is not None
    assert len(step.transaction.updates) == MAX_UPDATES
    assert log.advance() is None, "one at a time"
    assert len(log.committed()) == MAX_UPDATES
    assert log.advance() is not None


def test_every_slot_is_repeated_within_a_few_transactions() -> None:
    log = ActivityLog(1237, 0)
    seen: set[int] = set()
    for extent in range(3):
        log.enter(_write(extent))
        step = log.advance()
        assert step is not None
        assert step.transaction is not None
        seen.update(
            range(step.transaction.context_start, step.transaction.context_start + len(step.transaction.context))
        )
        log.committed()
    assert seen == set(range(1237))


class Owner:
    def write_done(self, write: Write, errno: int) -> None:
        raise NotImplementedError

    flush_done = read_done = write_done


def test_epochs_are_acknowledged_in_order_and_whole() -> None:
    log = TransferLog()
    assert log.close(0) is None
    writes = [Write(Owner(), None, 4096 * n, 4096, None) for n in range(3)]
    log.add(writes[0])
    log.add(writes[1])
    first = log.close(0)
    log.add(writes[2])
    second = log.close(0)
    assert first is not None
    assert second is not None
    with pytest.raises(ProtocolError):
        log.acknowledge(second.number, 1)
    with pytest.raises(ProtocolError):
        log.acknowledge(first.number, 1)
    writes[0].remote = True
    with pytest.raises(ProtocolError):
        log.acknowledge(first.number, 2)
    writes[0].remote = False
    assert log.acknowledge(first.number, 2) is first
    assert log.acknowledge(second.number, 1) is second
    assert not log


def test_received_epochs_are_ready_in_order() -> None:
    epochs = ReceivedEpochs()
    assert not epochs.close(1)
    one = epochs.join()
    assert epochs.close(1)
    two = epochs.join()
    assert epochs.close(2)
    two.pending -= 1
    assert epochs.written() == 0
    one.pending -= 1
    assert epochs.written() == 2
    assert [epoch.number for epoch in epochs.take(2)] == [1, 2]
