"""Screenshots of every page in both languages and themes, desk and telephone: `make screenshots`."""

from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile

from playwright.sync_api import BrowserContext, Page, sync_playwright
from site_thread import Site, fill, login, peopled, site

CHROMIUM = "/usr/bin/chromium"
SIZES = {"desk": {"width": 1200, "height": 800}, "telephone": {"width": 390, "height": 800}}
PAGES = {
    "folder": "",
    "about": "LEEME.md?about=1",
    "delete": "LEEME.md?delete=ask",
    "text": "Notas%20de%20la%20reuni%C3%B3n.txt?preview=1",
    "picture": "Playa%20al%20atardecer.svg?preview=1",
    "search": "?search=foto",
    "bin": ".relevo/bin/",
    "empty": "Proyectos/",
    "error": "no%20existe",
}
ADMIN_PAGES = {
    "share": "docs/plan.txt?share=1",
    "account": ".relevo/account",
    "admin-users": ".relevo/admin",
    "admin-user": ".relevo/admin?show=user&name=leo",
    "admin-group": ".relevo/admin?show=group&name=staff",
    "admin-shares": ".relevo/admin?show=shares",
    "admin-share": ".relevo/admin?show=share&name=docs",
    "admin-links": ".relevo/admin?show=links",
    "admin-sessions": ".relevo/admin?show=sessions",
    "admin-audit": ".relevo/admin?show=audit",
}
DROP = """([names, bytes]) => {
    const carried = new DataTransfer();
    for (const name of names) carried.items.add(new File([new Uint8Array(bytes).fill(7)], name));
    document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""
SLOW = {"offline": False, "latency": 50, "downloadThroughput": 4 << 20, "uploadThroughput": 3 << 20}


def busy_page(context: BrowserContext, place: Site, target: pathlib.Path) -> None:
    """Uploads under way, a question, and then a server that is away."""
    page = context.new_page()
    page.goto(place.url)
    page.wait_for_selector("html[data-ready]")
    page.locator("input[name=item]").nth(1).check()
    page.locator("input[name=item]").nth(4).check()
    page.screenshot(path=f"{target}-chosen.png")
    page.locator("summary").first.click()
    page.screenshot(path=f"{target}-upload.png")
    page.keyboard.press("Escape")
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
    page.evaluate(DROP, [["Vídeo de la boda.mp4", "Planos.dwg", "Fotos.tar", "Copia.iso"], 9 << 20])
    page.wait_for_function("() => document.querySelector('#transfers li.runs progress')?.value > 3e6")
    page.screenshot(path=f"{target}-transfers.png")
    place.order(place.service.close())
    page.wait_for_selector("#switching:not(:empty)")
    page.screenshot(path=f"{target}-switching.png")
    place.order(place.service.open())
    page.wait_for_selector("#transfers li.done >> nth=3")
    page.evaluate(DROP, [["LEEME.md"], 9])
    page.wait_for_selector("dialog")
    page.screenshot(path=f"{target}-conflict.png")


def shoot(page: Page, url: str, target: str) -> None:
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    page.screenshot(path=target)


def people(context: BrowserContext, place: Site, target: pathlib.Path) -> None:
    """What administrators, readers and people with a link see."""
    links = peopled(place)
    page = context.new_page()
    for label, path in zip(("link", "drop", "link-password"), links, strict=True):
        shoot(page, place.url + path, f"{target}-{label}.png")
    shoot(page, place.url + ".relevo/login?to=/docs/", f"{target}-login.png")
    login(page, "root")
    for label, path in ADMIN_PAGES.items():
        shoot(page, place.url + path, f"{target}-{label}.png")
    page.goto(place.url + "docs/plan.txt?share=1")
    page.locator("form button.main").click()
    page.wait_for_selector("#url")
    page.screenshot(path=f"{target}-share-made.png")


def main(folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for language in ("en", "es"):
            for scheme in ("light", "dark"):
                for size, viewport in SIZES.items():
                    name = folder / f"{language}-{scheme}-{size}"
                    with tempfile.TemporaryDirectory() as scratch, site(pathlib.Path(scratch)) as place:
                        fill(place.root)
                        context = browser.new_context(locale=language, color_scheme=scheme, viewport=viewport)  # type: ignore[arg-type]
                        page = context.new_page()
                        for action in ("LEEME.md", "Copia%20de%20seguridad.zip"):
                            context.request.post(f"{place.url}?action=copy", form={"item": action, "to": "/Proyectos"})
                            context.request.post(f"{place.url}Proyectos/{action}?action=delete")
                        for label, path in PAGES.items():
                            shoot(page, place.url + path, f"{name}-{label}.png")
                        busy_page(context, place, name)
                        people(context, place, name)
                        context.close()
        browser.close()
    print(f"{len(list(folder.glob('*.png')))} screenshots in {folder}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
