"""Listing, download, upload and changes, over a real socket on a real folder."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from files_bench import ALONE, SYNCED, Bench, bench, until
from relevo.files import limits
from relevo.files.entries import names_in
from relevo.files.pool import Pool

BODY = bytes(range(256)) * 1024  # 256 KiB: above the size that is sent in one go


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with bench(folder, **options) as it:
            await story(it)

    asyncio.run(main())


def digest_field(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_put_creates_folders_and_replaces(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        async with it.http.put(it.url + "a/b/ñandú.bin", data=BODY) as answer:
            assert answer.status == 201
            assert answer.headers["Relevo-Copies"] == "2"
            first = answer.headers["ETag"]
        async with it.http.put(it.url + "a/b/ñandú.bin", data=b"new") as answer:
            assert answer.status == 204
            assert answer.headers["ETag"] != first
        assert (it.root / "a/b/ñandú.bin").read_bytes() == b"new"
        assert it.work_files() == []

    served(tmp_path, story)


def test_put_without_content_length(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        async def pieces() -> Any:
            for _ in range(5):
                yield BODY

        async with it.http.put(it.url + "chunked", data=pieces()) as answer:
            assert answer.status == 201
        assert (it.root / "chunked").read_bytes() == BODY * 5

    served(tmp_path, story)


def test_put_is_refused_before_the_body(tmp_path: pathlib.Path) -> None:
    """Expect: 100-continue: no 100 for what is refused anyway."""

    async def story(it: Bench) -> None:
        head = b"PUT /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        it.mirror.update(ALONE)
        answer = await it.raw(head % (b"x", 10))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in answer
        it.mirror.update(SYNCED)
        answer = await it.raw(head % (b"x", 1 << 60))
        assert answer.startswith(b"HTTP/1.1 507 ")
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(head % (b"x", 3))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"abc")
        assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
        writer.close()

    served(tmp_path, story, when_degraded="refuse")


def test_copies_are_told(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        it.mirror.update(ALONE)
        async with it.http.put(it.url + "x", data=b"1") as answer:
            assert (answer.status, answer.headers["Relevo-Copies"]) == (201, "1")
        async with it.http.get(it.url + ".relevo/health") as answer:
            assert await answer.json() == {"state": "open", "copies": 1, "node": "nodo1"}
        it.mirror.update(SYNCED)
        async with it.http.delete(it.url + "x") as answer:
            assert (answer.status, answer.headers["Relevo-Copies"]) == (204, "2")

    served(tmp_path, story)


def test_conditional_put(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        create = {"If-None-Match": "*"}
        async with it.http.put(it.url + "x", data=b"1", headers=create) as answer:
            assert answer.status == 201
            etag = answer.headers["ETag"]
        async with it.http.put(it.url + "x", data=b"2", headers=create) as answer:
            assert answer.status == 412
        async with it.http.put(it.url + "x", data=b"2", headers={"If-Match": '"other"'}) as answer:
            assert answer.status == 412
        async with it.http.put(it.url + "x", data=b"2", headers={"If-Match": etag}) as answer:
            assert answer.status == 204
        async with it.http.delete(it.url + "x", headers={"If-Match": etag}) as answer:
            assert answer.status == 412
        assert (it.root / "x").read_bytes() == b"2"

    served(tmp_path, story)


def test_put_checks_the_digest(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for name in ("Content-Digest", "Repr-Digest"):
            async with it.http.put(it.url + "x", data=BODY, headers={name: digest_field(b"else")}) as answer:
                assert answer.status == 422
            assert not (it.root / "x").exists()
        async with it.http.put(it.url + "x", data=BODY, headers={"Repr-Digest": digest_field(BODY)}) as answer:
            assert answer.status == 201
            assert answer.headers["Repr-Digest"] == digest_field(BODY)
        async with it.http.head(it.url + "x", headers={"Want-Repr-Digest": "sha-256=1"}) as answer:
            assert answer.headers["Repr-Digest"] == digest_field(BODY)
        assert it.work_files() == []

    served(tmp_path, story)


def test_broken_off_put_leaves_nothing(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "x").write_bytes(b"old")
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"z" * 3_000_000)
        await until(it.work_files)
        writer.transport.abort()
        assert await it.service.traffic.settled(10)
        await it.service.close()
        assert (it.root / "x").read_bytes() == b"old"
        assert it.work_files() == []

    served(tmp_path, story)


def test_ranges(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "x").write_bytes(BODY)
        async with it.http.get(it.url + "x") as answer:
            assert (answer.status, await answer.read()) == (200, BODY)
            etag, date = answer.headers["ETag"], answer.headers["Last-Modified"]
        cases = [
            ("bytes=0-99", BODY[:100]),
            ("bytes=100-", BODY[100:]),
            ("bytes=-70000", BODY[-70000:]),
            ("bytes=5-9999999", BODY[5:]),
        ]
        for wanted, expected in cases:
            for validator in (etag, date, None):
                headers = {"Range": wanted} | ({"If-Range": validator} if validator else {})
                async with it.http.get(it.url + "x", headers=headers) as answer:
                    assert (answer.status, await answer.read()) == (206, expected)
                    start = (
                        len(BODY) - int(wanted[7:]) if wanted.startswith("bytes=-") else int(wanted[6:].split("-")[0])
                    )
                    last = start + len(expected) - 1
                    assert answer.headers["Content-Range"] == f"bytes {start}-{last}/{len(BODY)}"
        async with it.http.get(it.url + "x", headers={"Range": "bytes=3-4", "If-Range": '"old"'}) as answer:
            assert (answer.status, await answer.read()) == (200, BODY)
        async with it.http.get(it.url + "x", headers={"Range": f"bytes={len(BODY)}-"}) as answer:
            assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(BODY)}")
        async with it.http.get(it.url + "x", headers={"If-None-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        async with it.http.head(it.url + "x") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(BODY)))

    served(tmp_path, story)


def test_large_download_by_a_slow_reader(tmp_path: pathlib.Path) -> None:
    """sendfile has to wait for the client, several times, and the connection is usable afterwards."""

    async def story(it: Bench) -> None:
        data = os.urandom(24 << 20)
        (it.root / "large").write_bytes(data)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=4096)
        writer.write(
            b"GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        (it.root / "small").write_bytes(b"tiny")
        await reader.readuntil(b"\r\n\r\n")
        digest, left = hashlib.sha256(), len(data)
        while left:
            piece = await reader.read(min(left, 1 << 16))
            digest.update(piece)
            left -= len(piece)
        assert digest.digest() == hashlib.sha256(data).digest()
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert rest.endswith(b"tiny")
        writer.close()

    served(tmp_path, story)


def test_listing_for_programs(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "dir").mkdir()
        (it.root / "lost+found").mkdir()
        (it.root / "f10").write_bytes(b"1")
        (it.root / "f9").write_bytes(b"22")
        (it.root / "a&b<i>.txt").write_bytes(b"")
        (it.root / os.fsdecode(b"latin\xf1")).write_bytes(b"x")
        (it.root / "link").symlink_to("/etc/passwd")
        async with it.http.get(it.url, headers={"Accept": "application/json"}) as answer:
            listed = (await answer.json())["entries"]
        assert [entry["name"] for entry in listed] == ["dir", "a&b<i>.txt", "f9", "f10", "latin\ufffd"]
        async with it.http.get(it.url + "?format=json&sort=size&order=desc") as answer:
            assert [entry["name"] for entry in (await answer.json())["entries"]][:2] == ["dir", "f9"]
        status, _, body = await it.get("/latin%F1")
        assert (status, body) == (200, b"x")
        assert listed[-1]["href"] == "./latin%F1"
        async with it.http.get(it.url + "dir", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (308, "/dir/")

    served(tmp_path, story)


def test_page(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "a&b<i>.txt").write_bytes(b"x" * 1536)
        async with it.http.get(it.url, headers={"Accept": "text/html", "Accept-Language": "es-ES,en;q=0.5"}) as answer:
            text = await answer.text()
            assert answer.headers["Content-Language"] == "es"
            assert "script-src 'nonce-" in answer.headers["Content-Security-Policy"]
        assert '<html lang="es">' in text
        assert "a&amp;b&lt;i&gt;.txt" in text
        assert "1,5 KiB" in text
        async with it.http.get(it.url + "?lang=en", headers={"Accept": "text/html"}) as answer:
            assert "1.5 KiB" in await answer.text()
        async with it.http.get(it.url + "none", headers={"Accept": "text/html", "Accept-Language": "es"}) as answer:
            assert answer.status == 404
            assert "No hay nada en esta dirección." in await answer.text()

    served(tmp_path, story)


def test_forms_without_script(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", BODY, filename="C:/Users/ana/año 1.bin")
        form.add_field("file", b"two", filename="two.txt")
        async with it.http.post(it.url + "?action=upload&lang=es", data=form, allow_redirects=False) as answer:
            assert answer.status == 303
            assert answer.headers["Location"] == "/?lang=es&done=stored&n=2&copies=2"
        assert (it.root / "año 1.bin").read_bytes() == BODY
        assert (it.root / "two.txt").read_bytes() == b"two"
        async with it.http.post(it.url + "?action=folder", data={"name": "new"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/?done=created&n=1&copies=2")
        (it.root / "new/x").write_bytes(b"")
        async with it.http.get(it.url + "new?delete=ask") as answer:
            assert "action=delete" in await answer.text()
        async with it.http.post(it.url + "new?action=delete", data={"confirmed": "1"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/?done=discarded&n=1&copies=2")
        assert not (it.root / "new").exists()

    served(tmp_path, story)


def test_broken_off_form_leaves_nothing(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"z" * 2_000_000
        head = b"POST /?action=upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
        whole = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        assert (await it.raw(whole)).startswith(b"HTTP/1.1 400 ")
        await it.service.close()
        assert names_in(it.root) == [".relevo"]
        assert it.work_files() == []

    served(tmp_path, story)


def test_another_sites_page_changes_nothing(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "x").write_bytes(b"")
        foreign = ("http://evil.example", "null", "http://[")
        for headers in ({"Sec-Fetch-Site": "cross-site"}, *({"Origin": origin} for origin in foreign)):
            async with it.http.post(it.url + "x?action=delete", headers=headers) as answer:
                assert answer.status == 403
        async with it.http.delete(it.url + "x", headers={"Origin": it.url.rstrip("/")}) as answer:
            assert answer.status == 204

    served(tmp_path, story)


def test_folders(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        async def do(method: str, path: str, **options: Any) -> int:
            async with it.http.request(method, it.url + path, **options) as answer:
                return answer.status

        assert await do("MKCOL", "d/") == 201
        assert await do("MKCOL", "d") == 405
        assert await do("MKCOL", "no/d") == 409
        assert await do("PUT", "d", data=b"") == 409
        assert await do("PUT", "d/", data=b"") == 400
        assert await do("PUT", "d/x", data=b"") == 201
        assert await do("PUT", "d/x/y", data=b"") == 409
        assert await do("DELETE", "d") == 409
        assert await do("DELETE", "d?recursive=1") == 204
        assert await do("DELETE", "d") == 404
        assert await do("DELETE", "") == 403
        assert await do("PATCH", "x") == 405
        assert await do("OPTIONS", "") == 204

    served(tmp_path, story)


def test_deep_tree_is_deleted_whole(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        fd = os.open(it.root, os.O_RDONLY)
        for _ in range(1200):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        async with it.http.delete(it.url + "d?recursive=1") as answer:
            assert answer.status == 204
        await it.service.close()
        assert names_in(it.root) == [".relevo"]
        assert names_in(it.root / ".relevo/trash") == []

    served(tmp_path, story)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../../etc/passwd", 400),
        ("/%2e%2e/%2e%2e/etc/passwd", 400),
        ("/a/./b", 400),
        ("/..%2fetc/passwd", 400),
        ("/a%2Fb", 400),
        ("/nul%00.txt", 400),
        ("/outside/passwd", 404),
        ("/outside", 403),
        ("/fifo", 403),
        ("/.relevo", 404),
        ("/.relevo/tmp/", 404),
        ("//.relevo/uploads/", 404),
        ("/%2erelevo/uploads/", 404),
        ("/lost+found/", 404),
        ("/" + "x" * 256, 414),
        ("/" + "%C3%B1" * 128, 414),
        ("/" + "abc/" * 1000, 414),
        ("/x" * 200, 404),
        ("/file/", 404),
        ("/file/below", 404),
        ("http://x/file", 200),
        ("//file", 200),
    ],
)
def test_path_tricks(tmp_path: pathlib.Path, path: str, status: int) -> None:
    async def story(it: Bench) -> None:
        (it.root / "outside").symlink_to("/etc")
        (it.root / "file").write_bytes(b"in")
        (it.root / "lost+found").mkdir()
        os.mkfifo(it.root / "fifo")
        got, _, body = await it.get(path)
        assert got == status
        assert b"root:" not in body
        if status != 200:
            assert body.count(b"\n") == 1  # one sentence

    served(tmp_path, story)


def test_numbers_without_end(tmp_path: pathlib.Path) -> None:
    """More digits than Python turns into a number."""

    async def story(it: Bench) -> None:
        (it.root / "file").write_bytes(b"in")
        many = "9" * 5000
        for field in (f"bytes={many}-", f"bytes=0-{many}", f"bytes=-{many}"):
            assert (await it.get("/file", Range=field))[0] == 200
        assert (await it.get("/?from=" + many, Accept="text/html"))[0] == 200

    served(tmp_path, story)


def test_a_checksum_lets_others_in(tmp_path: pathlib.Path) -> None:
    """The checksum of a large file occupies no thread for long, and a hand-over does not wait for its end."""

    async def story(it: Bench) -> None:
        with (it.root / "large").open("w+b") as file:
            file.truncate(5 * limits.DIGEST_SLICE_BYTES)
            whole = asyncio.create_task(it.service.sha256(file.fileno()))
            await asyncio.sleep(0)  # its first slice is in the only thread
            done, _ = await asyncio.wait(
                {whole, other := asyncio.create_task(it.service.run(os.getpid))}, return_when=asyncio.FIRST_COMPLETED
            )
            assert done == {other}
            assert await whole == hashlib.sha256(bytes(5 * limits.DIGEST_SLICE_BYTES)).digest()

    served(tmp_path, story, pool=Pool(workers=1))


@pytest.mark.parametrize("name", ["%01", "a%0Ab", "%FF", "..", "a%2Fb", ".relevo/x", "lost+found", "x" * 256])
def test_bad_new_names(tmp_path: pathlib.Path, name: str) -> None:
    async def story(it: Bench) -> None:
        head = f"PUT /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
        answer = await it.raw(head.encode())
        assert answer.split()[1] in {b"400", b"403", b"414"}
        assert it.work_files() == []

    served(tmp_path, story)


def test_put_through_a_link_goes_nowhere(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (tmp_path / "elsewhere").mkdir()
        (it.root / "out").symlink_to(tmp_path / "elsewhere")
        async with it.http.put(it.url + "out/x", data=b"1") as answer:
            assert answer.status == 409
        async with it.http.put(it.url + "out", data=b"1") as answer:
            assert answer.status == 403
        assert names_in(tmp_path / "elsewhere") == []

    served(tmp_path, story)


def test_uploaded_pages_cannot_act(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for name in ("x.html", "x.svg", "x.xhtml", "x.xml"):
            (it.root / name).write_bytes(b"<script>alert(1)</script>")
            async with it.http.get(it.url + name) as answer:
                assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        name = 'a"; filename=evil.exe\u202e%.txt'
        (it.root / name).write_bytes(b"")
        async with it.http.get(it.url + "a%22;%20filename=evil.exe%E2%80%AE%25.txt?download=1") as answer:
            field = answer.headers["Content-Disposition"]
        assert field == (
            'attachment; filename="a_; filename=evil.exe__.txt"; '
            "filename*=UTF-8''a%22%3B%20filename%3Devil.exe%E2%80%AE%25.txt"
        )

    served(tmp_path, story)
