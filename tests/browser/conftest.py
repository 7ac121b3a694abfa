"""A Chromium, headless; pages must raise no error and ask for nothing that is not there."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="make browser installs what these tests need")

from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from site_thread import Site, site

from lab_maker import LabMaker, lab_maker

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
LIMIT_MS = 20_000


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    """There can be only one at a time."""
    with sync_playwright() as made:
        yield made


@pytest.fixture(scope="session")
def browser(driver: Playwright) -> Iterator[Browser]:
    made = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages: `open_page(url, **options of the context)`; an uncaught error in one fails the test."""
    errors: list[str] = []
    contexts = []

    def make(url: str, **options: object) -> Page:
        context = browser.new_context(**{"locale": "en-GB", **options})  # type: ignore[arg-type]
        context.set_default_timeout(LIMIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda told: errors.append(told.text) if "Content Security Policy" in told.text else None)
        page.goto(url)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture
def make_lab(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[LabMaker]:
    yield from lab_maker(tmp_path, request)
