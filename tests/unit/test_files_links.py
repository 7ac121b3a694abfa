"""Share links: what whoever has one sees and may do, and that it is no more than its maker may."""

from __future__ import annotations

import base64
import io
import pathlib
import re
import time
import urllib.parse
import zipfile
from typing import Any

import aiohttp
import pytest
from test_files_guard import HTML, served

from accounts_support import basic, hashed, order
from files_bench import Bench
from relevo.files import link
from relevo.files.accounts import audit, changes
from relevo.files.accounts import store as accounts_store
from relevo.files.errors import FilesError

SECRET = "s3cret-of-a-link"
TUS = {"Tus-Resumable": "1.0.0"}


async def give(it: Bench, path: str, secret: str = SECRET, **more: Any) -> str:
    """A link by ana, who manages /docs; its address."""
    await order(it, "share-permit", name="docs", holder="ana", level="manage")
    await order(it, "link-add", digest=changes.digest_of(secret), path=path, **{"creator": "ana", **more})
    return it.url + link.url_for(secret)[1:]


async def get(it: Bench, url: str, **headers: str) -> tuple[int, str, bytes]:
    """Status, Location and body, as somebody without an account."""
    async with it.http.get(url, headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", ""), await answer.read()


def test_a_folder_is_seen_and_nothing_above_or_beside(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "docs/deep/below").mkdir()
        (it.root / "docs/deep/below/c.bin").write_bytes(bytes(range(256)) * 400)
        url = await give(it, "docs/deep")
        status, _, page = await get(it, url + "/", **HTML)
        assert status == 200
        assert b"plan b.txt" in page
        assert b"docs" not in page, "the path above the link is not told"
        assert set(re.findall(rb"[?&;]action=([a-z]+)", page)) == {b"zip", b"ask"}
        found = {one.decode() for one in re.findall(rb'(?:href|src|action)="(/[^"]*)"', page)}
        leading = {one for one in found if not one.startswith(("/.relevo/assets/", link.url_for(SECRET)))}
        assert leading == set(), "every address leads through the link"
        assert (await get(it, url))[:2] == (308, link.url_for(SECRET) + "/")
        part = await get(it, url + "/below/c.bin", Range="bytes=256-259")
        assert (part[0], part[2]) == (206, bytes(range(4)))
        assert (await get(it, url + "/plan%20b.txt?preview=1", **HTML))[0] == 200
        whole = zipfile.ZipFile(io.BytesIO((await get(it, url + "/?zip=1"))[2]))
        assert sorted(whole.namelist()) == ["below/", "below/c.bin", "plan b.txt"]
        for other in ("/../plan.txt", "/%2e%2e/plan.txt", "x/", "/nothing"):
            assert (await get(it, url + other))[0] in {400, 404}, other
        assert [(await get(it, url + f"/?{word}=1"))[0] for word in ("share", "delete", "other")] == [403] * 3
        for method, way in (
            ("PUT", "/new"),
            ("DELETE", "/plan%20b.txt"),
            ("MKCOL", "/new/"),
            ("POST", "/?action=share"),
        ):
            async with it.http.request(method, url + way, data=b"a=1" if method == "POST" else b"") as answer:
                assert answer.status == 403, method
        async with it.http.post(url + "/.relevo/tus/", headers={**TUS, "Upload-Length": "1"}) as answer:
            assert answer.status in {400, 403, 404}
        assert (it.root / "docs/deep/plan b.txt").read_text() == "b"

    served(tmp_path, story)


def test_a_single_file(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await give(it, "docs/plan.txt")
        assert (await get(it, url))[::2] == (200, b"plan")
        status, place, _ = await get(it, url, **HTML)
        assert (status, place) == (303, link.url_for(SECRET) + "?preview=1")
        assert b"plan" in (await get(it, url + "?preview=1", **HTML))[2]
        assert (await get(it, url + "?file=1", **HTML))[2] == b"plan"
        assert (await get(it, url + "/x"))[0] == 404
        (it.root / "docs/plan.txt").unlink()
        assert (await get(it, url))[0] == 404

    served(tmp_path, story)


def test_files_are_put_and_nothing_is_seen_or_replaced(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await give(it, "docs/deep", kind="drop")
        page = (await get(it, url, **HTML))[2]
        assert b"plan" not in page
        assert b'type="file"' in page
        for way in ("/plan%20b.txt", "/?search=plan", "/?zip=1", "/?about=1"):
            assert (await get(it, url + way))[0] == 403, way
        assert (await get(it, url + "/", Accept="application/json"))[2].find(b"plan") < 0
        for _ in range(2):
            data = aiohttp.FormData(quote_fields=False)
            data.add_field("file", b"mine", filename="plan b.txt")
            async with it.http.post(url + "/?action=upload", data=data, allow_redirects=False) as answer:
                assert answer.status == 303
                assert answer.headers["Location"].startswith(link.url_for(SECRET) + "/?")
        assert (it.root / "docs/deep/plan b.txt").read_text() == "b"
        assert (it.root / "docs/deep/plan b (3).txt").read_text() == "mine"
        made = await put_by_tus(it, url, "../../secret/plan b.txt", b"resumable")
        assert made.headers["Upload-Offset"] == "9"
        assert (it.root / "docs/deep/plan b (4).txt").read_text() == "resumable"
        assert "Content-Location" not in made.headers
        use = it.service.seen.saved.links[changes.digest_of(SECRET)[:12]]
        assert (use.opened, use.fetched, use.stored) == (2, 0, 3)
        notes = [one for one in await read_audit(it) if one["what"] == "link_put"]
        assert [one["path"] for one in notes][-1] == "/docs/deep/plan b (4).txt"
        ana = it.service.accounts.policy.user("ana")
        assert ana is not None
        assert it.service.volume.look(("docs", "deep", "plan b (4).txt")).uid == ana.uid  # type: ignore[union-attr]

    served(tmp_path, story)


async def put_by_tus(it: Bench, url: str, name: str, data: bytes) -> aiohttp.ClientResponse:
    headers = {**TUS, "Upload-Length": str(len(data)), "Upload-Metadata": f"filename {b64(name)}"}
    async with it.http.post(url + "/.relevo/tus/", headers=headers) as made:
        assert made.status == 201, await made.text()
        at = it.url + made.headers["Location"][1:]
    assert at.startswith(url), "it goes on through the link"
    async with it.http.head(at.replace(SECRET, "another"), headers=TUS) as foreign:
        assert foreign.status == 404
    headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    async with it.http.patch(at, data=data, headers=headers) as done:
        assert done.status == 204, await done.text()
        return done


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def read_audit(it: Bench) -> list[dict[str, Any]]:
    await it.service.audit.flush()
    return audit.tail(it.service.volume, 200)


def test_a_password_is_asked_for_and_guesses_are_held_back(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        url = await give(it, "docs/plan.txt", password=hashed())
        assert (await get(it, url))[0] == 401
        assert (await get(it, url, **basic("anybody")))[::2] == (200, b"plan")
        status, _, page = await get(it, url, **HTML)
        assert status == 401
        assert b'type="password"' in page
        form = {"password": "correct horse"}
        async with it.http.post(url + "?action=open", data=form, headers=HTML, allow_redirects=False) as answer:
            assert answer.status == 303
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert f"Path={link.url_for(SECRET)};" in cookie
        word = cookie.partition(";")[0]
        assert (await get(it, url, Cookie=word))[2] == b"plan"
        await give(it, "docs/plan.txt", "another", password=hashed())
        other = it.url + link.url_for("another")[1:]
        assert (await get(it, other, Cookie=word))[0] == 401, "the word is for one link"
        for number in range(40):
            status = (await get(it, url, **basic("x", f"guess {number}")))[0]
            if status == 429:
                break
            assert status == 401
        assert status == 429
        notes = await read_audit(it)
        assert sum(one["what"] == "link_password_wrong" for one in notes) >= 10
        assert SECRET not in str(notes), "the log opens no link"

    served(tmp_path, story)


def test_a_link_ends(tmp_path: pathlib.Path) -> None:
    """With its time, its removal, its maker's permission, its maker: always with the same answer, at once."""

    async def story(it: Bench) -> None:
        gone = (await get(it, it.url + ".relevo/link/nothing"))[0]
        url = await give(it, "docs/plan.txt")
        assert (await get(it, url))[0] == 200
        await order(it, "share-permit", name="docs", holder="ana", level="write")
        assert (await get(it, url))[0] in {403, gone}
        await order(it, "share-permit", name="docs", holder="ana", level="manage")
        await order(it, "user-set", name="ana", enabled=False)
        assert (await get(it, url))[0] == gone
        await order(it, "user-set", name="ana", enabled=True)
        assert (await get(it, url))[0] == 200
        await order(it, "link-remove", id=changes.digest_of(SECRET)[:12])
        assert (await get(it, url))[0] == gone == 404
        with pytest.raises(FilesError):
            await give(it, "docs/plan.txt", expires_s=int(time.time()) - 1)
        policy = it.service.accounts.policy
        url = await give(it, "docs/plan.txt", expires_s=int(time.time()) + 100)
        policy = it.service.accounts.policy
        assert link.find(policy, SECRET, time.time()).path == ("docs", "plan.txt")
        with pytest.raises(FilesError):
            link.find(policy, SECRET, time.time() + 101)

    served(tmp_path, story)


def test_withdrawing_breaks_off_what_is_under_way(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        with (it.root / "docs/big.bin").open("wb") as out:
            out.truncate(64 << 20)
        url = await give(it, "docs/big.bin")
        async with it.http.get(url) as answer:
            await answer.content.readexactly(1)
            await order(it, "link-remove", id=changes.digest_of(SECRET)[:12])
            with pytest.raises(aiohttp.ClientError):
                await answer.read()

    served(tmp_path, story)


def test_shares_inside_keep_their_own_rules(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await order(it, "share-permit", name="secret", holder="ana", level="read")
        url = await give(it, "docs")
        assert b"plan.txt" in (await get(it, url + "/"))[2]
        assert b"secret" not in (await get(it, url + "/"))[2]
        assert (await get(it, url + "/secret/key.txt"))[0] == 403
        assert (await get(it, url + "/?zip=1"))[0] == 403

    served(tmp_path, story)


def test_who_may_make_one_and_how_the_page_does(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for who, status in (("leo", 403), ("eva", 403), ("root", 200)):
            async with it.http.get(it.url + "docs/?share=1", headers={**HTML, **basic(who)}) as answer:
                assert answer.status == status, who
        url = it.url + "docs/plan.txt"
        await order(it, "share-permit", name="docs", holder="ana", level="manage")
        with pytest.raises(FilesError, match=r"^There is nothing at /docs/paln\.txt\.$"):
            await give(it, "/docs/paln.txt")
        assert b"share=1" in (await get(it, url + "?about=1", **HTML, **basic("ana")))[2]
        assert b"share=1" not in (await get(it, url + "?about=1", **HTML, **basic("leo")))[2]
        headers = {**HTML, **basic("ana"), "Content-Type": "application/x-www-form-urlencoded"}
        async with it.http.post(url + "?action=share", headers=headers, data="days=7") as answer:
            assert answer.status == 403, "no token"
        page = (await get(it, url + "?share=1", **HTML, **basic("ana")))[2].decode()
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token
        data = urllib.parse.urlencode({"token": token[1], "days": "7", "password": ""})
        async with it.http.post(url + "?action=share", headers=headers, data=data) as answer:
            assert answer.status == 201
            made = re.search(r'value="(http://[^"]+/\.relevo/link/[^"]+)"', await answer.text())
        assert made
        assert (await get(it, made[1]))[2] == b"plan"
        await it.service.seen.stop(20)
        saved = accounts_store.load_seen(it.service.volume)
        (link_id,) = it.service.accounts.policy.accounts.links  # type: ignore[union-attr]
        assert saved.links[link_id].fetched == 1
        page = (await get(it, url + "?share=1", **HTML, **basic("ana")))[2].decode()
        assert "fetched 1×" in page
        data = urllib.parse.urlencode({"token": token[1], "id": link_id})
        async with it.http.post(url + "?action=unshare", headers=headers, data=data) as answer:
            assert answer.status == 200
        assert (await get(it, made[1]))[0] == 404

    served(tmp_path, story)


def test_pages_offer_nothing_that_is_refused(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        page = (await get(it, it.url + "docs/plan.txt?about=1", **HTML, **basic("leo")))[2]
        for word in (b"action=rename", b"delete=ask", b">Move<"):
            assert word not in page
        assert b"action=copy" in page
        page = (await get(it, it.url + "docs/plan.txt?about=1", **HTML, **basic("ana")))[2]
        assert b"action=rename" in page
        assert b"delete=ask" in page
        page = (await get(it, it.url + "open/?about=1", **HTML))[2]
        assert b"?action=" not in page

    served(tmp_path, story)
