"""The first page of a folder of 100,000 entries: for the first time, after a change, and with its order remembered."""

from __future__ import annotations

import asyncio
import os
import pathlib
import statistics
import tempfile
import time

from files_bench import Bench, bench

COUNT = 100_000
AGAIN = 20
PAGE = {"Accept": "text/html", "Accept-Encoding": "gzip"}


async def first_page_ms(it: Bench) -> float:
    begun = time.perf_counter()
    async with it.http.get(it.url + "many/", headers=PAGE) as answer:
        assert answer.status == 200
        await answer.read()
    return (time.perf_counter() - begun) * 1000


def make(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True)
    for number in range(COUNT):
        touch(folder, f"informe {number} del año.txt" if number % 2 else f"IMG_{number:06d}.jpg")


def touch(folder: pathlib.Path, name: str) -> None:
    os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch, "volume/many")
        make(folder)
        async with bench(pathlib.Path(scratch)) as it:
            first = await first_page_ms(it)
            anew = []
            for number in range(5):
                touch(folder, f"new {number}")
                await asyncio.sleep(0.2)  # a folder that was changed a moment ago is not remembered
                anew.append(await first_page_ms(it))
            again = [await first_page_ms(it) for _ in range(AGAIN)]
    print(f"first page of {COUNT} entries: {first:.0f} ms for the first time, ", end="")
    print(f"{statistics.median(anew):.0f} ms after a change, ", end="")
    print(f"{statistics.median(again):.1f} ms with its order remembered")


if __name__ == "__main__":
    asyncio.run(main())
