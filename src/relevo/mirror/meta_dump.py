"""Meta-data as text and back, in the form of `drbdmeta dump-md` and `restore-md`: each reads what the other wrote."""

from __future__ import annotations

import os
import pathlib
import re
import struct
from collections.abc import Iterator

import msgspec

from relevo.base.errors import RelevoError
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.mirror import metadata
from relevo.mirror.bitmap import BLOCK_BYTES, PAGE_BYTES, WORD_BYTES, bits_for
from relevo.mirror.create import create_metadata, opened, read_at, write_at
from relevo.mirror.layout import MAX_DATA_BYTES, SECTOR_BYTES, SUPERBLOCK_BYTES, Layout, layout_for, superblock_place
from relevo.mirror.metadata import MetaFlag, Superblock

_HALF_BYTES = 4
_LINE_BYTES = 8 * _HALF_BYTES
_COMMENT_BYTES = 64 * _HALF_BYTES
_KIB_PER_BYTE = 32
_STEP_BYTES = 1 << 16
_FIELDS = (
    *("la-size-sect", "bm-byte-per-bit", "device-uuid", "la-peer-max-bio-size"),
    *("al-stripes", "al-stripe-size-4k"),
)
_TOKEN = re.compile(r"#[^\n]*|\"[^\"]*\"|[A-Za-z0-9_.'-]+|[{};]")


class DumpUnreadable(RelevoError):
    """A text is no dump of meta-data v08."""


class MetadataUnclean(RelevoError):
    """The activity log has not been applied: the bitmap does not tell the whole truth."""


