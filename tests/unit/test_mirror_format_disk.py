"""Superblock, activity log, bitmap and their forms on the wire, against the kernel's own and `drbdmeta`'s."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import random
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_pcap import DATA, tcp_streams
from relevo.cli.drbdadm.show import disk_state
from relevo.mirror import activity_log_format as al
from relevo.mirror import metadata, packets, vli, wire
from relevo.mirror.auth import Authentication, ChallengeReflected, WrongSecret
from relevo.mirror.bitmap import Bitmap, bits_for
from relevo.mirror.crc32c import crc32c
from relevo.mirror.create import MetadataExists, create_metadata, read_superblock
from relevo.mirror.events import AlTransaction

KERNEL_TAIL = gzip.decompress((DATA / "drbd-metadata-internal-last128k.bin.gz").read_bytes())
KERNEL_DISK_BYTES = 1074790400


# ---------------------------------------------------------------- crc32c, activity log


def bitwise_crc32c(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


@pytest.mark.parametrize("size", [0, 1, 255, 256, 512, 1024, 2048, 4095, 4096, 5000])
def test_crc32c_is_the_definition(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == bitwise_crc32c(data)


def test_the_initialized_block_is_the_kernels() -> None:
    place = len(KERNEL_TAIL) - 4096 - 32768
    assert KERNEL_TAIL[place : place + 32768] == al.initialized_block() * 8
    assert al.decode_transaction(al.initialized_block()) is None


SLOTS = 1237
EXTENT = st.one_of(st.just(al.UNUSED), st.integers(0, 1 << 20))


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 1 << 20)), max_size=64),
    st.integers(0, SLOTS - 1),
    st.integers(0, 2**32),
)
def test_transactions_round_trip(number: int, updates: list[tuple[int, int]], first: int, seed: int) -> None:
    rng = random.Random(seed)
    slots = [rng.choice([al.UNUSED, rng.randrange(1 << 20)]) for _ in range(SLOTS)]
    context = tuple(slots[first : first + al.CONTEXT_MAX])
    transaction = AlTransaction(number, tuple(updates), SLOTS, first, context)
    block = al.encode_transaction(transaction)
    assert al.decode_transaction(block) == transaction
    broken = bytearray(block)
    broken[rng.randrange(4096)] ^= 1 << rng.randrange(8)
    with pytest.raises(al.ActivityLogCorrupt):
        al.decode_transaction(bytes(broken))
    assert al.repair(bytes(broken)) == block


def active(log: Log) -> set[int]:
    return set(al.replay(bytes(log.ring), log.stripes, log.stripe_blocks).extents)


class Log:
    """A log as a Primary writes it, with what it should say."""

    def __init__(self, slots: int, stripes: int, stripe_blocks: int, start: int) -> None:
        self.slots = [al.UNUSED] * slots
        self.stripes, self.stripe_blocks = stripes, stripe_blocks
        self.number, self.first = start, 0
        self.ring = bytearray(al.initialized_block() * stripes * stripe_blocks)

    def activate(self, slot: int, extent: int) -> None:
        context = tuple(self.slots[self.first : self.first + al.CONTEXT_MAX])
        block = al.encode_transaction(
            AlTransaction(self.number, ((slot, extent),), len(self.slots), self.first, context)
        )
        at = al.ring_block(self.number, self.stripes, self.stripe_blocks) * 4096
        self.ring[at : at + 4096] = block
        self.slots[slot] = extent
        self.number = (self.number + 1) & 0xFFFFFFFF
        following = self.first + al.CONTEXT_MAX
        self.first = following if following < len(self.slots) else 0


@pytest.mark.parametrize(("stripes", "blocks"), [(1, 8), (2, 4), (4, 8)])
@pytest.mark.parametrize("start", [0, 2**32 - 7])
def test_replay_finds_what_was_active(stripes: int, blocks: int, start: int) -> None:
    rng = random.Random(stripes)
    log = Log(1237, stripes, blocks, start)
    for step in range(3 * stripes * blocks):
        log.activate(rng.randrange(1237), 5000 + step)
        assert active(log) >= {extent for extent in log.slots if extent != al.UNUSED}
    assert active(log) == {extent for extent in log.slots if extent != al.UNUSED}
    assert al.replay(bytes(log.ring), stripes, blocks).number == (log.number - 1) & 0xFFFFFFFF


def test_one_torn_block_is_survived_and_two_are_refused() -> None:
    log = Log(100, 1, 8, 0)
    for step in range(12):
        log.activate(step, 700 + step)
    at = al.ring_block(11, 1, 8) * 4096
    log.ring[at + 100 : at + 4096] = bytes(3996)
    assert active(log) == {700 + step for step in range(11)}
    log.ring[0:100] = bytes(100)
    with pytest.raises(al.ActivityLogCorrupt):
        active(log)


@pytest.mark.parametrize("back", range(1, 7))
def test_what_was_stable_and_cannot_be_read_is_no_torn_block(back: int) -> None:
    """Of 1237 slots a transaction repeats 919 or 318: what one alone said about the others is lost with its block."""
    log = Log(1237, 1, 8, 0)
    for step in range(12):
        log.activate(1236 - 600 * (step % 2) - step, 700 + step)
    at = al.ring_block(11 - back, 1, 8) * 4096
    log.ring[at + 100 : at + 4096] = bytes(3996)
    with pytest.raises(al.ActivityLogCorrupt, match="was stable"):
        active(log)
    log.ring[at : at + 4096] = al.initialized_block()
    with pytest.raises(al.ActivityLogCorrupt, match="missing"):
        active(log)


def test_a_torn_block_that_looks_like_one_with_a_bad_byte_takes_nothing_away() -> None:
    """Of the sectors of this newest transaction some are new and some are what lay there before."""
    rng = random.Random(25)
    blocks: list[bytes] = []
    slots = [rng.randrange(1 << 20) for _ in range(900)]
    for number in range(12):
        stable = set(slots)
        updates = tuple((rng.randrange(900), rng.randrange(1 << 20)) for _ in range(8))
        for slot, extent in updates:
            slots[slot] = extent
        blocks.append(al.encode_transaction(AlTransaction(number, updates, 900, 0, tuple(slots))))
    pieces = [blocks[11 if 181 >> sector & 1 else 3][512 * sector :][:512] for sector in range(8)]
    torn = b"".join(pieces)
    assert al.repair(torn) is not None
    log = b"".join((*blocks[8:11], torn, *blocks[4:8]))
    assert al.replay(log).extents >= stable


def test_a_log_that_cannot_be_read_goes_on_behind_its_newest_number() -> None:
    """Numbers begin anew at 2^32; one that is taken twice would turn the order of the next replay around."""
    log = Log(100, 1, 8, 2**32 - 3)
    for step in range(6):
        log.activate(step, 700 + step)
    assert al.newest_number(bytes(log.ring)) == 2


# ---------------------------------------------------------------- superblock


def test_the_kernels_superblock_parses_and_encodes_to_its_own_bytes() -> None:
    block = KERNEL_TAIL[-4096:]
    superblock, layout = metadata.decode_superblock(block, KERNEL_DISK_BYTES)
    ours = metadata.encode_superblock(superblock)
    seal = slice(metadata.SEALED_BYTES, metadata.SEALED_BYTES + 8)
    assert (ours[: seal.start], ours[seal.stop :]) == (block[: seal.start], block[seal.stop :])
    assert block[seal] == bytes(8)
    assert superblock.current == 0x101C99EF4044447A
    assert superblock.size_sectors == 2099056
    assert (superblock.clean, superblock.al_extents) == (False, 1237)
    assert (layout.superblock, layout.activity_log, layout.bitmap) == (1074786304, 1074753536, 1074716672)
    assert layout.data_bytes == 2099056 * 512


def changed(**fields: object) -> bytes:
    superblock, _ = metadata.decode_superblock(KERNEL_TAIL[-4096:], KERNEL_DISK_BYTES)
    values = {name: getattr(superblock, name) for name in superblock.__struct_fields__}
    return metadata.encode_superblock(metadata.Superblock(**{**values, **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("block", "disk_bytes", "error"),
    [
        (bytes(4096), KERNEL_DISK_BYTES, metadata.NoMetadata),
        (KERNEL_TAIL[-4096:], KERNEL_DISK_BYTES * 2, metadata.MetadataCorrupt),
        (KERNEL_TAIL[-4096:], 1 << 20, metadata.DiskTooSmall),
        (changed(size_sectors=2099056 + 8), KERNEL_DISK_BYTES, metadata.DiskTooSmall),
        (changed(al_offset=-72), KERNEL_DISK_BYTES, metadata.MetadataCorrupt),
        (changed(md_size_sectors=1), KERNEL_DISK_BYTES, metadata.MetadataCorrupt),
        (changed(al_stripes=1 << 20), KERNEL_DISK_BYTES, metadata.MetadataCorrupt),
    ],
)
def test_what_cannot_be_true_is_refused_by_name(block: bytes, disk_bytes: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        metadata.decode_superblock(block, disk_bytes)


MAGICS = st.sampled_from([metadata.MAGIC_CLEAN, metadata.MAGIC_UNCLEAN, metadata.MAGIC_V09, 0])


@given(st.binary(min_size=104, max_size=104), MAGICS, st.integers(0, 1 << 40))
def test_noise_is_no_meta_data(noise: bytes, magic: int, disk_bytes: int) -> None:
    block = (noise[:60] + magic.to_bytes(4, "big") + noise[64:]).ljust(4096, b"\0")
    with pytest.raises((metadata.NoMetadata, metadata.MetadataTooNew, metadata.MetadataCorrupt, metadata.DiskTooSmall)):
        metadata.decode_superblock(block, disk_bytes)


# ---------------------------------------------------------------- drbdmeta as the judge


@contextlib.contextmanager
def loop_device(path: pathlib.Path) -> Iterator[str]:
    made = subprocess.run(["losetup", "--find", "--show", str(path)], check=True, capture_output=True, text=True)
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def drbdmeta(device: str, *command: str) -> str:
    done = subprocess.run(
        ["drbdmeta", "--force", "254", "v08", device, "internal", *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


needs_drbdmeta = pytest.mark.skipif(shutil.which("drbdmeta") is None, reason="drbd-utils is not installed")


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    return path


@needs_drbdmeta
def test_drbdmeta_reads_what_we_create(disk: pathlib.Path) -> None:
    layout = create_metadata(disk, zeroed=True)
    with loop_device(disk) as device:
        dump = drbdmeta(device, "dump-md")
        assert "0x0000000000000004" in dump
        assert f"# md_offset {layout.superblock}\n" in dump
        assert f"# al_offset {layout.activity_log}\n" in dump
        assert f"# bm_offset {layout.bitmap}\n" in dump
        assert "al-extents 1237;" in dump
        assert drbdmeta(device, "get-gi").startswith("0000000000000004:0000000000000000:")
        drbdmeta(device, "apply-al")


@needs_drbdmeta
def test_a_disk_that_is_not_in_use_says_what_drbdmeta_says(disk: pathlib.Path) -> None:
    create_metadata(disk)
    with loop_device(disk) as device:
        said = {}
        for flags in ("0:0:0", "1:0:0", "1:1:0", "1:1:1"):
            for last in ("0:0", "1:0", "0:1"):
                drbdmeta(device, "set-gi", f"C0:B0:A0:90:{flags}:1:0:{last}")
                said[drbdmeta(device, "dstate").strip()] = found = disk_state(read_superblock(disk)[0].flags)
                assert drbdmeta(device, "dstate").strip() == found
    assert len(said) == 4


@needs_drbdmeta
def test_we_read_what_drbdmeta_creates(disk: pathlib.Path) -> None:
    ours = disk.with_name("ours")
    shutil.copy(disk, ours)
    with loop_device(disk) as device:
        drbdmeta(device, "create-md")
    superblock, layout = read_superblock(disk)
    create_metadata(ours)
    mine, my_layout = read_superblock(ours)
    assert layout == my_layout
    assert (superblock.current, superblock.flags, superblock.clean) == (mine.current, mine.flags, mine.clean)
    assert disk.read_bytes()[layout.bitmap : layout.superblock] == ours.read_bytes()[layout.bitmap : layout.superblock]


@needs_drbdmeta
def test_drbdmeta_applies_the_log_we_write(disk: pathlib.Path) -> None:
    layout = create_metadata(disk)
    superblock, _ = read_superblock(disk)
    log = Log(1237, 1, 8, 0)
    for extent in (3, 17, 5):
        log.activate(extent % 4, extent)
    expected = active(log)
    values = {name: getattr(superblock, name) for name in superblock.__struct_fields__}
    values |= {"size_sectors": layout.data_bytes // 512, "clean": False, "current": 0x1234567890ABCDEE}
    values["flags"] = metadata.MetaFlag.CONSISTENT | metadata.MetaFlag.PRIMARY_IND | metadata.MetaFlag.WAS_UP_TO_DATE
    with disk.open("r+b") as file:
        file.seek(layout.activity_log)
        file.write(log.ring)
        file.seek(layout.superblock)
        file.write(metadata.encode_superblock(metadata.Superblock(**values)))
    with loop_device(disk) as device:
        drbdmeta(device, "apply-al")
    with disk.open("rb") as file:
        file.seek(layout.bitmap)
        bitmap = Bitmap(bits_for(layout.data_bytes // 512), file.read(layout.bitmap_bytes))
    marked = [(first // 1024, end // 1024) for first, end in bitmap.runs()]
    assert marked == [(extent, extent + 1) for extent in sorted(expected)]
    again, _ = read_superblock(disk)
    assert again.clean
    assert again.flags & metadata.MetaFlag.AL_CLEAN


def test_existing_meta_data_is_not_overwritten_unasked(disk: pathlib.Path) -> None:
    create_metadata(disk)
    with pytest.raises(MetadataExists):
        create_metadata(disk)
    create_metadata(disk, force=True, zeroed=True)
    superblock, _ = read_superblock(disk)
    assert superblock.flags & metadata.MetaFlag.WAS_UP_TO_DATE


# ---------------------------------------------------------------- bitmap

BITS = 70_000
RANGES = st.lists(
    st.tuples(st.booleans(), st.integers(0, BITS - 1), st.integers(0, 3000)).map(
        lambda draw: (draw[0], draw[1], min(BITS, draw[1] + draw[2]))
    ),
    max_size=12,
)


def drawn(ranges: list[tuple[bool, int, int]]) -> tuple[Bitmap, int]:
    """A bitmap and the same as one number."""
    bitmap, model = Bitmap(BITS), 0
    for is_set, first, end in ranges:
        mask = (1 << end) - (1 << first)
        before = (model & mask).bit_count()
        if is_set:
            assert bitmap.set_range(first, end) == end - first - before
            model |= mask
        else:
            assert bitmap.clear_range(first, end) == before
            model &= ~mask
        assert bitmap.count == model.bit_count()
    return bitmap, model


@given(RANGES, st.integers(0, BITS - 1))
def test_a_bitmap_is_a_large_number(ranges: list[tuple[bool, int, int]], at: int) -> None:
    bitmap, model = drawn(ranges)
    assert int.from_bytes(bitmap.read_words(0, bitmap.words), "little") == model
    rest = model >> at
    assert bitmap.next_set(at) == (at + (rest & -rest).bit_length() - 1 if rest else -1)
    hole = ~rest & ((1 << (BITS - at)) - 1)
    assert bitmap.next_clear(at) == (at + (hole & -hole).bit_length() - 1 if hole else -1)
    assert sum(end - first for first, end in bitmap.runs()) == bitmap.count
    assert sum((1 << end) - (1 << first) for first, end in bitmap.runs()) == model
    assert bitmap.any_set(at, BITS) == bool(rest)


@given(RANGES)
def test_dirty_pages_are_those_that_changed(ranges: list[tuple[bool, int, int]]) -> None:
    bitmap, _ = drawn(ranges)
    written = bytearray(bitmap.pages * 4096)
    for page in bitmap.dirty_pages():
        written[page * 4096 : (page + 1) * 4096] = bitmap.take_page(page)
    assert not bitmap.dirty
    assert bytes(written[: bitmap.words * 8]) == bitmap.read_words(0, bitmap.words)
    again = Bitmap(BITS, written)
    assert again.count == bitmap.count


@given(RANGES, st.integers(0, 200_000))
def test_a_bitmap_grows(ranges: list[tuple[bool, int, int]], more: int) -> None:
    bitmap, model = drawn(ranges)
    bitmap.grow(BITS + more)
    assert (bitmap.bits, bitmap.count) == (BITS + more, model.bit_count())
    rest = ~model & ((1 << BITS + more) - 1)
    assert bitmap.next_clear(0) == ((rest & -rest).bit_length() - 1 if rest else -1)
    assert bitmap.set_range(BITS, BITS + more) == more
    model |= (1 << BITS + more) - (1 << BITS)
    assert int.from_bytes(bitmap.read_words(0, bitmap.words), "little") == model
    assert sum((1 << end) - (1 << first) for first, end in bitmap.runs()) == model


def test_a_bitmap_that_is_all_set_grows() -> None:
    bitmap = Bitmap(32768)
    bitmap.set_all()
    bitmap.grow(40_000)
    assert (bitmap.next_clear(0), bitmap.next_clear(32768)) == (32768, 32768)
    bitmap.set_all()
    assert bitmap.next_clear(0) == -1
    assert bitmap.count == 40_000


def test_memory_that_fits_is_not_copied() -> None:
    memory = bytearray(2 * 4096)
    bitmap = Bitmap(BITS // 2, memory)
    bitmap.set_range(7, 9)
    assert memory[0] == 0x80


def test_bits_beyond_the_end_do_not_count() -> None:
    bitmap = Bitmap(13, b"\xff" * 4096)
    assert bitmap.count == 13
    assert bitmap.next_clear(0) == -1
    other = Bitmap(13)
    assert other.merge_words(0, b"\xff" * 8) == 13
    assert other.read_words(0, 1) == b"\xff\x1f" + bytes(6)


# ---------------------------------------------------------------- bitmap on the wire


@given(st.lists(st.integers(1, 1 << 56), min_size=1, max_size=20))
def test_run_lengths_round_trip(lengths: list[int]) -> None:
    code, used = 0, 0
    for length in lengths:
        value, width = vli.encode_length(length)
        code |= value << used
        used += width
    size = -(-used // 8)
    assert list(vli.decode_lengths(code.to_bytes(size, "little"), size * 8 - used)) == lengths


@given(RANGES, st.integers(0, 2**32), st.integers(0, 400), st.booleans())
def test_a_bitmap_survives_the_wire(
    ranges: list[tuple[bool, int, int]], seed: int, noisy_words: int, compress: bool
) -> None:
    bitmap, _ = drawn(ranges)
    if noisy_words:
        bitmap.merge_words(100, random.Random(seed).randbytes(noisy_words * 8))
    sender, copy = vli.BitmapSender(bitmap, compress=compress), Bitmap(BITS)
    receiver = vli.BitmapReceiver(copy)
    while (packet := sender.next_packet()) is not None:
        assert not receiver.done
        assert len(wire.encode(packet)) <= packets.MAX_CONTROL_BYTES
        receiver.take(packet)
    assert receiver.done
    assert copy.read_words(0, copy.words) == bitmap.read_words(0, bitmap.words)


def test_the_kernels_compressed_bitmap() -> None:
    """Four runs of a 1 GiB disk: the blocks that were asked for right after, in the same capture."""
    bits = bits_for(2099056)
    code = bytes.fromhex("3297fc2849ff0ab1057f7cd200")
    bitmap = Bitmap(bits)
    assert vli.BitmapReceiver(bitmap).take(packets.CompressedBitmap(code[0], code[1:]))
    asked = {0x50: 2, 0x60: 1, 0x9C40: 2, 0x186A00: 1}
    bits_asked = {sector // 8 + block for sector, blocks in asked.items() for block in range(blocks)}
    assert {bit for first, end in bitmap.runs() for bit in range(first, end)} == bits_asked
    assert vli.BitmapSender(bitmap).next_packet() == packets.CompressedBitmap(code[0], code[1:])


def test_the_kernels_larger_bitmap_is_what_we_would_send() -> None:
    seen = 0
    for stream in tcp_streams("drbd-linkloss-bitmap-resync.pcap.gz").values():
        marker = bytes.fromhex("8620ec20 0000 0024")
        at = stream.find(marker)
        if at < 0:
            continue
        decoder = wire.Decoder(wire.DATA_COMMANDS, wire.Header.H100)
        decoder.feed(stream[at : at + 4096])
        packet = decoder.next_packet()
        assert isinstance(packet, packets.CompressedBitmap)
        bitmap = Bitmap(bits_for(2099056))
        assert vli.BitmapReceiver(bitmap).take(packet)
        assert vli.BitmapSender(bitmap).next_packet() == packet
        seen += 1
    assert seen == 2


def test_plain_words_end_with_an_empty_packet() -> None:
    """As the kernel's do, which waits for it in turn."""
    sender, receiver = vli.BitmapSender(Bitmap(100), compress=False), vli.BitmapReceiver(Bitmap(100))
    words, end = sender.next_packet(), sender.next_packet()
    assert (words, end, sender.next_packet()) == (packets.BitmapWords(bytes(16)), packets.BitmapWords(b""), None)
    assert not receiver.take(packets.BitmapWords(bytes(16)))
    assert receiver.take(packets.BitmapWords(b""))


