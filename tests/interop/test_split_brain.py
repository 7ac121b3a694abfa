"""A split brain made on purpose: both sides reach the same verdict, each policy gives what the kernel's drbd gives."""

from __future__ import annotations

import mmap
import os
import pathlib
from collections.abc import Callable

import pytest
from kernel_pair import BLOCK, Pair

from relevo.mirror import saved

PairMaker = Callable[..., Pair]
OURS_FIRST, KERNEL_FIRST = 16, 64
"""The first block that each side writes when it is alone."""
OURS_BYTE, KERNEL_BYTE = b"\x11", b"\x22"
STAND_ALONE_LIMIT_S = 30.0
_MIRRORED = {"discard-local": "discard-remote", "discard-remote": "discard-local"}
_FIELDS = {"after-sb-0pri": "after_sb_0pri", "after-sb-1pri": "after_sb_1pri", "after-sb-2pri": "after_sb_2pri"}


def with_policies(make_pair: PairMaker, **policies: str) -> Pair:
    """A pair in sync; the policies are ours, the kernel's are what has to go with them."""
    names = {name.replace("_", "-"): policy for name, policy in policies.items()}
    pair = make_pair(
        net=tuple(f"{name} {_MIRRORED.get(policy, policy)};" for name, policy in names.items()),
        options={_FIELDS[name]: policy for name, policy in names.items()},
    )
    pair.start_in_sync()
    return pair


