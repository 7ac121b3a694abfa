"""The file service on a file system of its own that is full, read-only, or to be unmounted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import pathlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from files_bench import bench, until

SIZE_MIB = 12
TUS = {"Tus-Resumable": "1.0.0"}


def sh(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
def volume(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A small file system in memory; its unmounting at the end fails if anything of ours still lies on it."""
    root = tmp_path / "volume"
    root.mkdir()
    sh("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "none", str(root))
    try:
        yield root
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            sh("mount", "-o", "remount,rw", str(root))
        sh("umount", str(root))


async def endless(count_mib: int) -> AsyncIterator[bytes]:
    for _ in range(count_mib):
        yield os.urandom(1 << 20)


def test_full(tmp_path: pathlib.Path, volume: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path, root=volume) as it:
            spanish = {"Accept-Language": "es"}
            async with it.http.put(it.url + "x", data=endless(2 * SIZE_MIB), headers=spanish) as answer:
                assert (answer.status, await answer.text()) == (507, "El volumen está lleno.\n")
            assert not (volume / "x").exists()
            await until(lambda: it.work_files() == [])
            async with it.http.put(it.url + "x", data=endless(SIZE_MIB - 4)) as answer:
                assert answer.status == 201  # the room is free again
            # announced: refused before the body
            head = f"PUT /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {8 << 20}\r\n\r\n"
            answer_bytes = await it.raw(head.encode())
            assert answer_bytes.startswith(b"HTTP/1.1 507 ")
            assert b"and this needs 8.0 MiB" in answer_bytes

    asyncio.run(main())


def test_full_in_the_middle_of_a_resumable_upload(tmp_path: pathlib.Path, volume: pathlib.Path) -> None:
    """What was stored before the disk was full is kept; when there is room again the upload goes on."""
    size = 8 << 20

    async def main() -> None:
        async with bench(tmp_path, root=volume) as it:
            place = base64.b64encode(b"x").decode()
            wanted = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"path {place}"}
            async with it.http.post(it.url + ".relevo/tus/", headers=wanted) as answer:
                url = it.url.rstrip("/") + answer.headers["Location"]
            (volume / "other").write_bytes(bytes(6 << 20))
            assert await patch(it, url, 0, size) == 507
            async with it.http.head(url, headers=TUS) as answer:
                reached = int(answer.headers["Upload-Offset"])
            assert 0 < reached < size
            (volume / "other").unlink()
            assert await patch(it, url, reached, size) == 204
            assert (volume / "x").stat().st_size == size

    async def patch(it: Any, url: str, offset: int, end: int) -> int:
        part = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}

        async def body() -> AsyncIterator[bytes]:
            left = end - offset
            while left:
                yield bytes(min(left, 1 << 20))
                left -= min(left, 1 << 20)

        async with it.http.patch(url, headers=part, data=body()) as answer:
            return int(answer.status)

    asyncio.run(main())


def test_read_only(tmp_path: pathlib.Path, volume: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path, root=volume) as it:
            (volume / "x").write_bytes(b"here")
            assert it.service.status()["problem"] == ""
            sh("mount", "-o", "remount,ro", str(volume))
            async with it.http.put(it.url + "y", data=b"1", headers={"Accept-Language": "es"}) as answer:
                assert answer.status == 503
                assert await answer.text() == "El volumen es de solo lectura: ahora no se puede cambiar nada.\n"
            for method, path in (("DELETE", "x"), ("MKCOL", "d")):
                async with it.http.request(method, it.url + path) as answer:
                    assert answer.status == 503
            assert "read-only" in it.service.status()["problem"]  # the manager acts on it
            async with it.http.get(it.url + "x") as answer:
                assert await answer.read() == b"here"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "ordered"), [("mkfs.ext4", True), ("mkfs.xfs", True), ("mkfs.ext4 -O ^has_journal", False)]
)
def test_file_systems_that_keep_order_are_recognised(tmp_path: pathlib.Path, make: str, ordered: bool) -> None:
    """On these, changes made at once share their commits; on the others each is fsynced by itself."""
    image, root = tmp_path / "image", tmp_path / "volume"
    image.touch()
    os.truncate(image, 320 << 20)
    sh(*make.split(), "-q", str(image))
    root.mkdir()
    sh("mount", "-o", "loop", str(image), str(root))

    async def main() -> None:
        async with bench(tmp_path, root=root) as it:
            assert it.service.volume.commits.ordered == ordered
            async with it.http.put(it.url + "deep/er/x", data=b"1") as answer:
                assert answer.status == 201
            async with it.http.delete(it.url + "deep/er/x") as answer:
                assert answer.status == 204

    try:
        asyncio.run(main())
    finally:
        sh("umount", str(root))


def test_closed_volumes_can_be_unmounted(tmp_path: pathlib.Path, volume: pathlib.Path) -> None:
    """In the middle of a download and of an upload; and what is mounted next is served."""

    async def main() -> None:
        async with bench(tmp_path, root=volume) as it:
            (volume / "large").write_bytes(bytes(8 << 20))
            _, taking = await asyncio.open_connection("127.0.0.1", it.port, limit=4096)
            taking.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            _, giving = await asyncio.open_connection("127.0.0.1", it.port)
            giving.write(b"PUT /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n" + bytes(1000))
            await until(lambda: it.service.traffic.active == 2)
            await it.service.close()
            sh("umount", str(volume))
            sh("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(volume))
            (volume / "new").write_bytes(b"2")
            await it.service.open()
            async with it.http.get(it.url + "new") as answer:
                assert await answer.read() == b"2"
            taking.close()
            giving.close()

    asyncio.run(main())
