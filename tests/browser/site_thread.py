"""A file service in a thread of its own, for a browser that is driven from the main thread."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

from playwright.sync_api import Page

from accounts_support import PASSWORD, family, hashed, order
from files_bench import Bench, bench
from relevo.files.accounts import changes
from relevo.files.link import url_for


class Site:
    """The service, and orders to it from another thread."""

    def __init__(self, made: Bench, loop: asyncio.AbstractEventLoop) -> None:
        self.root = made.root
        self.url = made.url
        self.service = made.service
        self.bench = made
        self._loop = loop

    def order(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


@contextlib.contextmanager
def site(folder: pathlib.Path) -> Iterator[Site]:
    """Serve a folder while the body runs."""
    ready, ended = threading.Event(), threading.Event()
    found: list[Site] = []

    async def main() -> None:
        async with bench(folder) as made:
            found.append(Site(made, asyncio.get_running_loop()))
            ready.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="site")
    thread.start()
    try:
        assert ready.wait(20), "the service did not start"
        yield found[0]
    finally:
        ended.set()
        thread.join()


def fill(root: pathlib.Path) -> None:
    """Something to look at, as people have it."""
    for name in ("Facturas 2026", "Fotos de la playa", "Proyectos"):
        (root / name).mkdir()
    for number in (1, 2, 3, 10):
        (root / "Fotos de la playa" / f"foto {number}.svg").write_text(PICTURE)
    (root / "Playa al atardecer.svg").write_text(PICTURE)
    (root / "Presupuesto año 2026.pdf").write_bytes(b"%PDF-1.4\n" + b"x" * 180_000)
    (root / "Copia de seguridad.zip").write_bytes(b"PK" + b"x" * 5_300_000)
    (root / "Notas de la reunión.txt").write_text(
        "Orden del día\n\n1. Copias de seguridad\n2. Vacaciones <agosto>\n" * 9
    )
    (root / "LEEME.md").write_text("# Hola\n")


def peopled(place: Site) -> tuple[str, ...]:
    """Accounts (`accounts_support.family`) and links; the paths of the links: to look, to put, with a password."""

    async def make() -> None:
        await family(place.bench)
        (place.root / "docs/plan.txt").write_text("plan")
        await order(place.bench, "user-set", name="leo", quota_bytes=5 << 30)
        for secret, more in zip(SECRETS, ({}, {"kind": "drop"}, {"password": hashed()}), strict=True):
            digest = changes.digest_of(secret)
            await order(place.bench, "link-add", digest=digest, path="docs", creator="root", **more)

    place.order(make())
    return tuple(url_for(secret)[1:] for secret in SECRETS)


SECRETS = ("one-to-look", "one-to-put", "one-with-a-password")


def login(page: Page, name: str) -> None:
    """Log in, on the page that asks for it."""
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.locator("main form button").click()
    page.wait_for_selector(f'.side a:has-text("{name}")')


NOTES = "Orden del día\n\n1. Copias de seguridad\n2. Vacaciones <agosto>\n"
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="900" height="500" viewBox="0 0 900 500">
<rect width="900" height="320" fill="#f4b183"/><circle cx="640" cy="250" r="80" fill="#ffe08a"/>
<rect y="310" width="900" height="110" fill="#3f7cac"/><rect y="410" width="900" height="90" fill="#e8d3a2"/></svg>
"""
