"""Accounts over a real socket: every verb and every way in asks who it is; nothing gets anyone outside a share."""

from __future__ import annotations

import asyncio
import base64
import errno
import functools
import os
import pathlib
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from cluster_samples import configuration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from accounts_support import PASSWORD, basic, family, hashed, order
from files_bench import Bench, bench, until
from relevo.base.control import Refused
from relevo.base.paths import Paths
from relevo.config.model import Config, FilesResource
from relevo.files import bin as rubbish
from relevo.files import daemon, guard, limits
from relevo.files.accounts import audit, forward, passwords, remote, store, throttle
from relevo.files.accounts.access import Kind, Verb, Who
from relevo.files.client import ServerRefused, connection, get_file, put_file
from relevo.files.daemon import control, listen
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.service import CannotOpen, Service
from relevo.files.volume import Volume

FORM = {"Sec-Fetch-Site": "same-origin"}
HTML = {"Accept": "text/html"}


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with bench(folder, **options) as it:
            await family(it)
            (it.root / "docs/plan.txt").write_text("plan")
            (it.root / "docs/secret/key.txt").write_text("key")
            (it.root / "open/hello.txt").write_text("hello")
            (it.root / "private.txt").write_text("root's")
            await story(it)

    asyncio.run(main())


async def status(it: Bench, method: str, path: str, who: str | None = None, **more: Any) -> int:
    headers = {**(basic(who) if who else {}), **more.pop("headers", {})}
    async with it.http.request(method, it.url + path, headers=headers, allow_redirects=False, **more) as answer:
        await answer.read()
        return answer.status


async def listed(it: Bench, path: str, who: str | None) -> list[str]:
    headers = {"Accept": "application/json", **(basic(who) if who else {})}
    async with it.http.get(it.url + path, headers=headers) as answer:
        assert answer.status == 200
        return [entry["name"] for entry in (await answer.json())["entries"]]


def test_each_verb_and_way_in(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "3"}
        into_docs = {**tus, "Upload-Metadata": f"path {base64.b64encode(b'docs/t.txt').decode()}"}
        cases: list[tuple[str, str, dict[str, Any], tuple[int, int, int, int]]] = [
            ("GET", "docs/plan.txt", {}, (401, 403, 200, 200)),
            ("HEAD", "docs/plan.txt", {}, (401, 403, 200, 200)),
            ("GET", "docs/", {}, (401, 403, 200, 200)),
            ("GET", "docs/secret/key.txt", {}, (401, 403, 403, 200)),
            ("GET", "open/hello.txt", {}, (200, 200, 200, 200)),
            ("GET", "private.txt", {}, (401, 403, 403, 403)),
            ("GET", "missing.txt", {}, (401, 403, 403, 403)),  # as if it were there
            ("GET", "docs/plan.txt?delete=ask", {}, (401, 403, 403, 200)),
            ("PUT", "open/x", {"data": b"x"}, (401, 403, 403, 403)),
            ("PUT", "x", {"data": b"x"}, (401, 403, 403, 403)),
            ("PUT", "docs/x", {"data": b"x"}, (401, 403, 403, 201)),
            ("MKCOL", "docs/new", {}, (401, 403, 403, 201)),
            ("POST", "docs/?action=folder", {"data": {"name": "more"}}, (401, 403, 403, 303)),
            ("POST", ".relevo/tus/", {"headers": into_docs}, (401, 403, 403, 201)),
            ("DELETE", "docs/new", {}, (401, 403, 403, 204)),
            ("DELETE", "docs/?recursive=1", {}, (401, 403, 403, 409)),
            ("GET", ".relevo/accounts/accounts.json", {}, (404, 404, 404, 404)),
            ("GET", ".relevo/health", {}, (200, 200, 200, 200)),
        ]
        for method, path, more, wanted in cases:
            found = tuple([await status(it, method, path, who, **more) for who in (None, "eva", "leo", "ana")])
            assert found == wanted, (method, path)
        assert (it.root / "docs/x").stat().st_uid == it.service.accounts.policy.accounts.users["ana"].uid  # type: ignore[union-attr]

    served(tmp_path, story)


