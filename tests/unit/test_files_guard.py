"""Every way in that the pages have, asked by those who may not: nothing is told, not even names, nothing changes."""

from __future__ import annotations

import asyncio
import functools
import io
import pathlib
import urllib.parse
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from accounts_support import basic, family, order
from files_bench import Bench, bench
from relevo.files import binning, limits
from relevo.files import order as ordering

HTML = {"Accept": "text/html"}
PEOPLE = (None, "eva", "leo", "ana")
WORDS = ("plan", "diary", "attic", "key.txt", "secret")
"""Parts of names that eva may never read."""


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], *, accounts: bool = True) -> None:
    async def main() -> None:
        async with bench(folder) as it:
            if accounts:
                await family(it)
            for way in ("docs/secret", "docs/deep", "open", "attic"):
                (it.root / way).mkdir(parents=True, exist_ok=True)
            (it.root / "docs/plan.txt").write_text("plan")
            (it.root / "docs/deep/plan b.txt").write_text("b")
            (it.root / "docs/secret/key.txt").write_text("key")
            (it.root / "open/hello.txt").write_text("hello")
            (it.root / "diary.txt").write_text("root's")
            await story(it)

    asyncio.run(main())


async def ask(it: Bench, method: str, path: str, who: str | None, **more: Any) -> tuple[int, bytes]:
    headers = {**(basic(who) if who else {}), **more.pop("headers", {})}
    async with it.http.request(method, it.url + path, headers=headers, allow_redirects=False, **more) as answer:
        return answer.status, await answer.read()


async def form(it: Bench, path: str, who: str | None, *fields: tuple[str, str]) -> tuple[int, bytes]:
    return await ask(
        it,
        "POST",
        path,
        who,
        data=urllib.parse.urlencode(fields),
        headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
    )


def tree(it: Bench) -> dict[str, bytes]:
    """Every file that people have, and what is in it."""
    found = (path for path in it.root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(it.root)): path.read_bytes()
        for path in found
        if path.relative_to(it.root).parts[:2] not in {(".relevo", "accounts"), (".relevo", "audit")}
    }


