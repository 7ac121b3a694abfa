"""Disks that grew, shrank, were exchanged, were damaged: found again whatever happened, or refused in a sentence."""

from __future__ import annotations

import os
import pathlib
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_mirror_meta_places import MIB, Disks, crashed

from relevo.base.errors import RelevoError
from relevo.device.backing import open_backing
from relevo.mirror import disk_content, metadata
from relevo.mirror import layout as places
from relevo.mirror.disk_content import DiskContent, carry_out, open_copy
from relevo.mirror.disk_note import DiskNote, WrongDisk
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.relocate import GrowthTooSmall, check_move, move_steps

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def used(tmp_path: pathlib.Path, kind: str, size: int, extents: list[int] | None = None) -> Disks:
    """A copy that was in use, with bits and, when it crashed, active extents."""
    disks = Disks(tmp_path, kind, size, places.SLOT_BYTES)
    layout = crashed(disks, extents, (1, 8)) if extents else disks.create()
    disks.change(size_sectors=layout.data_bytes // 512 // 8 * 8, current=0x5150)
    disks.poke(layout.bitmap, random.Random(1).randbytes(layout.data_bytes // 4096 // 64 * 8))
    return disks


def meaning(content: DiskContent, bits: int | None = None) -> tuple[object, ...]:
    """What an attach would make of a copy, places left out."""
    s = content.superblock
    bitmap = content.bitmap if bits is None else content.bitmap[: bits // 8]
    state = (s.size_sectors, s.current, s.bitmap, s.history0, s.history1, s.flags, s.clean, s.device_uuid)
    return (*state, bytes(bitmap), content.active_extents, content.newest_transaction)


def attach(disks: Disks, note: pathlib.Path | None = None) -> DiskContent:
    copy = open_copy(disks.data, disks.place, note)
    copy.close()
    if note is not None and copy.note is not None:
        copy.note.write(note)
    return copy.content


def grow(path: pathlib.Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)
        os.posix_fallocate(file.fileno(), 0, size)


@pytest.mark.parametrize("extents", [None, [1, 5, 9]])
@pytest.mark.parametrize("to", [64 * MIB + 512, 65 * MIB, 400 * MIB])
def test_a_crash_at_any_step_of_a_move_loses_nothing(
    tmp_path: pathlib.Path, extents: list[int] | None, to: int
) -> None:
    disks = used(tmp_path, "internal", 40 * MIB, extents)
    note = tmp_path / "note"
    before = meaning(attach(disks, note))
    small = disks.data.read_bytes()
    superblock, old = disks.read()
    new = places.layout_for(to)
    steps = list(move_steps(old, new, lambda: superblock))
    assert len(steps) >= 6
    for done in range(len(steps) + 1):
        disks.data.write_bytes(small)
        grow(disks.data, to)
        backing = open_backing(disks.data)
        for step in steps[:done]:
            carry_out(step, backing)
        backing.close()
        content = attach(disks, note)
        assert meaning(content) == before, done
        assert content.layout == new
        assert DiskNote.read(note) == DiskNote(superblock.device_uuid, to)
        assert meaning(attach(disks)) == before  # now without help
        DiskNote(superblock.device_uuid, 40 * MIB).write(note)


def test_drbdmeta_agrees_with_the_new_place(tmp_path: pathlib.Path) -> None:
    disks = used(tmp_path, "internal", 40 * MIB)
    note = tmp_path / "note"
    attach(disks, note)
    grow(disks.data, 1 << 30)
    content = attach(disks, note)
    dump = disks.drbdmeta("dump-md")
    assert f"# md_offset {content.layout.superblock}" in dump
    assert f"la-size-sect {content.superblock.size_sectors};" in dump


def test_a_disk_that_grew_too_little_is_used_as_before(tmp_path: pathlib.Path) -> None:
    disks = used(tmp_path, "internal", 40 * MIB)
    note = tmp_path / "note"
    before = attach(disks, note)
    grow(disks.data, 40 * MIB + 8192)
    after = attach(disks, note)
    assert (meaning(after), after.layout) == (meaning(before), before.layout)
    with pytest.raises(GrowthTooSmall):
        check_move(before.layout, places.layout_for(40 * MIB + 8192))
    grow(disks.data, 41 * MIB)
    assert meaning(attach(disks, note)) == meaning(before)


def test_a_flexible_disk_that_grew_holds_a_larger_bitmap(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "flexible", 40 * MIB, 36 * 1024 + 4096)
    disks.create()
    disks.change(size_sectors=40 * MIB // 512, current=0x5150)
    before = attach(disks)
    grow(disks.data, 300 * MIB)
    grow(disks.meta, MIB)
    after = attach(disks)
    assert meaning(after) == meaning(before)
    assert after.layout.data_bytes == 300 * MIB
    assert f"la-size-sect {40 * MIB // 512};" in disks.drbdmeta("dump-md")


def test_without_a_note_a_grown_disk_is_refused(tmp_path: pathlib.Path) -> None:
    disks = used(tmp_path, "internal", 40 * MIB)
    grow(disks.data, 80 * MIB)
    with pytest.raises(metadata.NoMetadata):
        attach(disks)
    with pytest.raises(metadata.NoMetadata):
        attach(disks, tmp_path / "nothing")


def test_a_smaller_disk_is_refused(tmp_path: pathlib.Path) -> None:
    disks = used(tmp_path, "internal", 40 * MIB)
    note = tmp_path / "note"
    attach(disks, note)
    with disks.data.open("r+b") as file:
        file.truncate(30 * MIB)
    with pytest.raises(places.DiskTooSmall) as caught:
        attach(disks, note)
    assert "it had 40.0 MiB" in caught.value.what
    with pytest.raises(metadata.NoMetadata):
        attach(disks)


@pytest.mark.parametrize("kind", ["external", "flexible"])
def test_a_smaller_data_disk_with_external_meta_data_is_refused(tmp_path: pathlib.Path, kind: str) -> None:
    disks = used(tmp_path, kind, 40 * MIB)
    with disks.data.open("r+b") as file:
        file.truncate(30 * MIB)
    with pytest.raises(places.DiskTooSmall) as caught:
        attach(disks)
    assert "smaller one" in caught.value.remedy


def test_the_disk_of_another_mirror_is_refused_and_a_new_one_taken(tmp_path: pathlib.Path) -> None:
    disks = used(tmp_path, "internal", 40 * MIB)
    note = tmp_path / "note"
    attach(disks, note)
    other = used(tmp_path, "internal", 40 * MIB)
    with pytest.raises(WrongDisk) as caught:
        attach(other, note)
    assert str(note) in caught.value.remedy
    fresh = Disks(tmp_path, "internal", 50 * MIB)
    fresh.create()
    attach(fresh, note)
    assert DiskNote.read(note) == DiskNote(fresh.read()[0].device_uuid, 50 * MIB)


@pytest.mark.parametrize("text", ["", "x y", "12", "12 13 14", "\udcff"])
def test_an_unreadable_note_is_none(tmp_path: pathlib.Path, text: str) -> None:
    note = tmp_path / "note"
    note.write_text(text, errors="surrogateescape")
    assert DiskNote.read(note) is None
    disks = used(tmp_path, "internal", 40 * MIB)
    attach(disks, note)
    assert DiskNote.read(note) is not None


@pytest.mark.parametrize("kind", ["internal", "external", "flexible"])
def test_read_errors_are_told_with_their_place(
    tmp_path: pathlib.Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = used(tmp_path, kind, 40 * MIB, [3])
    _, layout = disks.read()
    plain = os.preadv
    for bad in (layout.superblock, layout.activity_log, layout.bitmap):

        def failing(fd: int, views: list[memoryview], offset: int, bad: int = bad) -> int:
            if offset <= bad < offset + len(views[0]) and os.path.realpath(f"/proc/self/fd/{fd}") == str(disks.holder):
                raise OSError(5, "Input/output error")
            return plain(fd, views, offset)

        monkeypatch.setattr(disk_content.os, "preadv", failing)
        with pytest.raises((disk_content.MetadataUnreadable, RelevoError)) as caught:
            attach(disks)
        assert str(disks.holder) in caught.value.what
        assert "Input/output error" in caught.value.what
        monkeypatch.setattr(disk_content.os, "preadv", plain)


# ---------------------------------------------------------------- damage


def out_of_sync(content: DiskContent) -> set[int] | None:
    """The extents that the core would mark by the log; None: everything."""
    if content.superblock.flags & MetaFlag.FULL_SYNC or content.active_extents is None:
        return None
    return set(content.active_extents) if content.superblock.flags & MetaFlag.PRIMARY_IND else set()


@QUICK
@given(st.integers(0, 4095), st.integers(1, 255))
def test_a_damaged_superblock_is_refused_or_means_the_same(tmp_path: pathlib.Path, at: int, flip: int) -> None:
    disks = used(tmp_path, "internal", 2 * MIB, [0])
    before = attach(disks)
    place = before.layout.superblock + at
    (byte,) = disks.peek(place, 1)
    disks.poke(place, bytes([byte ^ flip]))
    try:
        after = attach(disks)
    except RelevoError as error:
        told = str(error)
    else:
        told = ""
        assert meaning(after) == meaning(before)
    assert not told or told.endswith(".")


@QUICK
@given(st.integers(0, 8 * 4096 - 1), st.integers(1, 255), st.sets(st.integers(0, 40), min_size=1, max_size=8).map(list))
def test_a_damaged_activity_log_never_says_less(tmp_path: pathlib.Path, at: int, flip: int, extents: list[int]) -> None:
    disks = used(tmp_path, "internal", 200 * MIB, extents)
    before = attach(disks)
    place = before.layout.activity_log + at
    (byte,) = disks.peek(place, 1)
    disks.poke(place, bytes([byte ^ flip]))
    after = out_of_sync(attach(disks))
    assert after is None or after >= set(extents)


@QUICK
@given(st.integers(0, 1 << 32))
def test_a_torn_activity_log_never_says_less_than_what_was_stable(tmp_path: pathlib.Path, seed: int) -> None:
    """The newest transaction is torn: nothing was written on its word."""
    extents = list(range(2, 8))
    disks = used(tmp_path, "internal", 100 * MIB, extents)
    layout = disks.read()[1]
    rng = random.Random(seed)
    newest = layout.activity_log + 4096 * 5
    for sector in rng.sample(range(8), rng.randrange(1, 8)):
        disks.poke(newest + 512 * sector, bytes(512))
    after = out_of_sync(attach(disks))
    assert after is None or after >= set(extents[:-1])


def test_a_kernels_superblock_has_no_checksum_and_is_taken(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "internal", 40 * MIB)
    disks.drbdmeta("create-md")
    superblock, layout = disks.read()
    assert disks.peek(layout.superblock + metadata.SEALED_BYTES, 8) == bytes(8)
    disks.change(current=9)
    disks.drbdmeta("apply-al")
    assert disks.read()[0] == msgspec.structs.replace(superblock, current=9)
