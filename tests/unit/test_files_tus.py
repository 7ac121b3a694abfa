"""The resumable upload protocol: offsets that hold, takeover of broken-off attempts, expiry, and what survives."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import os
import pathlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from files_bench import ALONE, SYNCED, Bench, bench, outcome, until
from relevo.files import limits, tus, uploads
from relevo.files.errors import FilesError
from relevo.files.volume import Volume

TUS = {"Tus-Resumable": "1.0.0"}
PART = {**TUS, "Content-Type": "application/offset+octet-stream"}


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with bench(folder, **options) as it:
            await story(it)

    asyncio.run(main())


@pytest.mark.parametrize("field", ["k\u00f1 YQ==", "\udcff YQ==", "a\x01 YQ=="])
def test_metadata_that_cannot_be_sent_back(field: str) -> None:
    assert outcome(lambda: tus.parse_metadata(field))[1] == 400


def metadata(**pairs: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


async def create(it: Bench, length: int, **pairs: str) -> str:
    headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(**pairs)}
    async with it.http.post(it.url + ".relevo/tus/", headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        assert "Upload-Expires" in answer.headers or length == 0
        return it.url.rstrip("/") + answer.headers["Location"]


async def offset(it: Bench, url: str) -> int:
    async with it.http.head(url, headers=TUS) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return int(answer.headers["Upload-Offset"])


async def patch(it: Bench, url: str, at: int, data: bytes) -> tuple[int, dict[str, str]]:
    async with it.http.patch(url, headers={**PART, "Upload-Offset": str(at)}, data=io.BytesIO(data)) as answer:
        return answer.status, dict(answer.headers)


def test_the_protocol(tmp_path: pathlib.Path) -> None:
    data = os.urandom(300_000)

    async def story(it: Bench) -> None:
        async with it.http.options(it.url + ".relevo/tus/") as answer:
            assert answer.headers["Tus-Version"] == "1.0.0"
            assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,checksum,termination,expiration"
        async with it.http.post(it.url + ".relevo/tus/", headers={"Upload-Length": "1"}) as answer:
            assert answer.status == 412
        url = await create(it, len(data), path="sub/ñ.bin")
        assert await offset(it, url) == 0
        status, headers = await patch(it, url, 0, data[:100_000])
        assert (status, headers["Upload-Offset"]) == (204, "100000")
        assert not (it.root / "sub").exists()
        assert (await patch(it, url, 5, b"x"))[0] == 409
        assert (await patch(it, url, 100_000, data))[0] == 413
        async with it.http.patch(url, headers={**TUS, "Upload-Offset": "100000"}, data=b"x") as answer:
            assert answer.status == 415
        status, headers = await patch(it, url, 100_000, data[100_000:])
        assert (status, headers["Relevo-Copies"]) == (204, "2")
        assert headers["Content-Location"] == "/sub/%C3%B1.bin"
        assert (it.root / "sub/ñ.bin").read_bytes() == data
        assert await offset(it, url) == len(data)  # a client whose last answer was lost learns that it is finished
        async with it.http.delete(url, headers=TUS) as answer:
            assert answer.status == 204
        async with it.http.head(url, headers=TUS) as answer:
            assert answer.status == 404
        assert it.work_files() == []
        assert (it.root / "sub/ñ.bin").exists()

    served(tmp_path, story)


def test_a_long_check_outlasts_its_client(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that loses patience while its checksum is compared finds the same work going on, not begun anew."""
    data = os.urandom(1000)

    async def story(it: Bench) -> None:
        begun, gate, checks = asyncio.Event(), asyncio.Event(), 0
        plain = it.service.sha256

        async def slow(fd: int) -> bytes:
            nonlocal checks
            checks += 1
            begun.set()
            await gate.wait()
            return await plain(fd)

        monkeypatch.setattr(it.service, "sha256", slow)
        url = await create(it, len(data), path="x", sha256=hashlib.sha256(data).hexdigest())
        first = asyncio.create_task(patch(it, url, 0, data))
        await begun.wait()
        second = asyncio.create_task(offset(it, url))
        with pytest.raises(aiohttp.ClientError):
            await first
        gate.set()
        assert await second == len(data)
        assert checks == 1
        assert (it.root / "x").read_bytes() == data

    served(tmp_path, story)


