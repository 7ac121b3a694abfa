"""What an application of the mirror may see: a model of every block, as a set of writes that may be the last.

- An acknowledged write hides every write that had ended before it was issued.
- While a copy with everything acknowledged is left, nothing acknowledged may be lost. When the last such copy loses its
  power, writes that no flush covered may be lost; those a flush covered may not.
- A write that was never acknowledged may be there or not.
"""

from __future__ import annotations

import dataclasses


class DataLost(AssertionError):
    """A read found something that cannot be."""


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """One write to one block. Times count the client's events."""

    value: int
    issued: int
    ended: int | None = None
    acknowledged: bool = False
    flushed: bool = False


class Model:
    """All blocks that were ever written."""

    def __init__(self) -> None:
        self.clock = 0
        self.blocks: dict[int, list[Record]] = {}
        self._open: set[int] = set()

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def issue(self, block: int, value: int) -> Record:
        records = self.blocks.setdefault(block, [Record(0, 0, 0, acknowledged=True, flushed=True)])
        record = Record(value, self.tick())
        records.append(record)
        return record

    def acknowledge(self, record: Record) -> None:
        record.ended = self.tick()
        record.acknowledged = True

    def unflushed(self) -> list[Record]:
        """What a flush that is issued now will cover."""
        return [r for records in self.blocks.values() for r in records if r.acknowledged and not r.flushed]

    def flushed(self, covered: list[Record]) -> None:
        for record in covered:
            if record.acknowledged:
                record.flushed = True
        for block, records in self.blocks.items():
            self.blocks[block] = self._visible(records, flushed_only=True)

    def device_gone(self) -> None:
        """Called when a new device appears: what was under way on an earlier one has ended, one way or the other."""
        now = self.tick()
        for records in self.blocks.values():
            for record in records:
                if record.ended is None:
                    record.ended = now

    def all_copies_lost_power(self) -> None:
        """No copy with everything acknowledged is left."""
        for records in self.blocks.values():
            for record in records:
                if not record.flushed:
                    record.acknowledged = False

    @staticmethod
    def _visible(records: list[Record], *, flushed_only: bool) -> list[Record]:
        bound = max((r.issued for r in records if (r.flushed if flushed_only else r.acknowledged)), default=-1)
        return [r for r in records if r.ended is None or r.ended >= bound]

    def allowed(self, block: int) -> set[int]:
        """The values that a read may find."""
        if block not in self.blocks:
            return {0}
        return {record.value for record in self._visible(self.blocks[block], flushed_only=False)}

    def check(self, block: int, value: int, allowed: set[int], where: str) -> None:
        if value not in allowed:
            raise DataLost(f"{where}: block {block} holds {value}, expected one of {sorted(allowed)}")