@pytest.mark.parametrize(
    "packet",
    [
        packets.CompressedBitmap(0x01, b"\x00"),
        packets.CompressedBitmap(0x02, b"\xff" * 9),
        packets.CompressedBitmap(0x02, b"\x3f\x00"),
        packets.CompressedBitmap(0x02, b""),
        packets.BitmapWords(bytes(24)),
        packets.BitmapWords(b""),
    ],
)
def test_a_bitmap_that_does_not_fit_is_refused(packet: packets.BitmapWords | packets.CompressedBitmap) -> None:
    with pytest.raises(packets.BadField):
        vli.BitmapReceiver(Bitmap(100)).take(packet)


# ---------------------------------------------------------------- authentication


def captured(kind: type[packets.AuthChallenge | packets.AuthResponse]) -> dict[bytes, bytes]:
    """Source address -> what it sent, in the first connection of the capture."""
    found: dict[bytes, bytes] = {}
    for flow, stream in tcp_streams("drbd-complete-connection.pcap.gz").items():
        at = stream.find(bytes.fromhex("8620ec20 0000") + kind.command.to_bytes(2, "big"))
        if at >= 0:
            length = int.from_bytes(stream[at + 8 : at + 12], "big")
            found[flow[0]] = stream[at + 16 : at + 16 + length]
    return found


def test_both_sides_convince_each_other() -> None:
    rng = random.Random(1)
    one = Authentication("the secret", "sha256", rng.randbytes(64))
    two = Authentication("the secret", "sha256", rng.randbytes(64))
    one.verify(two.respond(one.challenge))
    two.verify(one.respond(two.challenge))
    other = Authentication("another", "sha256", rng.randbytes(64))
    with pytest.raises(WrongSecret):
        one.verify(other.respond(one.challenge))
    with pytest.raises(ChallengeReflected):
        one.respond(one.challenge)


def test_the_kernels_answers_are_ours() -> None:
    """The captured connection was made with the secret `sesame` and sha1."""
    (one, first), (two, second) = captured(packets.AuthChallenge).items()
    answers = captured(packets.AuthResponse)
    Authentication("sesame", "sha1", first).verify(answers[two])
    Authentication("sesame", "sha1", second).verify(answers[one])
    assert Authentication("sesame", "sha1", first).respond(second) == answers[one]
