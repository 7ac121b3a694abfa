"""Meta-data of each kind, in all sizes: `drbdmeta` reads what we write, and we read what it writes."""

from __future__ import annotations

import itertools
import pathlib
import random
import subprocess

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relevo.base.errors import RelevoError
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.device.backing import BackingInUse, open_backing
from relevo.mirror import activity_log_format as al
from relevo.mirror import layout as places
from relevo.mirror import metadata
from relevo.mirror.create import DiskInUse, MetadataExists, create_metadata, read_superblock, wipe_metadata
from relevo.mirror.disk_content import open_copy
from relevo.mirror.events import AlTransaction
from relevo.mirror.meta_apply import apply_activity_log
from relevo.mirror.meta_dump import DumpUnreadable, MetadataUnclean, dump_metadata, restore_metadata
from relevo.mirror.metadata import MetaFlag

MIB = 1 << 20
SPARSE = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Disks:
    """A data disk and, if the kind needs it, one for its meta-data."""

    def __init__(self, folder: pathlib.Path, kind: str, data_bytes: int, meta_bytes: int = 0, index: int = 0) -> None:
        self.data = folder / "data"
        self.meta = folder / "meta"
        sizes = {self.data: data_bytes, self.meta: meta_bytes}
        for path, size in sizes.items():
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(size)
        self.place = {
            "internal": INTERNAL,
            "external": MetaDisk(kind="external", path=self.meta, index=index),
            "flexible": MetaDisk(kind="flexible", path=self.meta),
        }[kind]
        self.holder = self.data if kind == "internal" else self.meta
        self.format = {"internal": "internal", "external": str(index), "flexible": "flex-external"}[kind]

    def drbdmeta(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            ["drbdmeta", "--force", "254", "v08", str(self.holder), self.format, *command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read(self) -> tuple[metadata.Superblock, places.Layout]:
        return read_superblock(self.data, self.place)

    def create(self, **options: int) -> places.Layout:
        return create_metadata(self.data, place=self.place, force=True, **options)  # type: ignore[arg-type]

    def change(self, **fields: object) -> metadata.Superblock:
        superblock, layout = self.read()
        superblock = msgspec.structs.replace(superblock, **fields)
        self.poke(layout.superblock, metadata.encode_superblock(superblock))
        return superblock

    def poke(self, offset: int, content: bytes) -> None:
        with self.holder.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def peek(self, offset: int, length: int) -> bytes:
        with self.holder.open("rb") as file:
            file.seek(offset)
            return file.read(length)


KINDS = st.sampled_from(["internal", "external", "flexible"])
SIZES = st.one_of(
    st.integers(2 * MIB // 512, 400 * MIB // 512).map(lambda sectors: sectors * 512),
    st.integers(1, 300).map(lambda spans: spans * (16 * MIB) + 4096),
    st.integers(1, 30).map(lambda spans: spans * (128 * MIB) - 512),
)
RINGS = st.sampled_from([(1, 8), (1, 72), (4, 8), (3, 40)])


def places_in(dump: str) -> tuple[int, int, int]:
    found = [line.split() for line in dump.splitlines() if line.startswith("# ")]
    values = {words[1]: int(words[2]) for words in found if len(words) == 3 and words[2].isdigit()}
    return values["md_offset"], values["al_offset"], values["bm_offset"]


@SPARSE
@given(KINDS, SIZES, RINGS, st.integers(0, 3), st.integers(67, 6433))
def test_drbdmeta_finds_every_part_where_we_put_it(
    tmp_path: pathlib.Path, kind: str, size: int, ring: tuple[int, int], index: int, extents: int
) -> None:
    ring = (1, 8) if kind == "external" else ring
    disks = Disks(tmp_path, kind, size, (index + 1) * places.SLOT_BYTES + 512 * index, index)
    layout = disks.create(al_stripes=ring[0], al_stripe_blocks=ring[1], al_extents=extents)
    sectors = min(layout.data_bytes, size) // 512 // 8 * 8
    disks.change(size_sectors=sectors, current=0x1234)
    dump = disks.drbdmeta("dump-md")
    assert places_in(dump) == (layout.superblock, layout.activity_log, layout.bitmap)
    assert f"la-size-sect {sectors};" in dump
    assert f"al-stripes {ring[0]};" in dump
    assert f"# al-extents {extents};" in dump
    assert "truncated" not in dump


@SPARSE
@given(KINDS, SIZES, RINGS, st.integers(0, 3))
def test_we_find_every_part_where_drbdmeta_put_it(
    tmp_path: pathlib.Path, kind: str, size: int, ring: tuple[int, int], index: int
) -> None:
    ring = (1, 8) if kind == "external" else ring
    meta_bytes = (index + 1) * places.SLOT_BYTES + 512 * index
    disks = Disks(tmp_path, kind, size, meta_bytes, index)
    stripes = [f"--al-stripes={ring[0]}", f"--al-stripe-size-kB={ring[1] * 4}"]
    disks.drbdmeta(*stripes, "create-md")
    theirs, layout = disks.read()
    assert layout == places.layout_for(size, *ring, disks.place, meta_bytes)
    assert places_in(disks.drbdmeta("dump-md")) == (layout.superblock, layout.activity_log, layout.bitmap)
    log = disks.peek(layout.activity_log, layout.al_bytes)
    disks.create(al_stripes=ring[0], al_stripe_blocks=ring[1])
    ours, _ = disks.read()
    assert (ours.md_size_sectors, ours.flags, ours.clean) == (theirs.md_size_sectors, theirs.flags, theirs.clean)
    assert disks.peek(layout.activity_log, layout.al_bytes) == log


def drawn_bitmap(seed: int, size: int) -> bytes:
    """Runs of one value and noise, as long as drbdmeta's window and longer."""
    rng = random.Random(seed)
    parts = bytearray()
    while len(parts) < size:
        length = 4 * rng.choice([1, 2, 7, 8, 9, 16, 64, 1000, 70000])
        parts += rng.choice([bytes(length), b"\xff" * length, rng.randbytes(4) * (length // 4), rng.randbytes(length)])
    return bytes(parts[:size])


def without_head(dump: str) -> list[str]:
    """A dump from `version` on; the flags are left out: drbdmeta 9.22 prints zero for all of v08's."""
    lines = dump.splitlines()
    return [line for line in lines[lines.index('version "v08";') :] if "flags" not in line]


@SPARSE
@given(KINDS, st.integers(20, 40), st.integers(0, 1 << 32))
def test_a_dump_is_drbdmetas_and_both_restore_it(tmp_path: pathlib.Path, kind: str, gib: int, seed: int) -> None:
    disks = Disks(tmp_path, kind, gib << 30, places.SLOT_BYTES)
    layout = disks.create()
    sectors = (layout.data_bytes - (seed % 9) * MIB) // 512 // 8 * 8
    bits = sectors // 8
    bitmap = drawn_bitmap(seed, bits // 64 * 8)
    disks.poke(layout.bitmap, bitmap)
    wanted = disks.change(size_sectors=sectors, current=seed << 4, bitmap=17, history1=1, peer_max_bio_bytes=1 << 20)
    ours = "\n".join(dump_metadata(disks.data, disks.place)) + "\n"
    assert without_head(ours) == without_head(disks.drbdmeta("dump-md"))

    text = tmp_path / "dump"
    text.write_text(ours)
    disks.drbdmeta("create-md")
    disks.drbdmeta("restore-md", str(text))
    found, _ = disks.read()
    assert msgspec.structs.replace(found, al_extents=0) == msgspec.structs.replace(wanted, al_extents=0)
    assert disks.peek(layout.bitmap, len(bitmap)) == bitmap

    theirs = disks.drbdmeta("dump-md")
    disks.create()
    restore_metadata(disks.data, theirs, disks.place, force=True)
    again, _ = disks.read()
    assert (again.current, again.bitmap, again.history1) == (wanted.current, 17, 1)
    assert disks.peek(layout.bitmap, len(bitmap)) == bitmap


def crashed(disks: Disks, extents: list[int], ring: tuple[int, int]) -> places.Layout:
    """A copy whose Primary crashed with these extents active."""
    layout = disks.create(al_stripes=ring[0], al_stripe_blocks=ring[1])
    for number, extent in enumerate(extents):
        slots = [al.UNUSED] * 100
        slots[: number + 1] = extents[: number + 1]
        block = al.encode_transaction(AlTransaction(number, ((number, extent),), 100, 0, tuple(slots)))
        disks.poke(layout.activity_log + al.ring_block(number, *ring) * al.BLOCK_BYTES, block)
    disks.change(
        size_sectors=layout.data_bytes // 512 // 8 * 8,
        current=0x77,
        flags=MetaFlag.CONSISTENT | MetaFlag.WAS_UP_TO_DATE | MetaFlag.PRIMARY_IND,
        clean=False,
    )
    return layout


@SPARSE
@given(KINDS, RINGS, st.lists(st.integers(0, 60), min_size=1, max_size=7, unique=True))
def test_both_apply_a_log_alike(tmp_path: pathlib.Path, kind: str, ring: tuple[int, int], extents: list[int]) -> None:
    ring = (1, 8) if kind == "external" else ring
    outcomes = []
    for ours in (False, True):
        disks = Disks(tmp_path, kind, 257 * MIB, places.SLOT_BYTES)
        layout = crashed(disks, extents, ring)
        with pytest.raises(MetadataUnclean):
            list(dump_metadata(disks.data, disks.place))
        if ours:
            assert apply_activity_log(disks.data, disks.place).extents == len(extents)
            assert apply_activity_log(disks.data, disks.place).clean
        else:
            disks.drbdmeta("apply-al")
        superblock, _ = disks.read()
        outcomes.append(
            (
                msgspec.structs.replace(superblock, device_uuid=0),
                disks.peek(layout.bitmap, layout.bitmap_bytes),
                disks.peek(layout.activity_log, layout.al_bytes),
            )
        )
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1].count(b"\xff") == 128 * len(extents)


def test_only_a_primarys_log_counts(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "internal", 100 * MIB)
    layout = crashed(disks, [3, 4], (1, 8))
    disks.change(flags=MetaFlag.CONSISTENT | MetaFlag.WAS_UP_TO_DATE)
    assert apply_activity_log(disks.data, disks.place).extents == 0
    assert disks.peek(layout.bitmap, layout.bitmap_bytes) == bytes(layout.bitmap_bytes)


def test_an_unreadable_log_makes_everything_out_of_sync(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "internal", 100 * MIB)
    layout = crashed(disks, [3, 4], (1, 8))
    disks.poke(layout.activity_log, bytes(2 * 4096))
    assert apply_activity_log(disks.data, disks.place).everything
    superblock, _ = disks.read()
    assert superblock.flags & MetaFlag.FULL_SYNC
    assert superblock.clean


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("kind", "data_bytes", "meta_bytes", "index", "word"),
    [
        ("external", 100 * MIB, 128 * MIB, 1, "reaches up to 256"),
        ("external", 100 * MIB, 128 * MIB - 512, 0, "has only"),
        ("flexible", 100 * MIB, 4096, 0, "has only"),
        ("flexible", 100 * MIB, 36 << 10, 0, "no room"),
        ("internal", MIB, 0, 0, "needs at least"),
        ("external", 512 << 10, 128 * MIB, 0, "no room"),
    ],
)
def test_no_room_is_told(
    tmp_path: pathlib.Path, kind: str, data_bytes: int, meta_bytes: int, index: int, word: str
) -> None:
    disks = Disks(tmp_path, kind, data_bytes, meta_bytes, index)
    with pytest.raises(places.DiskTooSmall) as caught:
        disks.create()
    assert word in caught.value.what


def test_a_slot_has_no_room_for_another_ring(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "external", 100 * MIB, 128 * MIB)
    with pytest.raises(places.LayoutImpossible):
        disks.create(al_stripes=2)


def test_a_flexible_disk_bounds_the_data(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "flexible", 1 << 30, (36 << 10) + 3 * 4096)
    assert disks.create().data_bytes == 3 * 8 * 16 * MIB


def test_meta_data_of_a_larger_or_smaller_disk(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "flexible", 100 * MIB, 8 * MIB)
    disks.create()
    with disks.meta.open("r+b") as file:
        file.truncate(9 * MIB)
    assert disks.read()[1].md_size_sectors == 8 * MIB // 512
    with disks.meta.open("r+b") as file:
        file.truncate(7 * MIB)
    with pytest.raises(places.DiskTooSmall) as caught:
        disks.read()
    assert "replaced by a smaller one" in caught.value.remedy


def test_slots_are_independent(tmp_path: pathlib.Path) -> None:
    first = Disks(tmp_path, "external", 100 * MIB, 384 * MIB, 0)
    second = MetaDisk(kind="external", path=first.meta, index=2)
    other = tmp_path / "other"
    other.write_bytes(bytes(50 * MIB))
    first.create()
    before = first.peek(0, 128 * MIB)
    create_metadata(other, place=second)
    assert first.peek(0, 128 * MIB) == before
    one, two = open_copy(first.data, first.place), open_copy(other, second)
    with pytest.raises(BackingInUse):
        open_backing(first.meta, part=range(2 * places.SLOT_BYTES, 3 * places.SLOT_BYTES))
    with pytest.raises(BackingInUse):
        open_backing(first.meta)
    for copy in (one, two):
        copy.close()
    with pytest.raises(MetadataExists):
        create_metadata(other, place=second)
    wipe_metadata(other, second)
    with pytest.raises(metadata.NoMetadata):
        read_superblock(other, second)
    assert first.read()


def test_a_disk_in_use_is_left_alone(tmp_path: pathlib.Path) -> None:
    disks = Disks(tmp_path, "internal", 100 * MIB)
    disks.create()
    copy = open_copy(disks.data)
    for attempt in (disks.create, lambda: apply_activity_log(disks.data), lambda: wipe_metadata(disks.data)):
        with pytest.raises(DiskInUse):
            attempt()
    copy.close()
    wipe_metadata(disks.data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'version "v09";',
        'version "v08";\nuuid { 1; 2; 3; x; }',
        "This_is_an_unclean_meta_data_dump",
    ],
)
def test_what_is_no_dump_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    disks = Disks(tmp_path, "internal", 100 * MIB)
    with pytest.raises(DumpUnreadable):
        restore_metadata(disks.data, text)
    with pytest.raises(metadata.NoMetadata):
        disks.read()


@given(st.integers(0, 1 << 50), KINDS, st.integers(0, 1 << 46), RINGS)
def test_a_layout_never_overlaps(disk_bytes: int, kind: str, meta_bytes: int, ring: tuple[int, int]) -> None:
    place = {
        "internal": INTERNAL,
        "external": MetaDisk(kind="external", path=pathlib.Path("/m"), index=1),
        "flexible": MetaDisk(kind="flexible", path=pathlib.Path("/m")),
    }[kind]
    try:
        layout = places.layout_for(disk_bytes, *ring, place, meta_bytes)
    except RelevoError as error:
        told = str(error)
    else:
        told = ""
    if told:
        assert told.endswith(".")
        return
    holder = meta_bytes if layout.external else disk_bytes
    parts = sorted(
        [
            (layout.superblock, layout.superblock + 4096),
            (layout.activity_log, layout.activity_log + layout.al_bytes),
            (layout.bitmap, layout.bitmap + layout.bitmap_bytes),
            *([] if layout.external else [(0, layout.data_bytes)]),
        ]
    )
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(parts))
    assert parts[-1][1] <= holder
    assert all(begin % 4096 == 0 for begin, _ in parts)
    assert layout.bitmap_bytes * 8 * 4096 >= layout.data_bytes
