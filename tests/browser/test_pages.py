"""What a person does in the browser, with and without JavaScript, in both languages."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from site_thread import Site, fill

OpenPage = Callable[..., Page]
BIG_BYTES = 12 << 20
DROP = """([names, bytes]) => {
    const carried = new DataTransfer();
    for (const name of names) carried.items.add(new File([new Uint8Array(bytes).fill(7)], name));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""
PAGES = (
    "",
    "Fotos%20de%20la%20playa/",
    "LEEME.md?about=1",
    "LEEME.md?delete=ask",
    "Notas%20de%20la%20reuni%C3%B3n.txt?preview=1",
    "Playa%20al%20atardecer.svg?preview=1",
    "?search=foto",
    ".relevo/bin/",
    "none",
)
SLOW = {"offline": False, "latency": 0, "downloadThroughput": 8 << 20, "uploadThroughput": 4 << 20}
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']}"
SIZES = {"light": {"width": 1200, "height": 800}, "dark": {"width": 390, "height": 800}}


def test_files_are_dropped_and_listed(place: Site, open_page: OpenPage) -> None:
    page = open_page(place.url)
    page.evaluate(DROP, [["one.bin", "two ñ.bin"], BIG_BYTES])
    expect(page.locator("#transfers li.done")).to_have_count(2)
    expect(page.get_by_role("link", name="two ñ.bin", exact=True)).to_be_visible()
    assert (place.root / "two ñ.bin").read_bytes() == b"\x07" * BIG_BYTES
    page.evaluate(DROP, [["one.bin"], 10])
    page.get_by_role("button", name="Keep both").click()
    expect(page.get_by_role("link", name="one (2).bin", exact=True)).to_be_visible()
    assert (place.root / "one.bin").stat().st_size == BIG_BYTES
    page.evaluate(DROP, [["one.bin"], 11])
    page.get_by_role("button", name="Replace it").click()
    expect(page.locator("#transfers li.done")).to_have_count(4)
    assert (place.root / "one.bin").stat().st_size == 11


def test_an_upload_waits_and_goes_on(place: Site, open_page: OpenPage) -> None:
    """The volume goes away in the middle of an upload, and comes back: no error, no byte lost, no click lost."""
    page = open_page(place.url, locale="es-ES")
    place.order(place.service.close())
    page.evaluate(DROP, [["uno.bin"], BIG_BYTES])
    expect(page.locator("#switching")).to_have_text("Cambiando de servidor…")
    page.locator("summary", has_text="Carpeta nueva").click()
    page.fill("#name", "hecha después")
    page.keyboard.press("Enter")
    place.order(place.service.open())
    expect(page.get_by_role("link", name="hecha después", exact=True)).to_be_visible()
    expect(page.locator("#transfers li.done")).to_have_count(1)
    expect(page.locator("#switching")).to_be_empty()
    assert (place.root / "uno.bin").stat().st_size == BIG_BYTES


def test_an_upload_is_paused_and_resumed(place: Site, open_page: OpenPage) -> None:
    page = open_page(place.url)
    place.order(place.service.close())
    page.evaluate(DROP, [["x.bin"], BIG_BYTES])
    page.get_by_role("button", name="Pause: x.bin").click()
    place.order(place.service.open())
    expect(page.locator("#transfers li")).to_have_class("paused")
    page.get_by_role("button", name="Resume: x.bin").click()
    expect(page.locator("#transfers li.done")).to_have_count(1)
    assert (place.root / "x.bin").stat().st_size == BIG_BYTES


def test_several_are_chosen_deleted_and_restored(place: Site, open_page: OpenPage) -> None:
    fill(place.root)
    page = open_page(place.url)
    expect(page.locator("#chosen-tools")).to_be_hidden()
    page.get_by_label("Select LEEME.md").check()
    page.get_by_label("Select Proyectos").check()
    expect(page.locator("#chosen-count")).to_have_text("2 selected")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".notice")).to_have_text("Moved to the bin.")
    assert not (place.root / "LEEME.md").exists()
    page.get_by_role("link", name="Bin", exact=True).click()
    page.get_by_label("Select LEEME.md").check()
    page.get_by_role("button", name="Restore").click()
    expect(page.locator(".notice")).to_have_text("Put back in its place.")
    assert (place.root / "LEEME.md").exists()