def write_ours(pair: Pair, blocks: int) -> None:
    """Write to our device, past every cache."""
    fd = os.open(pair.ours.device, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as page:
            page[:] = OURS_BYTE * BLOCK
            for number in range(OURS_FIRST, OURS_FIRST + blocks):
                os.pwrite(fd, page, number * BLOCK)
    finally:
        os.close(fd)


def write_kernel(pair: Pair, blocks: int) -> None:
    """Write to the kernel's device, past every cache."""
    pair.kernel.run(
        f"tr '\\0' '\\{ord(KERNEL_BYTE):03o}' < /dev/zero | dd of=/dev/drbd0 bs={BLOCK} seek={KERNEL_FIRST}"
        f" count={blocks} iflag=fullblock oflag=direct 2>&1"
    )


def part(pair: Pair, *, ours: int, kernel: int, was_primary: str = "", still_primary: tuple[str, ...] = ()) -> None:
    """Cut the two apart; each becomes Primary alone and writes so many blocks.

    Args:
        pair: in sync, both Secondary.
        ours, kernel: blocks that each side writes.
        was_primary: `ours` or `kernel`: who is Primary already when they are cut apart.
        still_primary: who stays so afterwards.
    """
    if was_primary == "ours":
        pair.ours.promote()
    elif was_primary == "kernel":
        pair.kernel.run("drbdadm primary r0")
    pair.cut()
    pair.wait_lost()
    if was_primary != "ours":
        pair.ours.promote(force=True)
    if was_primary != "kernel":
        pair.kernel.run("drbdadm primary r0")
    write_ours(pair, ours)
    write_kernel(pair, kernel)
    if "ours" not in still_primary:
        pair.ours.call("secondary")
    if "kernel" not in still_primary:
        pair.kernel.run("drbdadm secondary r0")


def expect(pair: Pair, winner: str, *, ours: int, kernel: int, end: str = "StandAlone") -> None:
    """Heal, and see what becomes of it: `ours` or `kernel` wins, or nobody and both stay apart, the kernel as `end`."""
    before = pair.ours.data_bytes()
    pair.heal()
    if not winner:
        pair.ours.wait_for(lambda found: found["split_brain"], "the split brain", STAND_ALONE_LIMIT_S)
        pair.ours.wait_for(lambda found: found["connection"] == "StandAlone", "its end alone", STAND_ALONE_LIMIT_S)
        pair.kernel.wait_for(f"cs:{end}", STAND_ALONE_LIMIT_S)
        assert pair.ours.data_bytes() == before
        assert not kept(pair)
        return
    pair.wait_in_sync()
    data = pair.ours.data_bytes()
    at_ours, at_kernel = OURS_FIRST * BLOCK, KERNEL_FIRST * BLOCK
    if ours:
        assert (data[at_ours : at_ours + ours * BLOCK] == OURS_BYTE * ours * BLOCK) is (winner == "ours")
    if kernel:
        assert (data[at_kernel : at_kernel + kernel * BLOCK] == KERNEL_BYTE * kernel * BLOCK) is (winner == "kernel")
    pair.compare_whole()
    copies = kept(pair)
    assert len(copies) == (1 if winner == "kernel" and ours else 0)
    for copy in copies:
        check_kept(pair.folder, copy, before)


def kept(pair: Pair) -> list[saved.Saved]:
    """What our side has kept of its own changes."""
    return saved.saved_copies(pair.ours.paths.state, "r0")


def check_kept(folder: pathlib.Path, copy: saved.Saved, before: bytes) -> None:
    """A saved copy gives back every block that our side had written alone."""
    assert copy.index.reason == "split-brain"
    image = folder / "extracted"
    saved.extract(copy, image, onto=False)
    found = image.read_bytes()
    blocks = [offset for offset in range(0, len(before), BLOCK) if before[offset : offset + BLOCK] == OURS_BYTE * BLOCK]
    assert blocks
    for offset in blocks:
        assert found[offset : offset + BLOCK] == before[offset : offset + BLOCK], offset


NOBODY = [
    # policy, blocks of ours, blocks of the kernel's, who was Primary, who wins
    ("disconnect", 4, 9, "ours", ""),
    ("discard-younger-primary", 4, 9, "ours", "ours"),
    ("discard-younger-primary", 9, 4, "kernel", "kernel"),
    ("discard-older-primary", 9, 4, "ours", "kernel"),
    ("discard-older-primary", 4, 9, "kernel", "ours"),
    ("discard-younger-primary", 4, 9, "", "kernel"),
    ("discard-zero-changes", 0, 4, "ours", "kernel"),
    ("discard-zero-changes", 4, 0, "ours", "ours"),
    ("discard-zero-changes", 4, 5, "ours", ""),
    ("discard-least-changes", 4, 9, "ours", "kernel"),
    ("discard-least-changes", 9, 4, "kernel", "ours"),
    ("discard-local", 9, 4, "ours", "kernel"),
    ("discard-remote", 4, 9, "ours", "ours"),
]
SHORT = {("discard-least-changes", 4, 9, "ours", "kernel")}


@pytest.mark.parametrize(
    ("policy", "ours", "kernel", "was_primary", "winner"),
    [pytest.param(*case, marks=[pytest.mark.short] if case in SHORT else []) for case in NOBODY],
)
def test_no_primary(make_pair: PairMaker, policy: str, ours: int, kernel: int, was_primary: str, winner: str) -> None:
    pair = with_policies(make_pair, after_sb_0pri=policy)
    part(pair, ours=ours, kernel=kernel, was_primary=was_primary)
    expect(pair, winner, ours=ours, kernel=kernel)


ONE = [
    # the Primary, after-sb-1pri, after-sb-0pri (as ours has it), who wins
    ("ours", "disconnect", "discard-remote", ""),
    ("ours", "consensus", "discard-remote", "ours"),
    ("ours", "consensus", "discard-local", ""),
    ("kernel", "consensus", "discard-local", "kernel"),
    ("kernel", "consensus", "discard-remote", ""),
    ("ours", "violently-as0p", "discard-remote", "ours"),
    ("kernel", "violently-as0p", "discard-local", "kernel"),
    ("ours", "discard-secondary", "disconnect", "ours"),
    ("kernel", "discard-secondary", "disconnect", "kernel"),
    ("ours", "call-pri-lost-after-sb", "discard-remote", "ours"),
    ("ours", "call-pri-lost-after-sb", "discard-local", "kernel"),
]


@pytest.mark.parametrize(("primary", "policy", "zero", "winner"), ONE)
def test_one_primary(make_pair: PairMaker, primary: str, policy: str, zero: str, winner: str) -> None:
    pair = with_policies(make_pair, after_sb_0pri=zero, after_sb_1pri=policy)
    part(pair, ours=4, kernel=9, was_primary=primary, still_primary=(primary,))
    expect(pair, winner, ours=4, kernel=9)


def test_a_losing_primary_of_the_kernels_calls_its_administrator(make_pair: PairMaker) -> None:
    """A kernel never manages to give up its role at that point: it calls the handler and stays alone."""
    pair = with_policies(make_pair, after_sb_0pri="discard-remote", after_sb_1pri="call-pri-lost-after-sb")
    part(pair, ours=4, kernel=9, was_primary="kernel", still_primary=("kernel",))
    pair.heal()
    pair.kernel.wait_for("cs:StandAlone", STAND_ALONE_LIMIT_S)
    assert "pri-lost-after-sb" in pair.kernel.messages()
    decided = pair.ours.events("handshake")[-1]
    assert decided["direction"] == "SOURCE", "the same verdict on this side"
    assert not kept(pair)


def test_a_primary_that_loses_violently_stays_apart(make_pair: PairMaker) -> None:
    pair = with_policies(make_pair, after_sb_0pri="discard-local", after_sb_1pri="violently-as0p")
    part(pair, ours=4, kernel=9, was_primary="ours", still_primary=("ours",))
    expect(pair, "", ours=4, kernel=9, end="WFConnection")  # it has won, and waits for its target
    assert pair.ours.status()["role"] == "Primary"


@pytest.mark.parametrize(
    ("two", "zero"),
    [
        ("disconnect", "discard-remote"),
        ("violently-as0p", "discard-remote"),
        ("call-pri-lost-after-sb", "discard-remote"),
    ],
)
def test_two_primaries(make_pair: PairMaker, two: str, zero: str) -> None:
    """Without allow-two-primaries, which this side never has, two Primaries part again whoever has won."""
    pair = with_policies(make_pair, after_sb_0pri=zero, after_sb_2pri=two)
    part(pair, ours=4, kernel=9, was_primary="ours", still_primary=("ours", "kernel"))
    expect(pair, "", ours=4, kernel=9)
    assert pair.ours.status()["role"] == "Primary"


def test_policies_that_differ_are_refused_by_name(make_pair: PairMaker) -> None:
    pair = make_pair(net=("after-sb-0pri discard-least-changes;",))
    pair.start()
    told = "The peer's after-sb-0pri is discard-least-changes, this side's is disconnect"
    pair.ours.wait_for(lambda found: told in found["problem"], "its refusal", STAND_ALONE_LIMIT_S)
    pair.kernel.wait_for("cs:(StandAlone|WFConnection)")


@pytest.mark.parametrize("loser", [pytest.param("ours", marks=pytest.mark.short), "kernel"])
def test_a_split_brain_is_resolved_by_hand(make_pair: PairMaker, loser: str) -> None:
    pair = with_policies(make_pair)
    part(pair, ours=4, kernel=9, was_primary="ours")
    expect(pair, "", ours=4, kernel=9)
    status = pair.ours.status()
    assert status["split_brain_own_bytes"] >= 4 * BLOCK
    assert status["split_brain_peer_bytes"] >= 9 * BLOCK
    if loser == "ours":
        pair.kernel.run("drbdadm connect r0", check=False)
        pair.ours.call("discard")
    else:
        pair.kernel.run("drbdadm disconnect r0; drbdadm connect --discard-my-data r0")
        pair.ours.call("keep")
    expect(pair, "kernel" if loser == "ours" else "ours", ours=4, kernel=9)


def test_a_dry_run_from_either_side_changes_nothing(make_pair: PairMaker) -> None:
    pair = with_policies(make_pair)
    pair.ours.promote()
    pair.kernel.run("drbdadm disconnect r0")
    write_ours(pair, 4)
    pair.kernel.run("drbdadm connect --tentative r0")
    pair.kernel.wait_for("cs:StandAlone", STAND_ALONE_LIMIT_S)
    assert "dry-run connect: Would become SyncTarget" in pair.kernel.messages()
    assert pair.ours.events("dry_run"), "this side has said what it would have become"
    pair.ours.wait_for(lambda found: found["connection"] == "WFConnection", "the next link", STAND_ALONE_LIMIT_S)
    pair.ours.call("disconnect")
    pair.kernel.run("drbdadm connect r0")
    pair.ours.call("connect", dry_run=True)
    told = pair.ours.wait_for(lambda found: "Dry run" in found["problem"], "the end of its dry run")
    assert "source of a resync of the blocks marked" in told["problem"]
    assert told["connection"] == "StandAlone"
    pair.kernel.wait_for("cs:WFConnection", STAND_ALONE_LIMIT_S)
    pair.ours.call("connect")
    pair.compare_whole()
