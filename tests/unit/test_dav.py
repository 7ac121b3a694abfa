"""WebDAV over a real socket on a real folder: what the file managers of Windows, macOS and Linux send."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import pathlib
import re
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest

from accounts_support import PASSWORD, basic, family, order
from files_bench import ALONE, Bench, bench, until
from relevo.files import limits, lock_store
from relevo.files.accounts import throttle
from relevo.files.entries import names_in
from relevo.files.pool import Pool

D = "{DAV:}"
MS = "{urn:schemas-microsoft-com:}"
LOCKINFO = """<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:{}/></D:lockscope>
<D:locktype><D:write/></D:locktype><D:owner><D:href>Ana's computer</D:href></D:owner></D:lockinfo>"""
WIN32 = """<?xml version="1.0" encoding="utf-8" ?>
<D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>
<Z:Win32CreationTime>Fri, 27 Nov 2026 08:00:00 GMT</Z:Win32CreationTime>
<Z:Win32LastModifiedTime>Fri, 27 Nov 2026 08:00:01 GMT</Z:Win32LastModifiedTime>
<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>"""


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with bench(folder, **options) as it:
            await story(it)

    asyncio.run(main())


@dataclasses.dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def xml(self) -> Element:
        return fromstring(self.body)  # noqa: S314 - our own answer, of any length

    def condition(self) -> str:
        """What a DAV:error says was not met."""
        assert self.xml.tag == D + "error"
        return self.xml[0].tag.removeprefix(D)


