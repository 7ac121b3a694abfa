"""The administrators' pages and one's own: the same orders as by command, by forms that nobody else can send."""

from __future__ import annotations

import pathlib
import re
import urllib.parse

from test_files_guard import HTML, served

from accounts_support import PASSWORD, basic, order
from files_bench import Bench
from relevo.files import admin
from relevo.files.accounts import audit

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def login(it: Bench, name: str) -> dict[str, str]:
    """The fields of a browser in which somebody has logged in."""
    form = {"name": name, "password": PASSWORD}
    async with it.http.post(it.url + ".relevo/login", data=form, allow_redirects=False) as answer:
        assert answer.status == 303
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    it.http.cookie_jar.clear()
    return {**HTML, "Cookie": cookie, "Origin": it.url.rstrip("/"), "User-Agent": f"{name}'s browser"}


async def get(it: Bench, path: str, headers: dict[str, str]) -> tuple[int, str]:
    async with it.http.get(it.url + path, headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text()


async def post(it: Bench, path: str, headers: dict[str, str], /, **fields: str) -> tuple[int, str]:
    data = urllib.parse.urlencode(fields)
    async with it.http.post(it.url + path, data=data, headers={**headers, **FORM}, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", "") + await answer.text()


def token_in(page: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found, "its forms carry a token"
    return found[1]


def test_every_page_is_for_administrators_only(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for tab in admin.TABS:
            path = f".relevo/admin?show={tab}"
            assert (await get(it, path, await login(it, "root")))[0] == 200, tab
            assert (await get(it, path, {**HTML, **basic("ana")}))[0] == 403
            assert (await get(it, path, HTML))[0] == 303
            assert (await get(it, path, {}))[0] == 401
        ana = await login(it, "ana")
        token = token_in((await get(it, ".relevo/account", ana))[1])
        assert (await post(it, ".relevo/admin?action=user-add", ana, token=token, name="x"))[0] == 403
        assert "/.relevo/admin" not in (await get(it, "docs/", ana))[1]
        assert "/.relevo/admin" in (await get(it, "docs/", await login(it, "root")))[1]

    served(tmp_path, story)


def test_forms_do_what_commands_do(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        root = await login(it, "root")
        token = token_in((await get(it, ".relevo/admin", root))[1])

        async def give(action: str, show: str = "users", **fields: str) -> tuple[int, str]:
            return await post(it, f".relevo/admin?show={show}&action={action}", root, token=token, **fields)

        assert (await post(it, ".relevo/admin?action=user-add", root, name="x", password=PASSWORD))[0] == 403
        assert (await post(it, ".relevo/admin?action=user-add", root, token="x" * 43, name="x"))[0] == 403
        steps = (
            ("user-add", {"name": "tom", "password": PASSWORD}),
            ("user-set", {"name": "tom", "quota_bytes": "1,5 GiB"}),
            ("group-add", {"name": "crew"}),
            ("group-member", {"name": "crew", "user": "tom", "member": "yes"}),
            ("share-add", {"name": "new", "path": "/new/one"}),
            ("share-permit", {"name": "new", "holder": "@crew", "level": "write"}),
            ("share-set", {"name": "new", "public": "yes"}),
            ("share-set", {"name": "new", "quota_bytes": "2 GiB"}),
        )
        for action, fields in steps:
            status, told = await give(action, **fields)
            assert status == 303, (action, told)
        accounts = it.service.accounts.policy.accounts
        assert accounts is not None
        assert accounts.users["tom"].quota_bytes == 3 << 29
        assert accounts.groups["crew"].members == ("tom",)
        share = accounts.shares["new"]
        assert (share.path, share.grants, share.public) == (("new", "one"), {"@crew": "write"}, True)
        assert (await get(it, "new/one/", {**HTML, **basic("tom")}))[0] == 200
        for show, name, words in (
            ("user", "tom", ("crew", "1.5 GiB")),
            ("group", "crew", ("tom",)),
            ("share", "new", ("@crew", "read and write", "2.0 GiB")),
        ):
            status, page = await get(it, f".relevo/admin?show={show}&name={name}", root)
            assert status == 200
            assert all(word in page for word in words), show
        status, told = await give("user-set", name="tom", quota_bytes="much")
        assert status == 400
        assert "is no size" in told
        status, told = await give("user-remove", name="root")
        assert status == 409
        assert "last administrator" in told
        status, told = await give("user-remove", show="user", name="tom")
        assert (status, "show=users" in told) == (303, True)
        assert (await get(it, ".relevo/admin?show=user&name=tom", root))[0] == 404
        assert (await give("show"))[0] == 400, "only what changes something"
        notes = audit.tail(it.service.volume, 100)
        assert [one["who"] for one in notes if one["what"] == "share-permit"][-1] == "root"
        assert PASSWORD not in str(notes)

    served(tmp_path, story)


def test_sessions_are_shown_and_ended(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        ana, other, root = await login(it, "ana"), await login(it, "ana"), await login(it, "root")
        for headers in (ana, other, root):
            await get(it, "docs/", headers)
        status, page = await get(it, ".relevo/account", ana)
        assert (status, page.count("ana&#39;s browser"), "root" in page) == (200, 2, False)
        ids = {one.user: key for key, one in it.service.seen.saved.sessions.items()}
        token = token_in(page)
        assert (await post(it, ".relevo/account?action=session-end", ana, token=token, id=ids["root"]))[0] == 403
        assert (await get(it, "docs/", root))[0] == 200
        assert (await post(it, ".relevo/account?action=session-end", ana, token=token, id=ids["ana"]))[0] == 303
        alive = [headers for headers in (ana, other) if (await get(it, "docs/", headers))[0] == 200]
        assert len(alive) == 1, "one of the two has ended"
        token = token_in((await get(it, ".relevo/account", alive[0]))[1])
        await login(it, "ana")
        assert (await post(it, ".relevo/account?action=sessions-end", alive[0], token=token))[0] == 303
        assert (await get(it, "docs/", alive[0]))[0] == 303, "it goes on with another word"
        fresh = await login(it, "ana")
        await get(it, "docs/", fresh)
        token = token_in((await get(it, ".relevo/admin", root))[1])
        await post(it, ".relevo/admin?show=sessions&action=sessions-end", root, token=token, name="ana")
        assert (await get(it, "docs/", fresh))[0] == 303
        assert [one.user for one in it.service.seen.saved.sessions.values()] == ["root"]
        await it.service.close()
        await it.service.open()
        assert [one.user for one in it.service.seen.saved.sessions.values()] == ["root"]
        assert (await get(it, "docs/", root))[0] == 200

    served(tmp_path, story)


def test_own_links_are_withdrawn_by_oneself_only(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await order(it, "share-permit", name="docs", holder="ana", level="manage")
        for digit in "ab":
            await order(it, "link-add", digest=digit * 64, path="docs/plan.txt", creator="ana")
        ana, leo = await login(it, "ana"), await login(it, "leo")
        page = (await get(it, ".relevo/account", ana))[1]
        assert page.count("/docs/plan.txt") == 2
        token = token_in((await get(it, ".relevo/account", leo))[1])
        assert (await post(it, ".relevo/account?action=link-remove", leo, token=token, id="a" * 12))[0] == 403
        await order(it, "share-permit", name="docs", holder="ana", level="read")
        assert (await post(it, ".relevo/account?action=link-remove", ana, token=token_in(page), id="a" * 12))[0] == 303
        assert list(it.service.accounts.policy.accounts.links) == ["b" * 12]  # type: ignore[union-attr]

    served(tmp_path, story)


def test_the_audit_log_is_filtered(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for who, what, path in (
            ("ana", "PUT", "/docs/plan b"), ("ana", "DELETE", "/x"), ("leo", "PUT", "/y"), ("eva", "login", "Plans"),
        ):  # fmt: skip
            it.service.audit.note(who, what, mark=path)
        await it.service.audit.flush()
        root = await login(it, "root")
        cases: list[tuple[dict[str, str], int]] = [
            ({}, 4), ({"who": "ANA"}, 2), ({"what": "put"}, 2), ({"text": "plan"}, 2),
            ({"who": "leo", "text": "plan"}, 0),
        ]  # fmt: skip
        for wanted, count in cases:
            found = audit.tail(it.service.volume, 500, audit.Filter(**wanted))
            assert len([one for one in found if "mark" in one]) == count
            page = (await get(it, ".relevo/admin?show=audit&" + urllib.parse.urlencode(wanted), root))[1]
            assert page.count("mark=") == count
        assert len(audit.tail(it.service.volume, 3)) == 3

    served(tmp_path, story)