def dump_metadata(path: pathlib.Path, place: MetaDisk = INTERNAL) -> Iterator[str]:
    """The meta-data of the data disk at `path`, line by line (without line ends).

    Raises:
        MetadataUnclean: apply the activity log first.
        RelevoError: as `create.read_superblock`.
    """
    with opened(path, place, os.O_RDONLY) as (fd, disk_bytes, meta_bytes):
        at = superblock_place(disk_bytes if meta_bytes is None else meta_bytes, place)
        block = read_at(fd, SUPERBLOCK_BYTES, at)
        superblock, layout = metadata.decode_superblock(block, disk_bytes, place, meta_bytes)
        if not superblock.clean or not superblock.flags & MetaFlag.AL_CLEAN:
            raise MetadataUnclean(
                "The meta-data is that of a copy in use, or of one whose server crashed.",
                "Apply its activity log first: relevo mirror apply-al NAME.",
            )
        size = -(-bits_for(superblock.size_sectors) // (8 * PAGE_BYTES)) * PAGE_BYTES
        yield from _head(superblock, layout, size)
        bitmap = read_at(fd, size, layout.bitmap)
    yield from _bitmap_lines(bitmap)
    yield f"# bits-set {_count(bitmap)};"


def _head(s: Superblock, layout: Layout, bitmap_bytes: int) -> Iterator[str]:
    yield from ("# Meta-data of a mirror", "", 'version "v08";', "", f"# md_size_sect {s.md_size_sectors}")
    yield f"# md_offset {layout.superblock}"
    yield f"# al_offset {layout.activity_log}"
    yield f"# bm_offset {layout.bitmap}"
    yield from ("", "uuid {")
    yield "    " + " ".join(f"0x{uuid:016X};" for uuid in (s.current, s.bitmap, s.history0, s.history1))
    yield f"    flags 0x{s.flags:08X};"
    yield "}"
    yield f"# al-extents {s.al_extents};"
    yield f"la-size-sect {s.size_sectors};"
    yield f"bm-byte-per-bit {BLOCK_BYTES};"
    yield f"device-uuid 0x{s.device_uuid:016X};"
    yield f"la-peer-max-bio-size {s.peer_max_bio_bytes};"
    yield f"al-stripes {s.al_stripes};"
    yield f"al-stripe-size-4k {s.al_stripe_blocks};"
    yield f"# bm-bytes {bitmap_bytes};"


def _bitmap_lines(bitmap: bytes) -> Iterator[str]:
    """Lines of four words of 64 bits; longer rows of equal halves are counted instead."""
    yield "bm {"
    at = 0
    while at < len(bitmap):
        if at % _COMMENT_BYTES == 0:
            yield f"   # at {at * _KIB_PER_BYTE}kB"
        half = bitmap[at : at + _HALF_BYTES]
        equal = _equal_bytes(bitmap, at, half) // _LINE_BYTES * _LINE_BYTES
        if equal > _LINE_BYTES:
            (value,) = struct.unpack("<I", half)
            yield f"    {equal // WORD_BYTES} times 0x{value:08X}{value:08X};"
            at += equal
        else:
            words = struct.unpack_from("<4Q", bitmap, at)
            yield "    " + " ".join(f"0x{word:016X};" for word in words)
            at += _LINE_BYTES
    yield "}"


def _equal_bytes(bitmap: bytes, at: int, half: bytes) -> int:
    """For how many bytes from `at` on the same four repeat."""
    end = at
    for step in (_STEP_BYTES, PAGE_BYTES, _LINE_BYTES, _HALF_BYTES):
        pattern = half * (step // _HALF_BYTES)
        while bitmap[end : end + step] == pattern:
            end += step
    return end - at


def _count(bitmap: bytes) -> int:
    return sum(
        int.from_bytes(bitmap[at : at + _STEP_BYTES], "little").bit_count() for at in range(0, len(bitmap), _STEP_BYTES)
    )


class _Reader:
    """Takes a dump apart, token by token."""

    def __init__(self, text: str) -> None:
        self._tokens = (found[0] for found in _TOKEN.finditer(text) if not found[0].startswith("#"))
        self._last = ""

    def next(self) -> str:
        """The next token."""
        self._last = next(self._tokens, "the end")
        return self._last

    def expect(self, *wanted: str) -> None:
        """These tokens follow."""
        for token in wanted:
            if self.next() != token:
                raise self.wrong(repr(token))

    def number(self) -> int:
        """A number and its semicolon."""
        try:
            value = int(self.next(), 0)
        except ValueError:
            raise self.wrong("a number") from None
        self.expect(";")
        return value

    def wrong(self, wanted: str) -> DumpUnreadable:
        """What stands there is not what should."""
        return DumpUnreadable(
            f"This is no dump of clean meta-data v08: {self._last!r} where {wanted} should be.",
            "Give a file that dump-md has written after apply-al.",
        )


class _Dump(msgspec.Struct, frozen=True):
    """What a dump says."""

    uuids: tuple[int, ...]
    flags: int
    size_sectors: int
    device_uuid: int
    peer_max_bio_bytes: int
    stripes: int
    stripe_blocks: int
    bitmap: bytes


def _parse(text: str) -> _Dump:
    reader = _Reader(text)
    reader.expect("version", '"v08"', ";", "uuid", "{")
    uuids = tuple(reader.number() for _ in range(4))
    reader.expect("flags")
    flags = reader.number()
    reader.expect("}")
    values = {}
    for word in _FIELDS:
        reader.expect(word)
        values[word] = reader.number()
    size, device_uuid, bytes_per_bit = values["la-size-sect"], values["device-uuid"], values["bm-byte-per-bit"]
    if bytes_per_bit != BLOCK_BYTES:
        raise DumpUnreadable(f"In this dump one bit stands for {bytes_per_bit} bytes.", "Only 4096 are supported.")
    if size * SECTOR_BYTES > MAX_DATA_BYTES:
        raise DumpUnreadable(f"This dump is that of {size} sectors of data.", "A mirror has at most 16 TiB.")
    bitmap = _read_bitmap(reader, -(-bits_for(size) // (8 * PAGE_BYTES)) * PAGE_BYTES)
    stripes, stripe_blocks = values["al-stripes"], values["al-stripe-size-4k"]
    return _Dump(uuids, flags, size, device_uuid, values["la-peer-max-bio-size"], stripes, stripe_blocks, bitmap)


def restore_metadata(path: pathlib.Path, text: str, place: MetaDisk = INTERNAL, *, force: bool = False) -> Layout:
    """Write the meta-data that a dump holds to the data disk at `path`.

    Raises:
        DumpUnreadable: the text is no dump, or one of a larger disk.
        RelevoError: as `create.create_metadata`.
    """
    dump = _parse(text)
    with opened(path, place, os.O_RDONLY) as (_, disk_bytes, meta_bytes):
        layout = layout_for(disk_bytes, dump.stripes, dump.stripe_blocks, place, meta_bytes)
    if dump.size_sectors * SECTOR_BYTES > layout.data_bytes:
        raise DumpUnreadable("This dump is that of a larger disk.", "Restore it to a disk at least as large.")
    create_metadata(path, place=place, force=force, al_stripes=dump.stripes, al_stripe_blocks=dump.stripe_blocks)
    with opened(path, place, os.O_RDWR) as (fd, disk_bytes, meta_bytes):
        block = read_at(fd, SUPERBLOCK_BYTES, layout.superblock)
        fresh, _ = metadata.decode_superblock(block, disk_bytes, place, meta_bytes)
        write_at(fd, dump.bitmap, layout.bitmap)
        os.fsync(fd)
        current, bitmap, history0, history1 = dump.uuids
        restored = msgspec.structs.replace(
            fresh,
            size_sectors=dump.size_sectors,
            current=current,
            bitmap=bitmap,
            history0=history0,
            history1=history1,
            flags=dump.flags | MetaFlag.AL_CLEAN,  # a dump is made of clean meta-data only
            device_uuid=dump.device_uuid or fresh.device_uuid,
            peer_max_bio_bytes=dump.peer_max_bio_bytes,
        )
        write_at(fd, metadata.encode_superblock(restored), layout.superblock)
        os.fsync(fd)
    return layout


def _read_bitmap(reader: _Reader, size: int) -> bytes:
    reader.expect("bm", "{")
    found = bytearray()
    while (token := reader.next()) != "}":
        if token.startswith("0x"):
            times, word = 1, token
        else:
            times = int(token) if token.isdigit() else 0
            reader.expect("times")
            word = reader.next()
        try:
            value = struct.pack("<Q", int(word, 16))
        except (ValueError, struct.error):
            raise reader.wrong("a word of the bitmap") from None
        reader.expect(";")
        if len(found) + times * WORD_BYTES > size or not times:
            raise DumpUnreadable("The dump's bitmap is longer than its data.", "Give a file that dump-md has written.")
        found += value * times
    return bytes(found.ljust(size, b"\0"))
