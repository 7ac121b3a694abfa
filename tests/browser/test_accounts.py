"""Somebody who administers, somebody who may only read, and people with a link; with and without JavaScript."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from site_thread import SECRETS, Site, login, peopled
from test_pages import BIG_BYTES, DROP, RULES, SIZES

OpenPage = Callable[..., Page]
WORDS = {
    "en": {
        "admin": "Administration",
        "add": "Add",
        "permit": "Permit",
        "share": "Share",
        "make": "Make a link",
        "put": "Send",
        "drop": "only put files here",
        "copy": "Copy the address",
        "withdraw": "Withdraw",
        "up": "Upload",
        "out": "Log out",
    },
    "es": {
        "admin": "Administración",
        "add": "Añadir",
        "permit": "Permitir",
        "share": "Compartir",
        "make": "Crear un enlace",
        "put": "Enviar",
        "drop": "solo dejar archivos aquí",
        "copy": "Copiar la dirección",
        "withdraw": "Retirar",
        "up": "Subir",
        "out": "Cerrar sesión",
    },
}
PAGES = (
    "docs/?share=1",
    ".relevo/account",
    *(f".relevo/admin?show={tab}" for tab in ("users", "groups", "shares", "links", "sessions", "audit")),
    ".relevo/admin?show=user&name=leo",
    ".relevo/admin?show=group&name=staff",
    ".relevo/admin?show=share&name=docs",
    ".relevo/login",
)


@pytest.mark.parametrize("language", ["en", "es"])
def test_an_administrator_adds_somebody_who_then_reads(place: Site, open_page: OpenPage, language: str) -> None:
    """With JavaScript in English, without it in Spanish."""
    peopled(place)
    script, words = language == "en", WORDS[language]
    page = open_page(place.url + ".relevo/login", locale=language, java_script_enabled=script)
    login(page, "root")
    page.get_by_role("link", name=words["admin"]).click()
    page.fill("#name", "tom")
    page.fill("#password", "correct horse")
    page.get_by_role("button", name=words["add"], exact=True).click()
    page.get_by_role("link", name="tom", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("tom")
    page.goto(place.url + ".relevo/admin?show=share&name=docs")
    page.select_option("#holder", "tom")
    page.get_by_role("button", name=words["permit"], exact=True).click()
    expect(page.get_by_role("cell", name="tom", exact=True)).to_be_visible()

    reader = open_page(place.url + ".relevo/login?to=/docs/", locale=language, java_script_enabled=script)
    login(reader, "tom")
    expect(reader.get_by_role("link", name="plan.txt", exact=True)).to_be_visible()
    expect(reader.get_by_text(words["up"], exact=True)).to_have_count(0)
    expect(reader.get_by_role("link", name=words["admin"])).to_have_count(0)
    reader.goto(place.url + "docs/plan.txt?about=1")
    expect(reader.locator("form[action*=rename], a[href*=delete], a[href*=share]")).to_have_count(0)
    reader.get_by_role("link", name="tom", exact=True).click()
    reader.get_by_role("button", name=words["out"]).click()
    expect(reader.locator("#password")).to_be_visible()


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_link_is_made_used_and_withdrawn(place: Site, open_page: OpenPage, language: str) -> None:
    peopled(place)
    script, words = language == "en", WORDS[language]
    page = open_page(place.url + ".relevo/login?to=/docs/", locale=language, java_script_enabled=script)
    login(page, "root")
    page.get_by_role("link", name=words["share"], exact=True).click()
    page.get_by_label(words["drop"]).check()
    page.get_by_role("button", name=words["make"]).click()
    address = page.locator("#url").input_value()
    assert address.startswith(place.url + ".relevo/link/")
    if script:
        page.get_by_role("button", name=words["copy"]).click()
        expect(page.locator("#notices p")).to_be_visible()
    else:
        expect(page.get_by_role("button", name=words["copy"])).to_be_hidden()

    guest = open_page(address, locale=language, java_script_enabled=script)
    expect(guest.get_by_text("plan.txt")).to_have_count(0)
    if script:
        guest.evaluate(DROP, [["plan.txt"], BIG_BYTES])
        expect(guest.locator("#transfers li.done")).to_have_count(1)
    else:
        data = {"name": "plan.txt", "mimeType": "text/plain", "buffer": b"\x07" * BIG_BYTES}
        guest.set_input_files("#file", [data])
        guest.get_by_role("button", name=words["put"]).click()
        expect(guest.locator(".notice")).to_be_visible()
    assert (place.root / "docs/plan (2).txt").stat().st_size == BIG_BYTES
    assert (place.root / "docs/plan.txt").read_text() == "plan"

    page.goto(place.url + "docs/plan.txt?share=1")
    page.fill("#password", "swordfish")
    page.get_by_role("button", name=words["make"]).click()
    guest.goto(page.locator("#url").input_value())
    guest.fill("#password", "swordfish")
    guest.locator("form button.main").click()
    expect(guest.locator("pre")).to_have_text("plan")
    page.goto(place.url + ".relevo/account")
    page.get_by_role("button", name=words["withdraw"]).first.click()
    expect(page.get_by_role("button", name=words["withdraw"])).to_have_count(len(SECRETS) + 1)


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("es", "dark")])
def test_axe_finds_nothing(place: Site, open_page: OpenPage, language: str, scheme: str) -> None:
    axe = os.environ.get("RELEVO_AXE")
    if axe is None:
        pytest.skip("make browser fetches axe-core")
    links = peopled(place)
    options = {"locale": language, "color_scheme": scheme, "viewport": SIZES[scheme], "bypass_csp": True}
    page = open_page(place.url + ".relevo/login", **options)
    login(page, "root")
    for path in (*PAGES, *links):
        page.goto(place.url + path)
        look(page, axe, path)
    page.goto(place.url + "docs/?share=1")
    page.locator("form button.main").click()
    expect(page.locator("#url")).to_be_visible()
    look(page, axe, "a link that was just made")


def look(page: Page, axe: str, path: str) -> None:
    """No rule of axe is broken."""
    page.add_script_tag(path=axe)
    found = page.evaluate(f"axe.run(document, {RULES})")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == [], path


def test_a_folder_by_a_link(place: Site, open_page: OpenPage, tmp_path: pathlib.Path) -> None:
    """Every click stays behind the link, and a download has its name."""
    links = peopled(place)
    (place.root / "docs/fotos").mkdir()
    (place.root / "docs/fotos/año.bin").write_bytes(b"x" * 5000)
    page = open_page(place.url + links[0])
    page.get_by_role("link", name="fotos", exact=True).click()
    with page.expect_download() as coming:
        page.get_by_role("link", name="año.bin", exact=True).click()
    coming.value.save_as(tmp_path / "got")
    assert coming.value.suggested_filename == "año.bin"
    assert (tmp_path / "got").stat().st_size == 5000
    page.get_by_role("link", name="Relevo").click()
    expect(page.get_by_role("link", name="fotos", exact=True)).to_be_visible()  # the search begins where it is typed
    page.fill("#search", "plan")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="plan.txt", exact=True).click()
    expect(page.locator("pre")).to_have_text("plan")
    assert page.url.startswith(place.url + links[0])