async def ask(it: Bench, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with it.http.request(method, f"{it.url}dav/{path}", data=body, headers=fields) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def lock(it: Bench, path: str, scope: str = "exclusive", **headers: str) -> str:
    answer = await ask(it, "LOCK", path, LOCKINFO.format(scope), **headers)
    assert answer.status in {200, 201}, answer
    assert answer.xml.find(f".//{D}owner/{D}href") is not None
    return str(answer.headers["Lock-Token"])


def properties(answer: Answer) -> dict[str, dict[str, str | None]]:
    """What a 207 says was found: address -> property -> text."""
    assert answer.status == 207, answer
    told: dict[str, dict[str, str | None]] = {}
    for response in answer.xml:
        found = told.setdefault(response.findtext(D + "href") or "", {})
        for part in response.findall(D + "propstat"):
            if "200" in (part.findtext(D + "status") or ""):
                found |= {item.tag: item.text for item in part.findall(f"{D}prop/*")}
    return told


def test_what_is_spoken_here(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        answer = await ask(it, "OPTIONS", "")
        assert (answer.status, answer.headers["DAV"], answer.headers["MS-Author-Via"]) == (200, "1, 2", "DAV")
        assert "PROPFIND" in answer.headers["Allow"]
        async with it.http.options(it.url) as root:  # Windows asks the root first
            assert root.headers["DAV"] == "1, 2"
        for method in ("POST", "PATCH", "SEARCH"):
            assert (await ask(it, method, "")).status == 405

    served(tmp_path, story)


def test_the_same_files_and_versions_as_on_the_pages(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        assert (await ask(it, "MKCOL", "a b")).headers["Location"] == "/dav/a%20b/"
        stored = await ask(it, "PUT", "a b/ñ.txt", b"hello")
        assert (stored.status, stored.headers["Location"]) == (201, "/dav/a%20b/%C3%B1.txt")
        async with it.http.get(it.url + "a b/ñ.txt") as page:
            assert (await page.read(), page.headers["ETag"]) == (b"hello", stored.headers["ETag"])
        told = properties(await ask(it, "PROPFIND", "a b/", Depth="1"))
        assert set(told) == {"/dav/a%20b/", "/dav/a%20b/%C3%B1.txt"}
        file = told["/dav/a%20b/%C3%B1.txt"]
        assert (file[D + "getetag"], file[D + "getcontentlength"]) == (stored.headers["ETag"], "5")
        assert file[D + "getcontenttype"] == "text/plain; charset=utf-8"
        assert D + "quota-used-bytes" not in told["/dav/a%20b/"]
        part = await ask(it, "GET", "a b/ñ.txt", Range="bytes=1-2", Translate="f")
        assert (part.status, part.body) == (206, b"el")
        folder = await ask(it, "GET", "a b", Accept="text/html")
        assert folder.status == 200  # the page of the folder, after a redirection
        assert b"<html" in folder.body

    served(tmp_path, story)


def test_depth_has_a_bound_and_large_folders_none(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for headers in ({}, {"Depth": "infinity"}):
            refused = await ask(it, "PROPFIND", "", **headers)
            assert (refused.status, refused.condition()) == (403, "propfind-finite-depth")
        assert (await ask(it, "PROPFIND", "", Depth="2")).status == 400
        assert (await ask(it, "PROPFIND", "nothing", Depth="0")).status == 404
        many = 3 * limits.DAV_SLICE
        for number in range(many):
            (it.root / f"{number}").touch()
        told = properties(await ask(it, "PROPFIND", "", Depth="1"))
        assert len(told) == many + 1
        assert ".relevo" not in "".join(told)
        assert list(properties(await ask(it, "PROPFIND", "", Depth="0"))) == ["/dav/"]
        assert len(properties(await ask(it, "PROPFIND", "", Depth="1,noroot"))) == many

    served(tmp_path, story)


def test_windows_stores_a_file(tmp_path: pathlib.Path) -> None:
    """An empty file, a lock, times, the content, the end of the lock: what it sends for each file."""

    async def story(it: Bench) -> None:
        assert (await ask(it, "PROPFIND", "x.doc", b"", Depth="0", Translate="f")).status == 404
        assert (await ask(it, "PUT", "x.doc", b"", Translate="f")).status == 201
        token = await lock(it, "x.doc", Timeout="Second-3600")
        mine = {"If": f"({token})"}
        assert (await ask(it, "PROPPATCH", "x.doc", WIN32, **mine)).status == 207
        assert (await ask(it, "PUT", "x.doc", b"content", Translate="f", **mine)).status == 204
        assert (await ask(it, "PROPPATCH", "x.doc", WIN32, **mine)).status == 207
        assert (await ask(it, "UNLOCK", "x.doc", Lock_Token=token)).status == 204
        found = properties(await ask(it, "PROPFIND", "x.doc", b"", Depth="0"))["/dav/x.doc"]
        assert found[MS + "Win32CreationTime"] == "Fri, 27 Nov 2026 08:00:00 GMT"
        assert found[MS + "Win32FileAttributes"] == "00000020"
        assert found[D + "getcontentlength"] == "7"
        assert names_in(it.service.volume.work("locks")) == []

    served(tmp_path, story)


def test_macos_stores_a_file(tmp_path: pathlib.Path) -> None:
    """Chunked, with the length in a field of its own; beside it the file of its attributes, deleted for good."""

    async def chunks(pieces: int) -> Any:
        for _ in range(pieces):
            yield b"z" * 100_000

    async def story(it: Bench) -> None:
        assert (await ask(it, "PUT", "film.mov", b"")).status == 201
        token = await lock(it, "film.mov", Timeout="Second-600")
        mine = {"If": f"({token})", "X-Expected-Entity-Length": "300000"}
        assert (await ask(it, "PUT", "film.mov", chunks(3), **mine)).status == 204
        assert (it.root / "film.mov").stat().st_size == 300_000
        mine["X-Expected-Entity-Length"] = str(1 << 58)  # refused before the body
        refused = await ask(it, "PUT", "film.mov", chunks(1), **mine)
        assert (refused.status, refused.condition()) == (507, "sufficient-disk-space")
        assert (await ask(it, "UNLOCK", "film.mov", Lock_Token=token)).status == 204
        for name in ("._film.mov", ".DS_Store", "film.mov"):
            await ask(it, "PUT", name, b"attributes")
            assert f"/dav/{name}" in properties(await ask(it, "PROPFIND", "", Depth="1"))
            assert (await ask(it, "DELETE", name)).status == 204
        async with it.http.get(it.url + ".relevo/bin/?format=json") as binned:
            assert [entry["path"] for entry in (await binned.json())["entries"]] == ["/film.mov"]

    served(tmp_path, story)


def test_what_is_said_about_a_thing_goes_where_it_goes(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        async def said(path: str) -> str | None:
            told = properties(await ask(it, "PROPFIND", path, Depth="0"))
            return next(iter(told.values())).get(MS + "Win32FileAttributes")

        await ask(it, "MKCOL", "folder")
        await ask(it, "PUT", "folder/x", b"1")
        for path in ("folder/", "folder/x"):
            assert (await ask(it, "PROPPATCH", path, WIN32)).status == 207
            assert await said(path) == "00000020"
        await ask(it, "COPY", "folder", Destination="/dav/copy")
        await ask(it, "COPY", "folder", Destination="/dav/shallow", Depth="0")
        assert [await said("copy/"), await said("copy/x"), await said("shallow/")] == ["00000020"] * 3
        assert (await ask(it, "PROPFIND", "shallow/x", Depth="0")).status == 404
        await ask(it, "MOVE", "copy", Destination="/dav/moved")
        assert await said("moved/x") == "00000020"
        async with it.http.put(it.url + "moved/x", data=b"by the page") as page:  # replaced by another way in
            assert page.status == 204
        assert await said("moved/x") == "00000020"
        assert (await ask(it, "DELETE", "moved/x")).status == 204  # into the bin and back
        async with it.http.get(it.url + ".relevo/bin/?format=json") as page:
            binned = (await page.json())["entries"][0]["id"]
        async with it.http.post(it.url + ".relevo/bin/?action=restore", data={"item": binned}) as page:
            assert page.status == 200
        assert await said("moved/x") == "00000020"
        assert await said("") is None  # the root of the volume can have some too
        assert (await ask(it, "PROPPATCH", "", WIN32)).status == 207
        assert await said("") == "00000020"

    served(tmp_path, story)


def test_a_change_of_properties_is_whole_or_nothing(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await ask(it, "PUT", "x", b"1")
        body = '<propertyupdate xmlns="DAV:"><set><prop><a xmlns="u:">{}</a>{}</prop></set></propertyupdate>'
        answer = await ask(it, "PROPPATCH", "x", body.format("1", "<getetag>mine</getetag>"))
        assert [item.text for item in answer.xml.iter(D + "status")] == [
            "HTTP/1.1 403 Forbidden",
            "HTTP/1.1 424 Failed Dependency",
        ]
        answer = await ask(it, "PROPPATCH", "x", body.format("z" * (limits.PROPERTIES_MAX_BYTES + 1), ""))
        assert [item.text for item in answer.xml.iter(D + "status")] == ["HTTP/1.1 507 Insufficient Storage"]
        assert "{u:}a" not in properties(await ask(it, "PROPFIND", "x", Depth="0"))["/dav/x"]
        large = await ask(it, "PROPPATCH", "x", b"<a>" + b" " * limits.DAV_XML_MAX_BYTES)
        assert large.status == 413
        bomb = await ask(it, "PROPPATCH", "x", '<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>')
        assert (bomb.status, bomb.condition()) == (400, "no-external-entities")

    served(tmp_path, story)


def test_locks_bind_every_way_in(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await ask(it, "MKCOL", "d")
        await ask(it, "PUT", "d/x", b"1")
        await ask(it, "MKCOL", "other")
        token = await lock(it, "d/x")
        shut = await ask(it, "PUT", "d/x", b"2")
        assert (shut.status, shut.condition()) == (423, "lock-token-submitted")
        assert shut.xml.findtext(f".//{D}href") == "/dav/d/x"
        for method, path, to in (
            ("DELETE", "d", ""),
            ("MOVE", "d", "/dav/e"),
            ("PROPPATCH", "d/x", ""),
            ("COPY", "d", "/dav/d/x"),
        ):
            body = WIN32 if method == "PROPPATCH" else None
            assert (await ask(it, method, path, body, Destination=to)).status in ({409} if to == "/dav/d/x" else {423})
        async with it.http.put(it.url + "d/x", data=b"2") as page:
            assert (page.status, "WebDAV" in await page.text()) == (409, True)
        place = {"Upload-Length": "1", "Upload-Metadata": f"path {base64.b64encode(b'd/x').decode()}"}
        async with it.http.post(it.url + ".relevo/tus/", headers={"Tus-Resumable": "1.0.0", **place}) as page:
            assert page.status == 409
        async with it.http.delete(it.url + "d?recursive=1") as page:
            assert page.status == 409
        for action, fields in (
            ("delete", {"item": "d"}),
            ("rename", {"item": "d", "name": "e"}),
            ("move", {"item": "d", "to": "other"}),
        ):
            async with it.http.post(f"{it.url}?action={action}", data=fields) as page:
                assert page.status == 409
        assert (it.root / "d/x").read_bytes() == b"1"
        assert (
            await ask(it, "LOCK", "d", LOCKINFO.format("exclusive"), Depth="infinity")
        ).condition() == "no-conflicting-lock"
        assert (await ask(it, "DELETE", "d", If=f"</dav/d/x> ({token})")).status == 204
        await ask(it, "MKCOL", "d")  # the lock went with the file
        assert (await ask(it, "PUT", "d/x", b"3")).status == 201

    served(tmp_path, story)


def test_a_locked_folder_takes_nothing_new(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await ask(it, "MKCOL", "d")
        await ask(it, "PUT", "d/old", b"1")
        token = await lock(it, "d", Depth="0")
        assert (await ask(it, "PUT", "d/old", b"2")).status == 204  # its names are locked, not its files
        for method, path in (("PUT", "d/new"), ("MKCOL", "d/new"), ("DELETE", "d/old")):
            assert (await ask(it, method, path)).status == 423
        async with it.http.put(it.url + "d/deep/new", data=b"1") as page:
            assert page.status == 409
        assert sorted(os.listdir(it.root / "d")) == ["old"]  # noqa: PTH208
        assert (await ask(it, "PUT", "d/new", b"2", If=f"</dav/d> ({token})")).status == 201

    served(tmp_path, story)


def test_locks_are_shared_refreshed_and_survive(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        first = await lock(it, "x", "shared")
        second = await lock(it, "x", "shared")
        assert (await ask(it, "LOCK", "x", LOCKINFO.format("exclusive"))).status == 423
        assert (await ask(it, "PUT", "x", b"1", If=f"({second})")).status == 204
        refreshed = await ask(it, "LOCK", "x", If=f"({first})", Timeout="Second-7")
        assert refreshed.xml.findtext(f".//{D}timeout") == "Second-7"
        assert (await ask(it, "LOCK", "x", If="(<opaquelocktoken:none>)")).status == 412
        assert (await ask(it, "LOCK", "x")).status == 400
        assert (await ask(it, "UNLOCK", "x", Lock_Token="<opaquelocktoken:none>")).status == 409
        await it.service.close()  # what a failover does: the other server reads the volume
        await it.service.open()
        assert (await ask(it, "PUT", "x", b"2")).status == 423
        found = await ask(it, "PROPFIND", "x", Depth="0")
        tokens = {item.text for item in found.xml.iter(D + "href")} & {first.strip("<>"), second.strip("<>")}
        assert len(tokens) == 2
        left = [int((item.text or "").removeprefix("Second-")) for item in found.xml.iter(D + "timeout")]
        assert min(left) > 7  # time to refresh it, which nobody could meanwhile
        for token in (first, second):
            assert (await ask(it, "UNLOCK", "x", Lock_Token=token)).status == 204
        assert names_in(it.service.volume.work("locks")) == []
        assert (await ask(it, "PUT", "x", b"3")).status == 204

    served(tmp_path, story)


@pytest.mark.parametrize("end", ["UNLOCK", "DELETE"])
def test_a_lock_that_ends_while_it_is_refreshed_does_not_come_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    async def story(it: Bench) -> None:
        token = await lock(it, "x")
        begun, go_on, write = threading.Event(), threading.Event(), lock_store._write

        def slowly(*args: Any) -> None:
            begun.set()
            assert go_on.wait(20)
            write(*args)

        with monkeypatch.context() as patch:
            patch.setattr(lock_store, "_write", slowly)
            refresh = asyncio.create_task(ask(it, "LOCK", "x", If=f"({token})"))
            await asyncio.to_thread(begun.wait, 20)
            assert (await ask(it, end, "x", Lock_Token=token, If=f"({token})")).status == 204
            go_on.set()
            assert (await refresh).status == 412
        assert names_in(it.service.volume.work("locks")) == []
        assert (await ask(it, "PUT", "x", b"1")).status in {201, 204}

    served(tmp_path, story)


def test_a_lock_is_refreshed_twice_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(it: Bench) -> None:
        token = await lock(it, "x")
        together, before = threading.Barrier(2), it.service.volume.commits.before

        def both(fd: int) -> None:
            together.wait(20)  # both have begun to write
            before(fd)

        with monkeypatch.context() as patch:
            patch.setattr(it.service.volume.commits, "before", both)
            told = await asyncio.gather(*(ask(it, "LOCK", "x", If=f"({token})") for _ in range(2)))
            assert [one.status for one in told] == [200, 200]
        assert len(names_in(it.service.volume.work("locks"))) == 1

    served(tmp_path, story)


def test_a_lock_on_nothing_any_more_does_not_come_back(tmp_path: pathlib.Path) -> None:
    """Power failed between the deletion and the end of the lock; and what lies there is no lock at all."""

    async def story(it: Bench) -> None:
        await lock(it, "x")
        await lock(it, "y")
        await it.service.close()
        (it.root / "x").unlink()
        for name in ("0", "01234567-0123-0123-0123-0123456789ab", "left.new"):
            (it.root / ".relevo/locks" / name).write_text("nonsense")
        await it.service.open()
        assert len(names_in(it.service.volume.work("locks"))) == 1
        assert (await ask(it, "PUT", "x", b"1")).status == 201
        assert (await ask(it, "PUT", "y", b"1")).status == 423

    served(tmp_path, story)


def test_a_lock_that_cannot_be_written_is_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(it: Bench) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        await ask(it, "PUT", "x", b"1")
        with monkeypatch.context() as patch:
            patch.setattr(lock_store, "_write", full)
            assert (await ask(it, "LOCK", "x", LOCKINFO.format("exclusive"))).status == 507
        assert (await ask(it, "PUT", "x", b"2")).status == 204

    served(tmp_path, story)


def test_what_is_on_one_server_only_is_told_or_refused(tmp_path: pathlib.Path) -> None:
    async def told(it: Bench) -> None:
        await ask(it, "PUT", "x", b"1")
        it.mirror.update(ALONE)
        for method, body in (("PROPPATCH", WIN32), ("LOCK", LOCKINFO.format("shared"))):
            assert (await ask(it, method, "x", body)).headers["Relevo-Copies"] == "1"

    async def refused(it: Bench) -> None:
        await ask(it, "PUT", "x", b"1")
        it.mirror.update(ALONE)
        for method, body in (("PROPPATCH", WIN32), ("LOCK", LOCKINFO.format("shared")), ("MOVE", ""), ("DELETE", "")):
            assert (await ask(it, method, "x", body, Destination="/dav/y")).status == 503

    (tmp_path / "other").mkdir()
    served(tmp_path, told)
    served(tmp_path / "other", refused, when_degraded="refuse")


def test_conditions_on_entity_tags(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        etag = (await ask(it, "PUT", "x", b"1")).headers["ETag"]
        assert (await ask(it, "PUT", "x", b"2", If=f"([{etag}])")).status == 204
        assert (await ask(it, "PUT", "x", b"3", If=f"([{etag}])")).status == 412
        assert (await ask(it, "PUT", "x", b"3", If=f"(Not [{etag}])")).status == 204
        assert (await ask(it, "MOVE", "x", Destination="/dav/y", If_Match=etag)).status == 412
        assert (await ask(it, "DELETE", "x", If="(<DAV:no-lock>)")).status == 412
        assert (await ask(it, "DELETE", "x", If="nonsense")).status == 400
        assert (it.root / "x").read_bytes() == b"3"

    served(tmp_path, story)


def test_copy_and_move_over_something(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for folder, content in (("a", b"a"), ("b", b"b"), ("c", b"c")):
            await ask(it, "MKCOL", folder)
            await ask(it, "PUT", f"{folder}/x", content)
            await ask(it, "PUT", f"{folder}/{folder}", content)
        assert (await ask(it, "MOVE", "a", Destination="/dav/b", Overwrite="F")).status == 412
        assert (await ask(it, "MOVE", "a", Destination="/dav/b")).status == 204
        assert (sorted(names_in(str(it.root / "b"))), (it.root / "a").exists()) == (["a", "x"], False)
        assert (await ask(it, "COPY", "c", Destination="/dav/b")).status == 204
        assert sorted(names_in(str(it.root / "b"))) == ["c", "x"]
        assert (await ask(it, "COPY", "b/x", Destination="/dav/c")).status == 204  # a folder by a file
        assert (it.root / "c").read_bytes() == b"c"
        for to, status in (
            ("/dav/b/d", 409),
            ("/dav/b", 403),
            ("/dav/none/d", 409),
            ("/b", 502),
            ("http://else/dav/d", 502),
        ):
            assert (await ask(it, "COPY", "b", Destination=to)).status == status
        for to in ("/dav/.relevo/x", "/dav/dav", "/dav/lost+found"):
            assert (await ask(it, "COPY", "b", Destination=to)).status == 403
        assert (await ask(it, "COPY", "b")).status == 400
        assert (await ask(it, "MOVE", "", Destination="/dav/e")).status == 403
        assert (await ask(it, "PUT", "none/x", b"1")).status == 409  # no folders are made on the way
        assert (await ask(it, "PUT", "b", b"1")).status in {405, 409}
        assert (await ask(it, "MKCOL", "b")).status == 405
        assert (await ask(it, "DELETE", "")).status == 403

    served(tmp_path, story)


def test_no_link_leads_outside(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (tmp_path / "outside").write_bytes(b"secret")
        (it.root / "link").symlink_to(tmp_path / "outside")
        (it.root / "up").symlink_to("..")
        os.mkfifo(it.root / "pipe")
        for name in ("link", "up", "pipe"):
            for method in ("GET", "PROPFIND", "PROPPATCH", "LOCK", "COPY", "MOVE"):
                body = {"PROPPATCH": WIN32, "LOCK": LOCKINFO.format("shared")}.get(method)
                assert (
                    await ask(
                        it, method, name, body, Depth="0" if method != "MOVE" else "infinity", Destination="/dav/n"
                    )
                ).status == 403
        assert (await ask(it, "GET", "up/outside")).status in {403, 404}
        assert list(properties(await ask(it, "PROPFIND", "", Depth="1"))) == ["/dav/"]
        for path in ("/dav/../outside", "/dav/%2e%2e/outside", "/dav/a%2fb", "/dav/%00"):
            head = f"PROPFIND {path} HTTP/1.1\r\nHost: x\r\nDepth: 0\r\nConnection: close\r\n\r\n"
            assert (await it.raw(head.encode())).startswith(b"HTTP/1.1 400 ")
        assert (await ask(it, "PROPFIND", ".relevo", Depth="1")).status == 404
        assert (await ask(it, "MKCOL", "dav")).status == 403  # nobody would reach it on the pages
        assert (tmp_path / "outside").read_bytes() == b"secret"

    served(tmp_path, story)


EVERY_METHOD = (
    ("OPTIONS", "d", b"", {}),
    ("PUT", "d/x", b"1", {}),
    ("GET", "d/x", b"", {}),
    ("PROPFIND", "d", b"", {"Depth": "1"}),
    ("PROPPATCH", "d/x", WIN32, {}),
    ("LOCK", "d/y", LOCKINFO.format("exclusive"), {"If": "(Not <DAV:no-lock>)"}),
    ("COPY", "d", b"", {"Destination": "/dav/e"}),
    ("MOVE", "e", b"", {"Destination": "/dav/f"}),
    ("MKCOL", "g", b"", {}),
    ("DELETE", "f", b"", {}),
)


def test_the_volume_is_never_touched_on_the_event_loop(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: set[str] = set()
    watched_in_threads: set[str] = set()

    def watched(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def only_in_threads(*arguments: Any, **named: Any) -> Any:
            mine = threading.current_thread().name.startswith("volume-")
            (watched_in_threads if mine else touched).add(name)
            return call(*arguments, **named)

        return only_in_threads

    async def story(it: Bench) -> None:
        assert (await ask(it, "MKCOL", "d")).status == 201
        with monkeypatch.context() as patch:
            for name in (
                "open",
                "stat",
                "scandir",
                "rename",
                "unlink",
                "mkdir",
                "getxattr",
                "setxattr",
                "fsync",
                "fstatvfs",
            ):
                patch.setattr(os, name, watched(name))
            for method, path, body, headers in EVERY_METHOD:
                assert (await ask(it, method, path, body, **headers)).status < 300, method
        assert touched == set()
        assert watched_in_threads >= {"open", "rename", "mkdir", "getxattr", "setxattr", "fsync"}

    served(tmp_path, story)


def test_a_hanging_volume_is_told_of(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        pool, gate = Pool(workers=1, stuck_s=0.05, queue_wait_s=0.2), threading.Event()
        async with bench(tmp_path, pool=pool) as it:
            stuck = asyncio.create_task(it.service.run(gate.wait, 60))
            await until(lambda: pool.stuck)
            try:
                for method, path, body, headers in EVERY_METHOD[1:]:
                    assert (await ask(it, method, path, body, **headers)).status == 503, method
            finally:
                gate.set()
            await stuck

    asyncio.run(main())


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_accounts_and_shares_hold_over_webdav(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await family(it)
        anonymous = await ask(
            it, "PROPFIND", "", Depth="1"
        )  # although /open is public: else nobody is asked for a name
        assert anonymous.status == 401
        assert anonymous.headers["WWW-Authenticate"].startswith("Basic ")
        assert (await ask(it, "GET", "", Accept="text/html")).status == 401
        assert (await ask(it, "OPTIONS", "")).status == 200
        ana, leo, eva = basic("ana"), basic("leo"), basic("eva")
        assert (await ask(it, "PUT", "docs/x", b"1", **ana)).status == 201
        assert (await ask(it, "PUT", "docs/secret/y", b"1", **ana)).status == 201
        leos = properties(await ask(it, "PROPFIND", "docs", Depth="1", **leo))
        assert set(leos) == {"/dav/docs/", "/dav/docs/x"}
        for who, method, path, status in (
            (leo, "PUT", "docs/x", 403),
            (leo, "PROPPATCH", "docs/x", 403),
            (leo, "LOCK", "docs/x", 403),
            (leo, "MOVE", "docs/x", 403),
            (leo, "COPY", "docs/secret/y", 403),
            (leo, "PROPFIND", "docs/secret", 403),
            (eva, "GET", "docs/x", 403),
            (eva, "DELETE", "docs/x", 403),
            (ana, "DELETE", "docs", 409),
            (ana, "COPY", "docs/x", 403),  # to where she may not write
        ):
            body = {"PROPPATCH": WIN32, "LOCK": LOCKINFO.format("shared"), "PUT": b"2"}.get(method)
            answer = await ask(
                it,
                method,
                path,
                body,
                Depth="infinity" if method in {"MOVE", "DELETE"} else "0",
                Destination="/dav/open/x",
                **who,
            )
            assert (answer.status, method, path) == (status, method, path)
        assert (await ask(it, "MKCOL", "docs/s?x=1", **ana)).status == 403

    served(tmp_path, story)


def test_a_session_of_the_pages_does_not_count(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await family(it)
        fields = {"name": "ana", "password": PASSWORD}
        async with it.http.post(it.url + ".relevo/login", data=fields, allow_redirects=False) as page:
            cookie = page.cookies["relevo_session"].value
        async with it.http.get(it.url + "docs/", headers={"Cookie": f"relevo_session={cookie}"}) as page:
            assert page.status == 200
        assert (await ask(it, "PROPFIND", "docs", Depth="0", Cookie=f"relevo_session={cookie}")).status == 401
        assert (await ask(it, "PROPFIND", "docs", Depth="0", **basic("ana", "wrong"))).status == 401
        for _ in range(throttle.ADDRESS_TRIES - 1):
            it.service.accounts.throttle.failed("127.0.0.1", "eva", time.monotonic())
        assert (await ask(it, "PROPFIND", "docs", Depth="0", **basic("leo", "wrong"))).status == 429

    served(tmp_path, story)


def test_a_lock_is_its_takers(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await family(it)
        await order(it, "share-permit", name="docs", holder="eva", level="write")
        ana, eva, root = basic("ana"), basic("eva"), basic("root")
        await ask(it, "MKCOL", "docs/d", **ana)
        token = await lock(it, "docs/d/x", **ana)
        assert (await ask(it, "PUT", "docs/d/x", b"1", If=f"({token})", **eva)).status == 423  # she knows its token
        assert (await ask(it, "LOCK", "docs/d/x", If=f"({token})", **eva)).status == 412
        assert (await ask(it, "UNLOCK", "docs/d/x", Lock_Token=token, **eva)).status == 403
        assert (await ask(it, "PUT", "docs/d/x", b"1", If=f"({token})", **ana)).status == 204
        assert (await ask(it, "UNLOCK", "docs/d/x", Lock_Token=token, **root)).status == 204
        # nobody locks others out of a share inside
        refused = await ask(it, "LOCK", "docs", LOCKINFO.format("exclusive"), Depth="infinity", **ana)
        assert refused.status == 409
        assert names_in(it.service.volume.work("locks")) == []

    served(tmp_path, story)


def test_quotas_are_told_and_hold(tmp_path: pathlib.Path) -> None:
    wanted = '<propfind xmlns="DAV:"><prop><quota-available-bytes/><quota-used-bytes/></prop></propfind>'

    async def story(it: Bench) -> None:
        room = properties(await ask(it, "PROPFIND", "", wanted, Depth="0"))["/dav/"]
        assert int(room[D + "quota-available-bytes"] or 0) > 0
        await family(it)
        await order(it, "user-set", name="ana", quota_bytes=1000)
        ana = basic("ana")
        assert (await ask(it, "PUT", "docs/x", b"z" * 600, **ana)).status == 201
        room = properties(await ask(it, "PROPFIND", "docs", wanted, Depth="0", **ana))["/dav/docs/"]
        assert room == {D + "quota-available-bytes": "400", D + "quota-used-bytes": "600"}
        full = await ask(it, "PUT", "docs/y", b"z" * 600, **ana)
        assert (full.status, full.condition()) == (507, "quota-not-exceeded")
        full = await ask(it, "COPY", "docs/x", Destination="/dav/docs/y", **ana)
        assert (full.status, full.condition()) == (507, "quota-not-exceeded")

    served(tmp_path, story)


def test_changes_over_webdav_are_in_the_audit_log(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await family(it)
        ana = basic("ana")
        await ask(it, "PUT", "docs/x", b"1", **ana)
        await ask(it, "PROPFIND", "docs", Depth="1", **ana)
        await ask(it, "MOVE", "docs/x", Destination="/dav/docs/y", **ana)
        await ask(it, "GET", "docs/y", **basic("eva"))
        notes = [note for note in (await order(it, "audit", count=20))["notes"] if re.match("[A-Z]", note["what"])]
        assert [(note["who"], note["what"], note["path"], note["status"]) for note in notes] == [
            ("ana", "PUT", "/dav/docs/x", 201),
            ("ana", "MOVE", "/dav/docs/x", 201),
            ("eva", "GET", "/dav/docs/y", 403),
        ]
        assert notes[1]["to"] == "/dav/docs/y"

    served(tmp_path, story)
