"""The rulers of the lab: polls, gaps, comparison of disks."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.lab import compare
from relevo.lab.errors import MachineOff
from relevo.lab.folder import DEFAULT_DIR, LabFolder
from relevo.lab.lab import Lab
from relevo.lab.poll import Poll, longest_gap_s, read_polls
from relevo.lab.verify import Verdict, Wanted, verify


def _good(*moments: float) -> list[Poll]:
    return [Poll(moment - 0.01, moment, good=True, why="200") for moment in moments]


def test_a_gap_is_the_time_between_neighbouring_good_answers() -> None:
    polls = sorted(
        [*_good(1.0, 1.1, 3.1, 3.2), Poll(1.2, 2.2, good=False, why="time limit")], key=lambda poll: poll.done
    )
    assert longest_gap_s(polls, 0.5, 4.0) == pytest.approx(2.0)


def test_a_gap_that_began_before_the_window_counts_whole() -> None:
    assert longest_gap_s(_good(1.0, 3.0, 3.1), 2.0, 3.1) == pytest.approx(2.0)


def test_a_service_that_does_not_come_back_is_a_gap_until_the_end() -> None:
    assert longest_gap_s(_good(1.0, 1.1), 1.0, 9.1) == pytest.approx(8.0)
    assert longest_gap_s([], 1.0, 9.0) == pytest.approx(8.0)


def test_the_last_line_of_a_log_may_be_cut_off(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "polls.jsonl"
    lines = [msgspec.json.encode(poll) + b"\n" for poll in _good(2.0, 1.0)]
    log.write_bytes(b"".join(lines) + lines[0][:10])
    assert [poll.done for poll in read_polls(log)] == [1.0, 2.0]


@given(st.sets(st.integers(0, 99), max_size=5), st.integers(1, 100))
def test_differing_blocks_are_found_and_only_below_the_size(
    tmp_path_factory: pytest.TempPathFactory, changed: set[int], blocks: int
) -> None:
    folder = tmp_path_factory.mktemp("compare", numbered=True)
    one, other = folder / "one", folder / "other"
    one.write_bytes(bytes(100 * compare.BLOCK_BYTES))
    data = bytearray(100 * compare.BLOCK_BYTES)
    for block in changed:
        data[block * compare.BLOCK_BYTES + 17] = 1
    other.write_bytes(data)
    wanted = sorted(block for block in changed if block < blocks)
    assert list(compare.differing_blocks(one, other, blocks * compare.BLOCK_BYTES)) == wanted
    assert compare.equal(one, other, blocks * compare.BLOCK_BYTES) is (not wanted)


def test_verify_names_what_is_lost_and_what_is_corrupt() -> None:
    """Against a server of a few lines that knows two files."""
    contents = {"/whole.txt": b"whole", "/folder/with%20blank": b"changed"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        body = contents.get(path)
        status = "404 Not Found" if body is None else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body or b'')}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + (body or b""))
        writer.close()
        await writer.wait_closed()

    async def story() -> Verdict:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        whole = hashlib.sha256(b"whole").hexdigest()
        wanted = [Wanted("whole.txt", whole, 5), Wanted("folder/with blank", "0" * 64, 7), Wanted("away", "0" * 64, 1)]
        try:
            return await verify(f"http://127.0.0.1:{port}/", wanted)
        finally:
            server.close()

    verdict = asyncio.run(story())
    assert verdict.lost == ["away (404)"]
    assert verdict.corrupt == ["folder/with blank"]
    assert verdict.files == 2


def test_remedies_name_the_folder_of_a_lab_that_is_not_the_usual_one(tmp_path: pathlib.Path) -> None:
    assert LabFolder(DEFAULT_DIR).order("down") == "relevo lab down"
    with pytest.raises(MachineOff, match=f"relevo lab boot nodo1 --dir {tmp_path}"):
        Lab(tmp_path).machine("nodo1").power()