def test_reading(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        cases = [
            ("docs/?search=plan", (401, 403, 200, 200)),
            ("?search=plan", (200, 200, 200, 200)),  # what is found differs: see below
            ("docs/?zip=1", (401, 403, 403, 200)),  # leo may not read /docs/secret
            ("docs/deep/?zip=1", (401, 403, 200, 200)),
            ("?zip=1", (401, 403, 403, 403)),
            ("docs/plan.txt?about=1", (401, 403, 200, 200)),
            ("docs/missing?about=1", (401, 403, 404, 404)),
            ("docs/secret?about=1", (401, 403, 403, 200)),
            ("docs/plan.txt?preview=1", (401, 403, 200, 200)),
            ("diary.txt?preview=1", (401, 403, 403, 403)),
            ("docs/?sort=size", (401, 403, 200, 200)),
            (".relevo/bin/", (401, 200, 200, 200)),
        ]
        for path, wanted in cases:
            for who, status in zip(PEOPLE, wanted, strict=True):
                found, body = await ask(it, "GET", path, who)
                assert found == status, (path, who, body)
                if who in {None, "eva"}:
                    told = body.decode().replace(urllib.parse.unquote(path), "").replace(path, "")
                    rows = told.partition("<tbody")[2]
                    assert not any(word in rows for word in WORDS), (path, who)

    served(tmp_path, story)


def test_what_a_search_finds_and_a_zip_file_holds(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for who, wanted in ((None, set()), ("eva", set()), ("leo", {"plan"}), ("ana", {"plan", "key"})):
            found = set()
            for word in ("plan", "key", "diary", "attic"):
                _, body = await ask(it, "GET", f"?search={word}", who)
                if f"{word}.txt".encode() in body or f"{word}/?".encode() in body:
                    found.add(word)
            assert found == wanted, who
        _, body = await ask(it, "GET", "docs/?zip=1", "ana")
        assert set(zipfile.ZipFile(io.BytesIO(body)).namelist()) >= {"plan.txt", "deep/plan b.txt", "secret/key.txt"}

    served(tmp_path, story)


@pytest.mark.parametrize("remembered", [False, True])
def test_pages_of_a_folder_list_only_what_may_be_seen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, remembered: bool
) -> None:
    if remembered:  # whoever comes first, what is remembered is filtered for each
        monkeypatch.setattr(ordering, "ORDERS_MIN_NAMES", 1)
        monkeypatch.setattr(ordering, "SETTLED_NS", 0)

    async def story(it: Bench) -> None:
        for who, there, hidden in (
            ("root", ["docs", "open", "attic", "diary.txt"], []),
            ("leo", ["docs", "open"], ["attic", "diary.txt"]),
            (None, ["open"], ["docs", "attic", "diary.txt"]),
            ("root", ["docs", "open", "attic", "diary.txt"], []),
        ):
            for query in ("", "?order=desc", "?sort=date"):
                status, body = await ask(it, "GET", query, who, headers=HTML)
                rows = body.decode().partition("<tbody")[2].partition("</tbody>")[0]
                assert status == 200
                assert all(f">{name}</span>" in rows for name in there), (who, query)
                assert not any(name in rows for name in hidden), (who, query)
        _, body = await ask(it, "GET", "docs/", "leo", headers=HTML)
        assert b">deep</span>" in body
        assert b"secret" not in body

    served(tmp_path, story)


def test_who_may_only_read_changes_nothing(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        item = ("item", "plan.txt")
        cases: list[tuple[str, tuple[tuple[str, str], ...]]] = [
            ("docs/?action=rename", (item, ("name", "x.txt"))),
            ("docs/?action=move", (item, ("to", "/open"))),
            ("docs/?action=move", (item, ("to", "/docs/deep"), ("conflict", "both"))),
            ("docs/?action=copy", (item, ("to", "/docs/deep"))),
            ("docs/?action=copy", (("item", "deep"), ("to", "/open"))),
            ("docs/?action=delete", (item,)),
            ("docs/?action=delete", (item, ("forever", "1"))),
            ("docs/plan.txt?action=delete", ()),
            ("docs/?action=ask", (item, ("what", "delete"))),
            ("docs/?action=ask", (item, ("what", "move"))),
            ("docs/?action=folder", (("name", "new"),)),
            ("open/?action=move", (("item", "hello.txt"), ("to", "/docs"))),
            ("?action=rename", (("item", "docs"), ("name", "mine"))),
            ("?action=zip", (("item", "diary.txt"),)),
            ("?action=zip", (("item", "docs"),)),
            ("docs/?action=zip", (("item", "secret"),)),
            ("docs/?action=copy", (("item", "secret"), ("to", "/open"))),
        ]
        before = tree(it)
        for path, fields in cases:
            for who, status in ((None, 401), ("eva", 403), ("leo", 403)):
                found, body = await form(it, path, who, *fields)
                assert found == status, (path, fields, who, body)
                assert b"key.txt" not in body
            assert tree(it) == before, (path, fields)

    served(tmp_path, story)


def test_who_may_write_does_not_get_out_of_the_share(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        item = ("item", "plan.txt")
        refused = [
            ("docs/?action=move", (item, ("to", "/open"))),
            ("docs/?action=move", (item, ("to", "/"))),
            ("docs/?action=copy", (item, ("to", "/attic"))),
            ("open/?action=move", (("item", "hello.txt"), ("to", "/docs"))),  # she may not take it away
            ("?action=copy", (("item", "diary.txt"), ("to", "/docs"))),
            ("?action=delete", (("item", "attic"),)),
        ]
        before = tree(it)
        for path, fields in refused:
            assert (await form(it, path, "ana", *fields))[0] == 403, (path, fields)
        # a share is not moved, copied over or deleted with what is around it, and keeps its name
        assert (await form(it, "docs/?action=rename", "ana", ("item", "secret"), ("name", "open")))[0] == 409
        assert (await form(it, "docs/?action=delete", "root", ("item", "secret")))[0] == 409
        assert tree(it) == before
        for path, fields in (
            ("docs/?action=rename", (item, ("name", "plan2.txt"))),
            ("docs/?action=move", (("item", "plan2.txt"), ("to", "/docs/deep"))),
            ("docs/?action=copy", (("item", "deep"), ("to", "/docs/secret"))),
            ("open/?action=copy", (("item", "hello.txt"), ("to", "/docs"))),
        ):
            assert (await form(it, path, "ana", *fields))[0] == 201, (path, fields)
        ana = it.service.accounts.policy.user("ana")
        assert ana is not None
        assert {path.lstat().st_uid for path in (it.root / "docs/secret/deep").rglob("*")} == {ana.uid}
        assert (it.root / "docs/hello.txt").stat().st_uid == ana.uid

    served(tmp_path, story)


def test_the_bin_shows_each_what_they_may_put_back(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        assert (await form(it, "docs/secret/?action=delete", "ana", ("item", "key.txt")))[0] == 201
        assert (await form(it, "docs/?action=delete", "ana", ("item", "plan.txt")))[0] == 201
        assert (await form(it, "?action=delete", "root", ("item", "diary.txt")))[0] == 201
        json = {"Accept": "application/json"}

        async def seen(who: str) -> dict[str, str]:
            _, body = await ask(it, "GET", ".relevo/bin/", who, headers=json)
            found = await asyncio.to_thread(binning.msgspec.json.decode, body)
            assert found["total"] == len(found["entries"])
            return {one["path"]: one["id"] for one in found["entries"]}

        everything = await seen("root")
        assert set(everything) == {"/docs/secret/key.txt", "/docs/plan.txt", "/diary.txt"}
        assert set(await seen("ana")) == {"/docs/secret/key.txt", "/docs/plan.txt"}
        assert await seen("leo") == await seen("eva") == {}
        assert (await ask(it, "GET", ".relevo/bin/", None, headers=json))[0] == 401
        before = tree(it)
        for action in ("restore", "purge"):
            for who, status in ((None, 401), ("eva", 403), ("leo", 403)):
                answer = await form(it, f".relevo/bin/?action={action}", who, ("item", everything["/docs/plan.txt"]))
                assert answer[0] == status, (action, who)
                assert b"plan" not in answer[1]
            answer = await form(it, f".relevo/bin/?action={action}", "ana", ("item", everything["/diary.txt"]))
            assert answer[0] == 403
        await form(it, ".relevo/bin/?action=empty", "leo")
        assert tree(it) == before
        assert (await form(it, ".relevo/bin/?action=restore", "ana", ("item", everything["/docs/plan.txt"])))[0] == 201
        assert (it.root / "docs/plan.txt").read_text() == "plan"
        await form(it, ".relevo/bin/?action=empty", "ana")
        assert set(await seen("root")) == {"/diary.txt"}

    served(tmp_path, story)


def test_what_no_rule_knows_is_refused(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for method, path in (
            ("GET", "docs/?new=1"),
            ("POST", "docs/?action=new"),
            ("POST", ".relevo/bin/?action=new"),
            ("PUT", "docs/x?new=1"),
            ("PATCH", "docs/plan.txt"),
            ("PROPFIND", "docs/"),
            ("MOVE", "docs/plan.txt"),
        ):
            for who in ("ana", "root"):
                assert (await ask(it, method, path, who))[0] == 403, (method, path)
            assert (await ask(it, method, path, None))[0] in {401, 403}, (method, path)

    served(tmp_path, story)


def test_without_accounts_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for path in ("?new=1", "docs/?search=plan", "?zip=1", "docs/plan.txt?about=1", "docs/plan.txt?preview=1"):
            assert (await ask(it, "GET", path, None))[0] == 200, path
        assert (await ask(it, "POST", "docs/?action=new", None))[0] == 400
        assert (await ask(it, "PROPFIND", "docs/", None))[0] == 405
        item = ("item", "plan.txt")
        assert (await form(it, "docs/?action=copy", None, item, ("to", "/open")))[0] == 201
        assert (await form(it, "docs/?action=move", None, item, ("to", "/")))[0] == 201
        assert (await form(it, "?action=delete", None, item))[0] == 201
        assert b"plan.txt" in (await ask(it, "GET", ".relevo/bin/", None))[1]

    served(tmp_path, story, accounts=False)


def test_quotas_count_what_is_moved_copied_and_restored(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "docs/big.bin").write_bytes(bytes(limits.CHUNK_BYTES))
        await order(it, "share-set", name="secret", quota_bytes=1000)
        big = ("item", "big.bin")
        copy = functools.partial(form, it, "docs/?action=copy", "ana")
        assert (await copy(big, ("to", "/docs/secret")))[0] == 507
        assert (await form(it, "docs/?action=move", "ana", big, ("to", "/docs/secret")))[0] == 507
        (it.root / "docs/deep/big.bin").write_bytes(bytes(2000))
        assert (await copy(("item", "deep"), ("to", "/docs/secret")))[0] == 507
        assert {path.name for path in (it.root / "docs/secret").iterdir()} == {"key.txt"}
        assert (await copy(("item", "plan.txt"), ("to", "/docs/secret")))[0] == 201

    served(tmp_path, story)
