"""What a person does with files: rename, move, copy, the bin, ZIP, search, previews; over HTTP, without JavaScript."""

from __future__ import annotations

import asyncio
import io
import os
import pathlib
import threading
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files_bench import Bench, bench, until
from relevo.files import bin as rubbish
from relevo.files import limits, order, previews, tree
from relevo.files.entries import Entry, names_in
from relevo.files.errors import FilesError
from relevo.files.volume import Volume

JSON = {"Accept": "application/json"}


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with bench(folder, **options) as it:
            await story(it)

    asyncio.run(main())


async def post(it: Bench, path: str, *pairs: tuple[str, str]) -> tuple[int, Any]:
    async with it.http.post(it.url + path, data=list(pairs), headers=JSON) as answer:
        return answer.status, await answer.json()


def make_tree(root: pathlib.Path) -> None:
    (root / "a/deep/er").mkdir(parents=True)
    (root / "a/deep/er/ñandú.txt").write_bytes(b"hola")
    (root / "a/empty").mkdir()
    (root / "a/x").write_bytes(b"x" * 100_000)
    os.utime(root / "a/x", (1_600_000_000, 1_600_000_000))
    (root / "b").mkdir()
    (root / "b/x").write_bytes(b"other")


def test_rename_and_move(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        status, told = await post(it, "a/?action=rename", ("item", "x"), ("name", "y 1"))
        assert (status, told) == (201, {"moved": ["x"], "copies": 2})
        assert (it.root / "a/y 1").stat().st_size == 100_000
        assert (await post(it, "a/?action=rename", ("item", "y%201"), ("name", "deep")))[0] == 409
        assert (await post(it, "a/?action=move", ("item", "y%201"), ("item", "deep"), ("to", "/b")))[0] == 201
        assert sorted(names_in(str(it.root / "b"))) == ["deep", "x", "y 1"]
        status, told = await post(it, "?action=move", ("item", "b"), ("to", "/b/deep"))
        assert (status, told["error"]) == (409, "inside_itself")
        assert (await post(it, "?action=move", ("item", "b"), ("to", "/none")))[1]["error"] == "parent_missing"
        assert (await post(it, "?action=move", ("item", ".relevo"), ("to", "/b")))[0] == 403
        assert (await post(it, "?action=move", ("item", "%2e%2e"), ("to", "/b")))[0] == 400
        assert (await post(it, "?action=move", ("to", "/b")))[1]["error"] == "no_item"

    served(tmp_path, story)


def test_what_is_in_the_way_is_kept(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        assert (await post(it, "a/?action=copy", ("item", "x"), ("to", "/b")))[1]["error"] == "exists"
        assert (it.root / "b/x").read_bytes() == b"other"
        assert (await post(it, "a/?action=copy", ("item", "x"), ("to", "/b"), ("conflict", "both")))[0] == 201
        assert (it.root / "b/x (2)").stat().st_size == 100_000
        assert (await post(it, "a/?action=copy", ("item", "x"), ("to", "/b"), ("conflict", "replace")))[0] == 201
        assert (it.root / "b/x").stat().st_size == 100_000
        (it.root / "c").mkdir()
        (it.root / "c/a").write_bytes(b"a file")
        assert (await post(it, "?action=copy", ("item", "a"), ("to", "/c"), ("conflict", "replace")))[0] == 409
        assert it.work_files() == []

    served(tmp_path, story)


def test_copies_of_folders_are_whole(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPY_SLICE_BYTES", 30_000)

    async def story(it: Bench) -> None:
        make_tree(it.root)
        assert (await post(it, "?action=copy", ("item", "a"), ("to", "/b")))[0] == 201
        assert (it.root / "b/a/deep/er/ñandú.txt").read_bytes() == b"hola"
        assert (it.root / "b/a/empty").is_dir()
        assert (it.root / "b/a/x").read_bytes() == b"x" * 100_000
        assert (it.root / "b/a/x").stat().st_mtime == 1_600_000_000
        assert (await post(it, "?action=copy", ("item", "a"), ("to", "/a/deep")))[1]["error"] == "inside_itself"
        assert it.work_files() == []

    served(tmp_path, story)


def test_a_copy_that_fails_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    async def story(it: Bench) -> None:
        make_tree(it.root)
        monkeypatch.setattr(tree, "_sync_all", full)
        assert (await post(it, "?action=copy", ("item", "a"), ("to", "/b")))[0] == 507
        assert sorted(names_in(str(it.root / "b"))) == ["x"]
        await until(lambda: it.work_files() == [])

    served(tmp_path, story)


def test_a_form_that_is_sent_again_finishes_its_work(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        assert (await post(it, "a/?action=delete", ("item", "gone"), ("item", "x")))[0] == 201
        assert (await post(it, "a/?action=move", ("item", "x"), ("item", "deep"), ("to", "/b")))[0] == 201
        assert names_in(str(it.root / "a")) == ["empty"]
        assert (await post(it, "a/?action=delete", ("item", "gone"), ("item", "x")))[0] == 404

    served(tmp_path, story)


def test_the_bin_gives_back(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        status, told = await post(it, "a/?action=delete", ("item", "x"), ("item", "deep"))
        assert (status, told) == (201, {"discarded": ["x", "deep"], "copies": 2})
        assert names_in(str(it.root / "a")) == ["empty"]
        async with it.http.get(it.url + ".relevo/bin/", headers=JSON) as answer:
            listed = await answer.json()
        assert [one["path"] for one in listed["entries"]] == ["/a/deep", "/a/x"]
        async with it.http.get(it.url + ".relevo/bin/?lang=es", headers={"Accept": "text/html"}) as answer:
            assert "Vaciar la papelera" in await answer.text()
        (it.root / "a/x").write_bytes(b"newer")
        items = [("item", one["id"]) for one in listed["entries"]]
        status, told = await post(it, ".relevo/bin/?action=restore", *items)
        assert (status, told["restored"]) == (201, ["/a/deep", "/a/x (2)"])
        assert (it.root / "a/deep/er/ñandú.txt").read_bytes() == b"hola"
        assert it.work_files() == []
        assert (await post(it, ".relevo/bin/?action=restore", *items))[0] == 404
        assert (await post(it, ".relevo/bin/?action=restore", ("item", "../uploads")))[0] == 404

    served(tmp_path, story)


def test_the_folder_of_what_is_restored_is_made_again(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        await post(it, "a/?action=delete", ("item", "x"))
        await post(it, "a?action=delete")
        one = (await asyncio.to_thread(rubbish.contents, it.service.volume))[0][1]
        await post(it, ".relevo/bin/?action=restore", ("item", one.id))
        assert names_in(str(it.root / "a")) == ["x"]
        await post(it, ".relevo/bin/?action=empty")
        await until(lambda: it.work_files() == [])

    served(tmp_path, story)


def test_what_is_too_old_leaves_the_bin(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        await post(it, "?action=delete", ("item", "a"))
        volume = it.service.volume
        assert rubbish.expired(volume, 3_600_000) == []
        found = rubbish.ids(volume)
        assert rubbish.expired(volume, -10) == found
        (it.root / ".relevo/bin" / found[0]).rename(it.root / "back")  # a record without its thing means nothing
        assert rubbish.expired(volume, -10) == []
        assert it.work_files() == []

    served(tmp_path, story)


def test_without_a_bin_deleted_is_gone(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        assert (await post(it, "?action=delete", ("item", "a")))[1] == {"deleted": ["a"], "copies": 2}
        await until(lambda: it.work_files() == [])
        assert rubbish.ids(it.service.volume) == []

    served(tmp_path, story, bin_expiry_ms=0)


def test_one_copy_only_is_told_or_refused(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        it.mirror.update(connection="WFConnection", peer_disk="DUnknown")
        for action in ("delete", "move", "copy"):
            assert (await post(it, f"?action={action}", ("item", "a"), ("to", "/b")))[1]["error"] == "degraded"
        assert (it.root / "a").is_dir()

    served(tmp_path, story, when_degraded="refuse")


def test_each_copy_is_told_itself_what_the_disk_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells each descriptor once, and only of what happened since it was opened (errseq_t)."""

    async def story(it: Bench) -> None:
        make_tree(it.root)
        begin, sync, together = tree._begin_folder, tree._sync_all, threading.Barrier(2)
        at_begin: list[set[int]] = []
        asked: list[int] = []

        def begins(volume: Volume, source: tuple[str, ...], way: tuple[str, ...]) -> list[Entry]:
            if len(way) == 1:
                at_begin.append(set(volume.open_descriptors()))
            return begin(volume, source, way)

        def syncs(fd: int) -> None:
            asked.append(fd)
            together.wait(20)  # both have their own at the same moment
            sync(fd)

        monkeypatch.setattr(tree, "_begin_folder", begins)
        monkeypatch.setattr(tree, "_sync_all", syncs)
        copies = [post(it, "?action=copy", ("item", "a"), ("to", to)) for to in ("b", "b/c")]
        (it.root / "b/c").mkdir()
        assert [told[0] for told in await asyncio.gather(*copies)] == [201, 201]
        assert len(set(asked)) == len(asked) == len(at_begin) == 2
        assert set(asked) <= at_begin[1]
        assert it.service.volume.work("tmp") not in asked

    served(tmp_path, story)


def test_no_form_chooses_what_is_the_services_own(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        (it.root / ".relevo/tls/own.pem").write_bytes(b"a secret key")
        for action in ("zip", "ask", "delete", "rename", "move", "copy"):
            for own in (".relevo", "%2Erelevo", "lost+found", "dav"):
                given = [("item", "a"), ("item", own), ("what", "copy"), ("to", "b"), ("name", "c")]
                async with it.http.post(it.url + f"?action={action}", data=given, headers=JSON) as answer:
                    body = await answer.read()
                    assert (answer.status, b"a secret key" in body) == (403, False), (action, own)
        assert (it.root / "a/x").exists()  # nothing was begun

    served(tmp_path, story)


def test_a_folder_as_a_zip_file(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        (it.root / "a/big").write_bytes(os.urandom(3 << 20))
        async with it.http.get(it.url + "a/?zip=1") as answer:
            assert 'filename="a.zip"' in answer.headers["Content-Disposition"]
            whole = zipfile.ZipFile(io.BytesIO(await answer.read()))
        assert whole.testzip() is None
        wanted = {"deep/", "deep/er/", "deep/er/ñandú.txt", "empty/", "x", "big"}
        assert set(whole.namelist()) == wanted
        assert whole.read("big") == (it.root / "a/big").read_bytes()
        assert whole.getinfo("x").date_time[0] == 2020
        async with it.http.post(it.url + "?action=zip", data=[("item", "b"), ("item", "a")]) as answer:
            some = zipfile.ZipFile(io.BytesIO(await answer.read()))
        assert set(some.namelist()) == {"a/", "b/", "b/x"} | {f"a/{name}" for name in wanted}
        async with it.http.post(it.url + "?action=zip", data=[("item", "none")]) as answer:
            assert answer.status == 404

    served(tmp_path, story)


def test_too_many_for_one_zip_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ZIP_FILES_MAX", 4)

    async def story(it: Bench) -> None:
        make_tree(it.root)
        async with it.http.get(it.url + "?zip=1") as answer:
            assert answer.status == 413
            assert "more than 4" in await answer.text()

    served(tmp_path, story)


def test_search(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(it: Bench) -> None:
        make_tree(it.root)
        async with it.http.get(it.url + "a/?search=NANDU+txt") as answer:
            text = await answer.text()
        assert "/a/deep/er/%C3%B1and%C3%BA.txt?preview=1" in text
        assert "1 found." in text
        assert text.rstrip().endswith("</html>")
        async with it.http.get(it.url + "?search=relevo") as answer:
            assert "0 found." in await answer.text()  # nothing of the work area
        monkeypatch.setattr(limits, "SEARCH_FOUND_MAX", 1)
        async with it.http.get(it.url + "?search=x&lang=es") as answer:
            assert "se ha detenido" in await answer.text()

    served(tmp_path, story)


def test_previews(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (it.root / "x.html").write_bytes(b"<script>alert(1)</script>")
        (it.root / "x.png").write_bytes(b"")
        (it.root / "x.pdf").write_bytes(b"%PDF")
        async with it.http.get(it.url + "x.html?preview=1") as answer:
            assert "&lt;script&gt;alert(1)" in await answer.text()
        for name, wanted in (("x.png", '<img src="/x.png"'), ("x.pdf", '<iframe src="/x.pdf"')):
            async with it.http.get(it.url + name + "?preview=1") as answer:
                assert wanted in await answer.text()
        for path in ("x.png?about=1", "?action=ask"):
            data = [("what", "delete"), ("item", "x.png")]
            method = it.http.get(it.url + path) if "about" in path else it.http.post(it.url + path, data=data)
            async with method as answer:
                assert answer.status == 200
                assert "x.png" in await answer.text()

    served(tmp_path, story)


def test_text_of_any_encoding() -> None:
    assert previews.decode("año".encode()) == "año"
    assert previews.decode("año".encode("latin-1")) == "año"
    assert previews.decode("año".encode("utf-16")) == "año"
    assert previews.decode("añ".encode()[:-1]) == "a"


def test_nothing_is_replaced_that_came_a_moment_ago(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            tree.rename_new("a", "b", source=fd, target=fd)
        (tmp_path / "d").mkdir()
        inside = os.open(tmp_path / "d", os.O_RDONLY)
        with pytest.raises(FilesError):
            tree.rename_new("d", "e", source=fd, target=inside)
        os.close(inside)
    finally:
        os.close(fd)


def test_pages_of_a_large_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remembered order is forgotten with the first name that comes or goes; folders first, in both directions."""
    monkeypatch.setattr(order, "ORDERS_MIN_NAMES", 1)
    monkeypatch.setattr(order, "SETTLED_NS", -1)
    for name in ("b10", "B2", "ána 1", "c"):
        (tmp_path / name).touch()
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("c")
    volume = Volume(tmp_path)
    volume.open()
    orders = order.Orders()

    def names(first: int, count: int, *, descending: bool = False) -> list[str]:
        return [entry.name for entry in orders.page(volume, (), first, count, descending=descending)[0]]

    try:
        assert names(0, 9) == ["x", "y", "ána 1", "B2", "b10", "c"]
        assert names(1, 2) == ["y", "ána 1"]
        assert names(3, 2) == ["B2", "b10"]
        assert names(0, 9, descending=True) == ["y", "x", "c", "b10", "B2", "ána 1"]
        assert names(99, 9) == ["c"]
        (tmp_path / "a").touch()
        assert names(2, 1) == ["a"]
        (tmp_path / "B2").rename(tmp_path / "0")
        (tmp_path / "x").rmdir()
        (tmp_path / "x").touch()
        assert names(0, 9) == ["y", "0", "a", "ána 1", "b10", "c", "x"]
    finally:
        volume.close()


@given(st.sets(st.text("aB1ñ0 ", min_size=1)), st.sets(st.text("aB1ñ0 ", min_size=1)), st.integers(0, 9))
def test_an_order_is_mended_as_if_it_were_made_anew(before: set[str], after: set[str], new_max: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "ORDERS_MAX_NEW", new_max)
        known = order.sorted_names(list(before), [])
        assert order.sorted_names(list(after), known) == sorted(after, key=lambda name: (order.natural_key(name), name))


@pytest.mark.parametrize("names", [["a1", "a02", "a10", "a b", "ab"], ["1", "2", "10", " ", "a"], ["m", "Ñ", "o"]])
def test_natural_order(names: list[str]) -> None:
    assert sorted(set(names), key=order.natural_key) == names