def test_a_download_is_whole(place: Site, open_page: OpenPage, tmp_path: pathlib.Path) -> None:
    data = os.urandom(BIG_BYTES)
    (place.root / "año.bin").write_bytes(data)
    page = open_page(place.url)
    with page.expect_download() as coming:
        page.get_by_role("link", name="año.bin", exact=True).click()
    coming.value.save_as(tmp_path / "got")
    assert coming.value.suggested_filename == "año.bin"
    assert (tmp_path / "got").read_bytes() == data


def test_the_service_worker_goes_on(place: Site, open_page: OpenPage, tmp_path: pathlib.Path) -> None:
    """Where the connection is trusted the browser's own download is made of ranges: the volume goes and comes back."""
    data = os.urandom(1 << 20) * 128
    (place.root / "a.bin").write_bytes(data)
    page = open_page(place.url)
    page.wait_for_function("() => navigator.serviceWorker.controller")
    with page.expect_download() as coming:
        page.get_by_role("link", name="a.bin", exact=True).click()
    assert place.service.traffic.active, "it is in the middle"
    for _ in range(2):
        place.order(place.service.close())
        place.order(place.service.open())
    coming.value.save_as(tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data
    expect(page.locator("#transfers li")).to_have_count(0)  # it was not the page that fetched it


@pytest.mark.parametrize("language", ["en", "es"])
def test_without_javascript(place: Site, open_page: OpenPage, language: str) -> None:
    fill(place.root)
    words = {"en": ("Upload", "New folder", "Create"), "es": ("Subir", "Carpeta nueva", "Crear")}[language]
    page = open_page(place.url, locale=language, java_script_enabled=False)
    page.locator("summary", has_text=words[0]).click()
    page.set_input_files("#file", [{"name": "x.txt", "mimeType": "text/plain", "buffer": b"hola"}])
    page.locator(".pop").get_by_role("button", name=words[0], exact=True).click()
    expect(page.locator(".notice")).to_be_visible()
    assert (place.root / "x.txt").read_bytes() == b"hola"
    page.locator("summary", has_text=words[1]).click()
    page.fill("#name", "nueva")
    page.get_by_role("button", name=words[2], exact=True).click()
    expect(page.get_by_role("link", name="nueva", exact=True)).to_be_visible()
    assert (place.root / "nueva").is_dir()
    page.goto(place.url + "x.txt?about=1")
    page.fill("#name", "y.txt")
    page.locator("form[action*=rename] button").click()
    expect(page.locator(".notice")).to_be_visible()
    page.goto(place.url + "y.txt?about=1")
    page.fill("#to", "/nueva")
    page.locator("button[formaction*=copy]").click()
    expect(page.locator(".notice")).to_be_visible()
    page.goto(place.url + "y.txt?delete=ask")
    page.locator("button.danger").click()
    expect(page.locator(".notice")).to_be_visible()
    assert (place.root / "nueva/y.txt").read_bytes() == b"hola"
    assert not (place.root / "y.txt").exists()


def test_with_the_keyboard(place: Site, open_page: OpenPage) -> None:
    fill(place.root)
    page = open_page(place.url)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("foto 10")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="foto 10.svg Fotos de la playa")).to_be_visible()
    expect(page.locator("#content")).to_be_focused()


def test_what_was_refused_can_be_tried_again(place: Site, open_page: OpenPage) -> None:
    page = open_page(place.url)
    (place.root / "blocked.bin").mkdir()
    page.evaluate(DROP, [["blocked.bin"], 100])
    expect(page.locator("#transfers li.failed")).to_contain_text("There is a folder of this name.")
    (place.root / "blocked.bin").rmdir()
    page.get_by_role("button", name="Resume: blocked.bin").click()
    expect(page.locator("#transfers li.done")).to_have_count(1)
    assert (place.root / "blocked.bin").stat().st_size == 100