def test_the_last_part_is_refused_when_a_copy_was_lost_meanwhile(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(1000)

    async def story(it: Bench) -> None:
        plain = it.service.sha256

        async def losing_the_peer(fd: int) -> bytes:
            it.mirror.update(ALONE)
            return await plain(fd)

        monkeypatch.setattr(it.service, "sha256", losing_the_peer)
        url = await create(it, len(data), path="x", sha256=hashlib.sha256(data).hexdigest())
        assert (await patch(it, url, 0, data))[0] == 503
        assert not (it.root / "x").exists()
        monkeypatch.setattr(it.service, "sha256", plain)
        it.mirror.update(SYNCED)
        assert await offset(it, url) == len(data)
        assert (it.root / "x").read_bytes() == data

    served(tmp_path, story, when_degraded="refuse")


def test_close_does_not_wait_for_a_check(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being checked when the volume is taken away is finished where it is opened next."""
    data = os.urandom(1000)

    async def story(it: Bench) -> None:
        begun, plain = asyncio.Event(), it.service.sha256

        async def endless(_: int) -> bytes:
            begun.set()
            return await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(it.service, "sha256", endless)
        url = await create(it, len(data), path="x", sha256=hashlib.sha256(data).hexdigest())
        first = asyncio.create_task(patch(it, url, 0, data))
        await begun.wait()
        await it.service.close()
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], aiohttp.ClientError)
        assert not (it.root / "x").exists()
        monkeypatch.setattr(it.service, "sha256", plain)
        await it.service.open()
        assert await offset(it, url) == len(data)
        assert (it.root / "x").read_bytes() == data

    served(tmp_path, story)


def test_what_other_clients_say(tmp_path: pathlib.Path) -> None:
    """Uppy and tus-js-client send `filename` and `relativePath`; an empty file is whole at once."""

    async def story(it: Bench) -> None:
        await create(it, 0, filename="a.txt", filetype="text/plain", relativePath="null")
        await create(it, 0, name="b.txt", relativePath="in/c.txt")
        assert (it.root / "a.txt").read_bytes() == b""
        assert (it.root / "in/c.txt").read_bytes() == b""
        headers = {**TUS, "Upload-Length": "1"}
        bad = ["", metadata(filename=".."), metadata(path="../x"), metadata(path=".relevo/x"), "path !!!", "path"]
        for field in bad:
            async with it.http.post(it.url + ".relevo/tus/", headers=headers | {"Upload-Metadata": field}) as answer:
                assert answer.status in {400, 403}
        for length in ("", "-1", "x", "1" * 30):
            wrong = {**TUS, "Upload-Length": length, "Upload-Metadata": metadata(filename="x")}
            async with it.http.post(it.url + ".relevo/tus/", headers=wrong) as answer:
                assert answer.status == 400
        too_much = {**TUS, "Upload-Length": str(1 << 58), "Upload-Metadata": metadata(filename="x")}
        async with it.http.post(it.url + ".relevo/tus/", headers=too_much) as answer:
            assert answer.status == 507
        async with it.http.head(it.url + ".relevo/tus/../../x", headers=TUS) as answer:
            assert answer.status == 404

    served(tmp_path, story)


def test_broken_off_part_counts_and_a_new_one_takes_over(tmp_path: pathlib.Path) -> None:
    """The old connection is silent, not closed: HEAD ends it, and tells what it brought to stable storage."""
    data = os.urandom(20 << 20)

    async def story(it: Bench) -> None:
        url = await create(it, len(data), path="x")
        path = url.removeprefix(it.url.rstrip("/"))
        fields = "".join(f"{name}: {value}\r\n" for name, value in PART.items())
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{fields}Upload-Offset: 0\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data[: 13 << 20])
        await writer.drain()
        stored = it.root / ".relevo/uploads" / path.rsplit("/", 1)[1]
        await until(lambda: stored.stat().st_size >= limits.SYNC_EVERY_BYTES)
        reached = await offset(it, url)
        assert limits.SYNC_EVERY_BYTES <= reached <= 13 << 20
        assert (await patch(it, url, reached, data[reached:]))[0] == 204
        assert (it.root / "x").read_bytes() == data
        writer.transport.abort()

    served(tmp_path, story)


def test_an_upload_goes_on_at_the_other_server(tmp_path: pathlib.Path) -> None:
    data = os.urandom(2 << 20)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    async def main() -> None:
        async with bench(tmp_path / "one", root=tmp_path / "volume") as one:
            path = (await create(one, len(data), path="x")).removeprefix(one.url)
            await patch(one, one.url + path, 0, data[:1_500_000])
        async with bench(tmp_path / "two", root=tmp_path / "volume") as two:
            assert await offset(two, two.url + path) == 1_500_000
            assert (await patch(two, two.url + path, 1_500_000, data[1_500_000:]))[0] == 204
            assert (two.root / "x").read_bytes() == data

    asyncio.run(main())


def test_what_was_not_counted_is_cut_off(tmp_path: pathlib.Path) -> None:
    """After a power cut the file may be longer than what is known to be good: those bytes prove nothing."""

    async def story(it: Bench) -> None:
        url = await create(it, 10, path="x")
        await patch(it, url, 0, b"abcd")
        with (it.root / ".relevo/uploads" / url.rsplit("/", 1)[1]).open("ab") as stored:
            stored.write(b"\0\0\0")
        assert await offset(it, url) == 4
        assert (await patch(it, url, 4, b"efghij"))[0] == 204
        assert (it.root / "x").read_bytes() == b"abcdefghij"

    served(tmp_path, story)


def test_checksum_is_compared_before_publishing(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await create(it, 4, path="x", sha256=hashlib.sha256(b"else").hexdigest())
        assert (await patch(it, url, 0, b"abcd"))[0] == 422
        async with it.http.head(url, headers=TUS) as answer:
            assert answer.status == 404
        url = await create(it, 4, path="x", sha256=hashlib.sha256(b"abcd").hexdigest())
        status, headers = await patch(it, url, 0, b"abcd")
        assert (status, headers["Repr-Digest"].startswith("sha-256=:")) == (204, True)

    served(tmp_path, story)


def test_degraded_refusal(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await create(it, 4, path="x")
        it.mirror.update(ALONE)
        assert (await patch(it, url, 0, b"abcd"))[0] == 503
        assert await offset(it, url) == 0

    served(tmp_path, story, when_degraded="refuse")


def test_complete_but_unnamed_is_finished_at_open(tmp_path: pathlib.Path) -> None:
    """Power failed between the last byte and the rename."""
    (tmp_path / "volume").mkdir()
    volume = Volume(tmp_path / "volume")
    volume.open()
    upload = uploads.create(volume, uploads.Info(("in", "x"), 4))
    handle = uploads.open_to_append(volume, upload)
    os.write(handle.fd, b"abcd")
    uploads.sync(volume, upload, handle)
    volume.close()

    async def story(it: Bench) -> None:
        await until((it.root / "in/x").exists)
        assert (it.root / "in/x").read_bytes() == b"abcd"
        assert await offset(it, f"{it.url}.relevo/tus/{upload.id}") == 4

    served(tmp_path, story)


def test_old_uploads_and_leftovers_are_cleaned(tmp_path: pathlib.Path) -> None:
    (tmp_path / "volume").mkdir()
    volume = Volume(tmp_path / "volume")
    volume.open()
    old = uploads.create(volume, uploads.Info(("old",), 4))
    fresh = uploads.create(volume, uploads.Info(("fresh",), 4))
    folder = tmp_path / "volume/.relevo/uploads"
    (folder / "garbage.info").write_bytes(b"not a record")
    (folder / ("0" * 32)).write_bytes(b"bytes without a record")
    yesterday = time.time() - 86_401
    for name in (old.id, old.id + ".info", "garbage.info", "0" * 32):
        os.utime(folder / name, (yesterday, yesterday))
    volume.new_temporary()
    (tmp_path / "volume/.relevo/trash/t/below").mkdir(parents=True)
    volume.close()

    async def story(it: Bench) -> None:
        expected = [f".relevo/uploads/{fresh.id}", f".relevo/uploads/{fresh.id}.info"]
        await until(lambda: it.work_files() == expected)
        assert list((it.root / ".relevo/trash").iterdir()) == []

    served(tmp_path, story)


def test_cleaning_never_ends_a_request(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part begins while the cleaner already looks at its upload, and lasts while the cleaner comes by again."""
    looked, gate = threading.Event(), threading.Event()
    rounds, plain_ids, plain_expired = 0, uploads.ids, uploads.expired

    def ids(volume: Volume) -> list[str]:
        nonlocal rounds
        rounds += 1
        return plain_ids(volume)

    def expired(volume: Volume, upload_id: str, expiry_ms: int) -> bool:
        looked.set()
        assert gate.wait(20)
        return plain_expired(volume, upload_id, expiry_ms)

    monkeypatch.setattr(uploads, "ids", ids)
    monkeypatch.setattr(uploads, "expired", expired)
    monkeypatch.setattr(limits, "CLEAN_INTERVAL_S", 0.001)

    async def story(it: Bench) -> None:
        url = await create(it, 4, path="x")
        await until(looked.is_set)

        async def body() -> AsyncIterator[bytes]:
            yield b"ab"
            await until(lambda: it.service.traffic.active)
            gate.set()
            seen = rounds
            await until(lambda: rounds > seen + 2)
            yield b"cd"

        async with it.http.patch(url, headers={**PART, "Upload-Offset": "0"}, data=body()) as answer:
            assert answer.status == 204
        assert (it.root / "x").read_bytes() == b"abcd"

    served(tmp_path, story)


def test_an_empty_upload_that_the_cleaner_finishes_first(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = uploads.create

    async def story(it: Bench) -> None:
        def slow(volume: Volume, info: uploads.Info) -> uploads.Upload:
            upload = plain(volume, info)
            end = time.monotonic() + 20
            while not (it.root / "x").exists():
                assert time.monotonic() < end, "the cleaner did not finish it"
                time.sleep(0.001)
            return upload

        monkeypatch.setattr(uploads, "create", slow)
        await create(it, 0, path="x")
        assert (it.root / "x").read_bytes() == b""

    monkeypatch.setattr(limits, "CLEAN_INTERVAL_S", 0.001)
    served(tmp_path, story)


def test_damaged_records_are_no_uploads(tmp_path: pathlib.Path) -> None:
    (tmp_path / "volume").mkdir()
    volume = Volume(tmp_path / "volume")
    volume.open()
    upload = uploads.create(volume, uploads.Info(("x",), 4))
    record = tmp_path / "volume/.relevo/uploads" / (upload.id + ".info")
    good = record.read_bytes()
    assert good.startswith(b"00000000000000000000\n{")
    for bad in (b"", good[:10], good[:30], b"9" * 20 + good[20:], good.replace(b'"x"', b'"../x"')):
        record.write_bytes(bad)
        with pytest.raises(FilesError, match="does not exist"):
            uploads.load(volume, upload.id)
    volume.close()


@given(st.dictionaries(st.from_regex(r"[a-zA-Z0-9]{1,8}", fullmatch=True), st.text(max_size=40), max_size=5))
def test_metadata_round_trip(pairs: dict[str, str]) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        field = metadata(**pairs)
        assert tus.parse_metadata(field) == pairs


@given(st.text(max_size=80))
def test_metadata_of_any_kind(field: str) -> None:
    place, status = outcome(lambda: tus.place_of(tus.parse_metadata(field)))
    assert status in {200, 400, 403, 414}
    assert all(name not in {"", ".", ".."} and "/" not in name for name in place or ())


def test_the_first_bytes_come_with_the_creation(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        headers = {**PART, "Upload-Length": "6", "Upload-Metadata": metadata(path="x")}
        async with it.http.post(it.url + ".relevo/tus/", headers=headers, data=b"abc") as answer:
            assert (answer.status, answer.headers["Upload-Offset"]) == (201, "3")
            url = it.url.rstrip("/") + answer.headers["Location"]
        assert await offset(it, url) == 3
        assert (await patch(it, url, 3, b"def"))[0] == 204
        assert (it.root / "x").read_bytes() == b"abcdef"
        async with it.http.post(it.url + ".relevo/tus/", headers=headers, data=b"ABCDEF") as answer:
            assert (answer.status, answer.headers["Relevo-Copies"]) == (201, "2")
        assert (it.root / "x").read_bytes() == b"ABCDEF"

    served(tmp_path, story)


def test_bytes_with_a_wrong_checksum_do_not_count(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await create(it, 6, path="x")
        right = base64.b64encode(hashlib.sha1(b"abc", usedforsecurity=False).digest()).decode()
        for field, status, reached in (("sha1 AAAA", 460, 0), ("crc9 AAAA", 400, 0), (f"sha1 {right}", 204, 3)):
            headers = {**PART, "Upload-Offset": "0", "Upload-Checksum": field}
            async with it.http.patch(url, headers=headers, data=b"abc") as answer:
                assert answer.status == status
            assert await offset(it, url) == reached
        assert (await patch(it, url, 3, b"def"))[0] == 204
        assert (it.root / "x").read_bytes() == b"abcdef"

    served(tmp_path, story)


def test_what_is_there_stays_if_that_is_wanted(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await create(it, 3, path="x", ifexists="refuse")
        (it.root / "x").write_bytes(b"came meanwhile")
        assert (await patch(it, url, 0, b"new"))[0] == 409
        headers = {**TUS, "Upload-Length": "3", "Upload-Metadata": metadata(path="x", ifexists="refuse")}
        async with it.http.post(it.url + ".relevo/tus/", headers=headers) as answer:
            assert answer.status == 409
        assert (it.root / "x").read_bytes() == b"came meanwhile"

    served(tmp_path, story)