def test_listings_show_only_what_may_be_seen(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        assert await listed(it, "", None) == ["open"]
        assert await listed(it, "", "leo") == ["docs", "open"]
        assert await listed(it, "docs/", "leo") == ["plan.txt"]
        assert await listed(it, "docs/", "ana") == ["secret", "plan.txt"]
        assert await listed(it, "", "root") == ["docs", "open", "private.txt"]
        await order(it, "share-permit", name="docs", holder="leo", level="none")
        await order(it, "share-permit", name="secret", holder="leo", level="read")
        assert await listed(it, "docs/", "leo") == ["secret"]  # the way there, and nothing beside it

    served(tmp_path, story)


def test_an_upload_belongs_to_whoever_began_it(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        tus = {"Tus-Resumable": "1.0.0"}
        fields = {"Upload-Length": "3", "Upload-Metadata": f"path {base64.b64encode(b'docs/t.txt').decode()}"}
        async with it.http.post(it.url + ".relevo/tus/", headers={**tus, **fields, **basic("ana")}) as answer:
            place = answer.headers["Location"].lstrip("/")
        part = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        for who in (None, "leo", "root"):
            assert await status(it, "HEAD", place, who, headers=tus) == 404
            assert await status(it, "PATCH", place, who, headers=part, data=b"abc") == 404
            assert await status(it, "DELETE", place, who, headers=tus) == 404
        await order(it, "share-permit", name="docs", holder="ana", level="read")
        assert await status(it, "PATCH", place, "ana", headers=part, data=b"abc") == 403
        assert not (it.root / "docs/t.txt").exists()
        await order(it, "share-permit", name="docs", holder="ana", level="write")
        assert await status(it, "PATCH", place, "ana", headers=part, data=b"abc") == 204
        assert (it.root / "docs/t.txt").read_bytes() == b"abc"

    served(tmp_path, story)


def test_a_right_that_is_withdrawn_during_an_upload_counts(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        going, withdrawn = asyncio.Event(), asyncio.Event()

        async def body() -> Any:
            going.set()
            yield bytes(limits.CHUNK_BYTES)  # so much is stored before the rest is there
            async with asyncio.timeout(20):
                await withdrawn.wait()
            yield b"whole"

        sending = asyncio.create_task(status(it, "PUT", "docs/slow", "ana", data=body()))
        await going.wait()
        await until(lambda: any("/tmp/" in name for name in it.work_files()))
        await order(it, "group-member", name="staff", user="ana", member=False)
        withdrawn.set()
        assert await sending == 403
        assert not (it.root / "docs/slow").exists()

    served(tmp_path, story)


def test_log_in_stay_in_after_a_failover_and_log_out(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        async with it.http.get(it.url + "docs/", headers=HTML, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/.relevo/login?to=%2Fdocs%2F")
        given = {"name": "ana", "password": PASSWORD, "to": "//evil.example/docs"}
        assert await status(it, "POST", ".relevo/login", data={**given, "password": "wrong"}) == 403
        login = it.http.post(it.url + ".relevo/login", data=given, allow_redirects=False)
        async with login as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/evil.example/docs")
            field = answer.headers["Set-Cookie"]
        assert "HttpOnly; SameSite=Lax" in field
        assert "Secure" not in field
        cookie = {"Cookie": field.partition(";")[0]}
        await it.service.close()
        await it.service.open()  # on the other server it would be the same
        assert await status(it, "GET", "docs/plan.txt", headers=cookie) == 200
        assert await status(it, "PUT", "docs/x", headers=cookie, data=b"x") == 403  # no sign of our own page
        assert await status(it, "PUT", "docs/x", headers={**cookie, **FORM}, data=b"x") == 201
        foreign = {**cookie, "Origin": "http://evil.example"}
        assert await status(it, "PUT", "docs/x", headers=foreign, data=b"x") == 403
        async with it.http.get(it.url + ".relevo/account", headers={**cookie, **HTML}) as answer:
            token = (await answer.text()).split('name="token" value="')[1].split('"')[0]
        out, leaving = ".relevo/account?action=logout", {**cookie, **FORM}
        assert await status(it, "POST", out, headers=leaving, data={"token": "x"}) == 403
        assert await status(it, "POST", out, headers=leaving, data={"token": token}) == 303
        assert await status(it, "GET", "docs/plan.txt", headers=cookie) == 401

    served(tmp_path, story)


def test_changing_the_password_ends_other_sessions(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        given = {"name": "ana", "password": PASSWORD}
        async with it.http.post(it.url + ".relevo/login", data=given, allow_redirects=False) as answer:
            other = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        async with it.http.post(it.url + ".relevo/login", data=given, allow_redirects=False) as answer:
            mine = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], **FORM}
        async with it.http.get(it.url + ".relevo/account", headers={**mine, **HTML}) as answer:
            token = (await answer.text()).split('name="token" value="')[1].split('"')[0]
        change = ".relevo/account?action=password"
        given = {"token": token, "old": PASSWORD, "new": "battery staple", "again": "battery staple"}
        assert await status(it, "POST", change, headers=mine, data={**given, "old": "wrong"}) == 403
        assert await status(it, "POST", change, headers=mine, data={**given, "again": "other"}) == 400
        async with it.http.post(it.url + change, headers=mine, data=given, allow_redirects=False) as answer:
            assert answer.status == 303
            mine = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        assert await status(it, "GET", "docs/plan.txt", headers=mine) == 200  # this session goes on
        assert await status(it, "GET", "docs/plan.txt", headers=other) == 401
        assert await status(it, "GET", "docs/plan.txt", "ana") == 401
        assert await status(it, "GET", "docs/plan.txt", headers=basic("ana", "battery staple")) == 200

    served(tmp_path, story)


def test_basic_costs_one_argon2_and_guesses_are_throttled(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        statuses = await asyncio.gather(*(status(it, "PUT", f"docs/{n}", "ana", data=b"x") for n in range(40)))
        assert statuses == [201] * 40
        assert it.service.accounts.verifier.computed == 1
        guesses = [await status(it, "GET", "docs/", headers=basic("leo", f"guess{n}")) for n in range(12)]
        assert guesses[0] == 401
        assert guesses[-1] == 429
        assert await status(it, "GET", "docs/plan.txt", "ana") == 200  # verified a moment ago
        for field in ("Basic !", "Basic bm9jb2xvbg==", "Bearer x", "basic " + "x" * 5000):
            assert await status(it, "GET", "open/", headers={"Authorization": field}) in {400, 401}

    served(tmp_path, story)


def test_guesses_that_come_at_once_are_throttled_like_others(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        many = 4 * throttle.ADDRESS_TRIES
        for name in ("leo", "nobody"):
            before = it.service.accounts.verifier.computed
            it.service.accounts.throttle = throttle.Throttle()
            guesses = [status(it, "GET", "docs/", headers=basic(name, f"guess{n}")) for n in range(many)]
            told = Counter(await asyncio.gather(*guesses))
            assert told.keys() == {401, 429}
            assert told[401] < throttle.ADDRESS_TRIES + passwords.THREADS
            assert it.service.accounts.verifier.computed - before == told[401]

    served(tmp_path, story)


def test_accounts_survive_and_are_private(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        file = it.root / ".relevo/accounts/accounts.json"
        assert file.stat().st_mode & 0o777 == 0o600
        assert b"$argon2id$" in file.read_bytes()
        before = it.service.accounts.policy.accounts
        await it.service.close()
        await it.service.open()
        assert it.service.accounts.policy.accounts == before
        good = file.read_bytes()
        for damaged in (good[:-20], b"", b"{}", good.replace(b'"format": 1', b'"format": 2')):
            await it.service.close()
            file.write_bytes(damaged)
            with pytest.raises(CannotOpen, match=r"accounts\.json"):
                await it.service.open()
        file.write_bytes(good)
        await it.service.open()
        it.mirror.update({"connection": "WFConnection", "peer_disk": "DUnknown"})
        assert (await order(it, "user-add", name="late"))["copies"] == 1

    served(tmp_path, story)


def test_with_one_copy_refused_accounts_are_not_changed_either(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        it.mirror.update({"connection": "WFConnection", "peer_disk": "DUnknown"})
        with pytest.raises(FilesError) as refused:
            await order(it, "user-add", name="late")
        assert refused.value.code == "degraded"

    served(tmp_path, story, when_degraded="refuse")


def test_what_the_bin_holds_counts_and_folders_are_weighed_before_they_move(tmp_path: pathlib.Path) -> None:
    async def form(it: Bench, path: str, **fields: str) -> int:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await status(it, "POST", path, "root", data=urllib.parse.urlencode(fields), headers=kind)

    async def story(it: Bench) -> None:
        used = it.service.quotas.shown
        await order(it, "user-set", name="ana", quota_bytes=1000)
        await order(it, "share-set", name="open", quota_bytes=700)
        await until(lambda: it.service.quotas.counted)
        assert await status(it, "PUT", "docs/box/a", "ana", data=b"x" * 600) == 201
        assert await form(it, "docs/?action=delete", item="box") == 303
        assert await status(it, "PUT", "docs/b", "ana", data=b"x" * 600) == 507, "it lies in the bin"
        await it.service.close()
        await it.service.open()  # counted from the tree and the bin
        await until(lambda: it.service.quotas.counted)
        assert used()["used"]["users"]["ana"] == 600
        assert used()["used"]["shares"]["docs"] == 604
        (bin_id,) = await it.service.run(rubbish.ids, it.service.volume)
        assert await form(it, ".relevo/bin/?action=restore", item=bin_id) == 303
        assert used()["used"]["users"]["ana"] == 600
        assert await form(it, "docs/?action=move", item="box", to="/open") == 303
        assert (used()["used"]["shares"]["open"], used()["used"]["shares"]["docs"]) == (605, 4)
        assert await status(it, "PUT", "docs/more/b", "ana", data=b"x" * 200) == 201
        assert await form(it, "docs/?action=move", item="more", to="/open") == 507
        assert (it.root / "docs/more/b").exists()
        assert await form(it, "docs/?action=copy", item="more", to="/open") == 507
        assert await status(it, "PUT", "docs/c", "ana", data=b"x" * 100) == 201
        assert await form(it, "docs/?action=delete", item="c") == 303
        assert used()["used"]["users"]["ana"] == 900
        (bin_id,) = await it.service.run(rubbish.ids, it.service.volume)
        assert await form(it, ".relevo/bin/?action=purge", item=bin_id) == 303
        assert used()["used"]["users"]["ana"] == 800

    served(tmp_path, story)


def test_quotas_of_users_and_shares(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await order(it, "user-set", name="ana", quota_bytes=1000)
        await until(lambda: it.service.quotas.counted)
        assert await status(it, "PUT", "docs/big", "ana", data=b"x" * 1001) == 507
        assert await status(it, "PUT", "docs/a", "ana", data=b"x" * 600) == 201
        assert await status(it, "PUT", "docs/a", "ana", data=b"x" * 400) == 204  # what it replaces is given back
        assert await status(it, "PUT", "docs/b", "ana", data=b"x" * 600) == 201
        assert await status(it, "PUT", "docs/c", "ana", data=b"x") == 507
        assert await status(it, "DELETE", "docs/a", "ana") == 204
        assert await status(it, "PUT", "docs/c", "ana", data=b"x" * 400) == 201
        await it.service.close()
        await it.service.open()  # counted from the tree
        assert await status(it, "PUT", "docs/d", "ana", data=b"x") == 507
        await until(lambda: it.service.quotas.shown()["used"]["users"]["ana"] == 1000)
        shares = it.service.quotas.shown()["used"]["shares"]
        assert (shares["docs"], shares["secret"]) == (1004, 3)

    served(tmp_path, story)


def test_quotas_are_counted_also_when_the_last_count_cannot_be_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(it: Bench) -> None:
        def unreadable(_: Volume) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        await order(it, "user-set", name="ana", quota_bytes=1000)
        await until(lambda: it.service.quotas.counted)
        await it.service.close()
        monkeypatch.setattr(store, "load_usage", unreadable)
        it.service.quotas.counted = False
        await it.service.open()
        await until(lambda: it.service.quotas.counted)

    served(tmp_path, story)


def test_the_audit_log(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await status(it, "PUT", "docs/x", "ana", data=b"x")
        await status(it, "PUT", "docs/y", "leo", data=b"y")
        await status(it, "GET", "docs/plan.txt", "leo")
        notes = (await order(it, "audit", count=3))["notes"]
        assert [(note["who"], note["what"], note.get("status")) for note in notes] == [
            ("root", "share-set", None),
            ("ana", "PUT", 201),
            ("leo", "PUT", 403),
        ]
        assert notes[1]["from"] == "127.0.0.1"
        assert hashed() not in (it.root / ".relevo/audit/audit.log").read_text()

    served(tmp_path, story)


def test_the_audit_log_is_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ROTATE_BYTES", 1000)

    async def story(it: Bench) -> None:
        for _ in range(40):
            await it.service.run(audit.append, it.service.volume, [b'{"what":"' + b"x" * 200 + b'"}\n'])
        files = sorted((it.root / ".relevo/audit").iterdir())
        assert len(files) <= audit.KEPT + 1
        assert all(file.stat().st_size < 3000 for file in files)
        assert len((await order(it, "audit", count=8))["notes"]) == 8

    served(tmp_path, story)


SECRET = b"root's"
ODD = [
    ".",
    "..",
    "%2e%2e",
    "%2E.",
    "..%2f",
    "%2f",
    "%5c",
    "%00",
    "DOCS",
    "docs%20",
    "docs.",
    "ｄｏｃｓ",
    "%c0%ae%c0%ae",
    "",
]
KNOWN = ["docs", "secret", "key.txt", "open", "private.txt", "link", "up", "hard", "fifo", ".relevo", "accounts"]
TRICKS = [*ODD, *KNOWN]


def test_no_path_gets_anyone_outside(tmp_path: pathlib.Path) -> None:
    """Whatever leo asks for, he never gets what lies outside of the shares that he may read."""

    async def story(it: Bench) -> None:
        docs = it.root / "docs"
        (docs / "link").symlink_to(it.root / "private.txt")
        (docs / "up").symlink_to(it.root)
        (docs / "hard").hardlink_to(it.root / "private.txt")
        os.mkfifo(docs / "fifo")
        assert await status(it, "GET", "docs/hard", "leo") == 403
        assert await status(it, "GET", "docs/hard", "root") == 200
        credentials = basic("leo")["Authorization"]
        names = st.lists(st.sampled_from(TRICKS), max_size=5)

        async def ask(parts: list[str]) -> None:
            found, _, body = await it.get("/docs/" + "/".join(parts), Authorization=credentials)
            assert SECRET not in body
            assert b"key" not in body or found != 200

        loop = asyncio.get_running_loop()

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(names)
        def attempts(parts: list[str]) -> None:
            asyncio.run_coroutine_threadsafe(ask(parts), loop).result(20)

        await asyncio.to_thread(attempts)

    served(tmp_path, story)


def test_the_volume_itself_asks(tmp_path: pathlib.Path) -> None:
    """A way in that forgets to ask is refused all the same: each operation of the volume has its verb."""

    async def story(it: Bench) -> None:
        volume = it.service.volume
        handle = await it.service.run(volume.new_temporary)
        calls: list[Callable[[], object]] = [
            lambda: volume.look(("private.txt",)),
            lambda: volume.open_file(("private.txt",)),
            lambda: volume.entries(()),
            lambda: volume.publish(handle, ("stolen",)),
            lambda: volume.make_folder(("stolen",)),
            lambda: volume.remove(("private.txt",)),
        ]
        with guard.acting(it.service.accounts.guard(Who(Kind.USER, "eva"))):
            for number, call in enumerate(calls):
                if number == 2:
                    assert [entry.name for entry in await it.service.run(volume.entries, ())] == ["open"]
                    continue
                with pytest.raises(FilesError) as refused:
                    await it.service.run(call)
                assert refused.value.status == 403
            assert not guard.may(Verb.READ, ("private.txt",))
        assert isinstance(await it.service.run(volume.look, ("private.txt",)), Entry)

    served(tmp_path, story)


def test_orders_reach_the_active_server_from_either(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        run = tmp_path / "run"
        passive = Service(it.service.resource, "nodo2", tmp_path / "none.sock")
        listening, _ = await listen(passive, "127.0.0.1", 0)
        socket = control(passive, Paths(run=run).socket("files-files"))
        await socket.start()
        config = a_cluster(it.port)
        files = daemon.find(config, "files")
        ask = functools.partial(forward.give, config, "nodo2", Paths(run=run), files)
        add = {"order": "group-add", "name": "late"}
        try:
            with pytest.raises(forward.AnswerUnsigned):  # the other server does not have this key
                await asyncio.to_thread(ask, add)
            it.service.desk = remote.Desk(daemon.order_key(config))
            assert (await asyncio.to_thread(ask, add))["copies"] == 2
            with pytest.raises(Refused, match="already a group late"):
                await asyncio.to_thread(ask, add)
            assert "late" in it.service.accounts.policy.accounts.groups  # type: ignore[union-attr]
            await it.service.close()
            with pytest.raises(forward.NoneActive, match="on nodo2 it is closed, nodo1 does not have the volume"):
                await asyncio.to_thread(ask, add)
            await it.service.open()
        finally:
            listening.close()
            await socket.stop()
            await passive.close()
        local = control(it.service, Paths(run=run).socket("files-files"))
        await local.start()
        try:
            assert any(item["name"] == "late" for item in (await asyncio.to_thread(ask, {"order": "show"}))["groups"])
        finally:
            await local.stop()

    served(tmp_path, story)


def a_cluster(port: int) -> Config:
    """Two nodes at this machine's address, their files service at a port."""
    sample = configuration()
    nodes = {name: replace(node, addresses={"users": IPv4Address("127.0.0.1")}) for name, node in sample.nodes.items()}
    resources = tuple(
        replace(item, port=port) if isinstance(item, FilesResource) else item
        for item in sample.services["web"].resources
    )
    return replace(sample, nodes=nodes, services={"web": replace(sample.services["web"], resources=resources)})


def test_the_client_logs_in(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        source = tmp_path / "big"
        source.write_bytes(os.urandom(3 << 20))
        async with connection.session(login=("ana", PASSWORD)) as http:
            await put_file(source, it.url + "docs/big", http=http, give_up_s=10)
            await get_file(it.url + "docs/big", tmp_path / "again", http=http, give_up_s=10)
        assert (tmp_path / "again").read_bytes() == source.read_bytes()
        async with connection.session(login=("ana", "wrong")) as http:
            with pytest.raises(ServerRefused, match="Name or password is wrong"):
                await put_file(source, it.url + "docs/big", http=http, give_up_s=10)

    served(tmp_path, story)


def test_passwords() -> None:
    assert passwords.matches(PASSWORD, hashed())
    assert not passwords.matches("other", hashed())
    assert not passwords.matches(PASSWORD, "")
    assert not passwords.matches(PASSWORD, "not a hash")
    for bad in ("short", "x" * 2000, "nul\0nul nul"):
        with pytest.raises(FilesError):
            passwords.hash_of(bad)
