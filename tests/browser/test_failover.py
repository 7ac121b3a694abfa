"""A power cut of the active server while a browser at the virtual IP uploads and downloads: both go on."""

from __future__ import annotations

import hashlib
import os
import pathlib
import stat
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Playwright, expect

from lab_maker import LabMaker
from relevo.lab.lab import Lab
from relevo.lab.scene import URL
from relevo.lab.story import Story

CHROMIUM = "/usr/bin/chromium"
SIZE_BYTES = 96 << 20
FAILOVER_MS = 60_000
SLOW = {"offline": False, "latency": 0, "downloadThroughput": 12 << 20, "uploadThroughput": 12 << 20}
MAKE = """async (size) => {
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(size).fill(9)], "subido.bin"));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""


CHANGES = f"""
post() {{ curl -sf -o /dev/null -H 'Accept: application/json' "$@"; }}
for name in one two three four; do echo $name | curl -sf -T - {URL}$name; done
post -d name=folder '{URL}?action=folder'
post -d 'item=one&name=renamed' '{URL}?action=rename'
post -d 'item=two&to=/folder' '{URL}?action=move'
post -d 'item=three&to=/folder' '{URL}?action=copy'
post -d 'item=four' '{URL}?action=delete'
"""
"""Answered right before the power goes; what they did has to be there afterwards."""


@pytest.fixture
def lab(make_lab: LabMaker) -> Lab:
    made = make_lab(limit_s=170.0, disk_bytes=512 << 20)
    made.up()
    return made


@pytest.fixture
def client_browser(lab: Lab, driver: Playwright, tmp_path: pathlib.Path) -> Iterator[Browser]:
    """A Chromium in the network of the lab's client, which a plain wrapper puts it into."""
    client = lab.machine("client").process
    assert client is not None
    wrapper = tmp_path / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec nsenter --net=/proc/{client.pid}/ns/net {CHROMIUM} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    made = driver.chromium.launch(executable_path=wrapper, args=["--no-sandbox", "--disable-dev-shm-usage"])
    yield made
    made.close()


def test_upload_and_download_outlive_a_power_cut(lab: Lab, client_browser: Browser, tmp_path: pathlib.Path) -> None:
    data = os.urandom(1 << 20) * (SIZE_BYTES >> 20)
    (lab.shared / "bajado.bin").write_bytes(data)
    lab.run("client", ["curl", "-sf", "-T", str(lab.shared / "bajado.bin"), URL], check=True)
    page = client_browser.new_context(locale="es-ES").new_page()
    page.goto(URL)
    page.wait_for_selector("html[data-ready]")
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
    page.evaluate(MAKE, SIZE_BYTES)
    with page.expect_download(timeout=2 * FAILOVER_MS) as coming:
        page.get_by_role("link", name="bajado.bin", exact=True).click()
        for line in ("subido.bin", "bajado.bin"):  # both are in the middle
            bar = page.locator("#transfers li", has_text=line).locator("progress")
            page.wait_for_function("([bar]) => bar.value > 8e6", arg=[bar.element_handle()])
        lab.run("client", ["sh", "-ec", CHANGES], check=True)
        lab.crash("nodo1")
        expect(page.locator("#switching")).to_have_text("Cambiando de servidor…", timeout=FAILOVER_MS)
        page.get_by_role("link", name="Papelera").click()  # a click meanwhile is not lost
        expect(page.get_by_role("heading", name="Papelera")).to_be_visible(timeout=FAILOVER_MS)
    coming.value.save_as(tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data
    expect(page.locator("#transfers li.done")).to_have_count(2, timeout=2 * FAILOVER_MS)
    expect(page.locator("#transfers li.failed")).to_have_count(0)
    Story(lab).await_service_away_from("nodo1")
    told = lab.run("client", ["sh", "-c", f"curl -sf {URL}subido.bin | sha256sum"], check=True, capture=True)
    assert told.stdout.split()[0].decode() == hashlib.sha256(b"\x09" * SIZE_BYTES).hexdigest()
    look = (
        f"curl -sf {URL}renamed {URL}folder/two {URL}folder/three {URL}three; curl -sf '{URL}.relevo/bin/?format=json'"
    )
    told = lab.run("client", ["sh", "-c", look], check=True, capture=True)
    assert told.stdout.decode().startswith("one\ntwo\nthree\nthree\n{")
    assert b'"path":"/four"' in told.stdout