def test_a_whole_folder_goes_up_and_comes_back_as_a_zip_file(
    place: Site, open_page: OpenPage, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "viaje/día 1").mkdir(parents=True)
    (tmp_path / "viaje/día 1/ñ.txt").write_bytes(b"hola")
    (tmp_path / "viaje/b.bin").write_bytes(b"b" * 3_000_000)
    page = open_page(place.url)
    page.locator("summary", has_text="Upload").click()
    page.set_input_files("#folder-input input", tmp_path / "viaje")
    expect(page.locator("#transfers li.done")).to_have_count(2)
    page.get_by_label("Select viaje").check()
    assert (place.root / "viaje/día 1/ñ.txt").read_bytes() == b"hola"
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download as ZIP").click()
    coming.value.save_as(tmp_path / "got.zip")
    with zipfile.ZipFile(tmp_path / "got.zip") as whole:
        assert whole.testzip() is None
        assert {"viaje/día 1/ñ.txt", "viaje/b.bin"} <= set(whole.namelist())


def test_what_is_refused_is_told_in_place(place: Site, open_page: OpenPage) -> None:
    fill(place.root)
    page = open_page(place.url, locale="es")
    page.get_by_label("Más: LEEME.md").click()
    page.fill("#name", "Proyectos")
    page.get_by_role("button", name="Cambiar nombre").click()
    expect(page.locator(".notice.risk")).to_have_text("Ya existe algo con este nombre.")
    page.fill("#name", "Léeme.md")
    page.get_by_role("button", name="Cambiar nombre").click()
    expect(page.get_by_role("link", name="Léeme.md", exact=True)).to_be_visible()


def test_an_upload_goes_on_after_the_window_was_closed(
    place: Site, open_page: OpenPage, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(BIG_BYTES))
    page = open_page(place.url)
    for round_ in range(2):
        page.locator("summary", has_text="Upload").click()
        page.set_input_files("#file", tmp_path / "big.bin")
        if round_ == 0:
            page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
        page.locator(".pop button.main").first.click()
        if round_ == 0:
            page.wait_for_function("() => document.querySelector('#transfers li.runs progress')?.value > 4e6")
            page.on("dialog", lambda asked: asked.accept())
            page.reload()
            page.wait_for_selector("html[data-ready]")
    expect(page.locator("#transfers li.done")).to_have_count(1)
    assert (place.root / "big.bin").read_bytes() == (tmp_path / "big.bin").read_bytes()
    assert len(list((place.root / ".relevo/uploads").glob("*.info"))) == 1


def test_from_one_picture_to_the_next(place: Site, open_page: OpenPage) -> None:
    fill(place.root)
    page = open_page(place.url + "Fotos%20de%20la%20playa/")
    page.get_by_role("link", name="foto 3.svg", exact=True).click()
    expect(page.get_by_role("heading", name="foto 3.svg")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", name="foto 10.svg")).to_be_visible()
    page.wait_for_function("() => document.querySelector('.show img').naturalWidth === 900")
    page.get_by_role("link", name="Previous").click()
    expect(page.get_by_role("heading", name="foto 3.svg")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="foto 10.svg")).to_be_visible()


def test_the_first_page_is_small(place: Site, open_page: OpenPage) -> None:
    for number in range(300):
        (place.root / f"a file with a longer name, number {number}.txt").write_bytes(b"")
    page = open_page(place.url)
    fetched = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".reduce((sum, one) => sum + one.transferSize, 0)"
    )
    assert 10_000 < fetched < 100_000


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(place: Site, open_page: OpenPage, language: str, scheme: str) -> None:
    axe = os.environ.get("RELEVO_AXE")
    if axe is None:
        pytest.skip("make browser fetches axe-core")
    fill(place.root)
    page = open_page(place.url, locale=language, color_scheme=scheme, viewport=SIZES[scheme], bypass_csp=True)
    page.evaluate(DROP, [["x.bin"], 1000])
    expect(page.get_by_role("link", name="x.bin", exact=True)).to_be_visible()
    page.locator("input[name=item]").first.check()
    page.locator("summary").first.click()
    for path in PAGES:
        if path:
            page.goto(place.url + path)
        page.add_script_tag(path=axe)
        found = page.evaluate(f"axe.run(document, {RULES})")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == [], path
