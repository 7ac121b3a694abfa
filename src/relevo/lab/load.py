"""A client that stores a file, fetches it, stores the next: run inside a lab as `python -m relevo.lab.load URL`.

Each file that the service acknowledged (201 or 204) is a JSON line on standard output, in the form that
`relevo.lab.verify` reads. A file that was not acknowledged is sent again until it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import random
import sys

import aiohttp
import msgspec

from relevo.lab.verify import Wanted

ANSWER_LIMIT_S = 2.0
RETRY_MS = 50
COMPLAIN_EVERY = 100
DEFAULT_BYTES = 64 << 10


async def _store(session: aiohttp.ClientSession, url: str, data: bytes) -> str:
    """Why it was not acknowledged; empty when it was."""
    try:
        async with session.put(url, data=data) as answer:
            await answer.read()
            return "" if answer.status in (201, 204) else str(answer.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__


async def _store_until_acknowledged(session: aiohttp.ClientSession, url: str, data: bytes) -> None:
    for attempt in itertools.count(1):
        why = await _store(session, url, data)
        if not why:
            return
        if attempt % COMPLAIN_EVERY == 0:
            sys.stderr.write(f"{url}: {why} ({attempt} attempts)\n")
        # Only the next attempt tells whether the service is back.
        await asyncio.sleep(RETRY_MS / 1000)


async def _fetch_until_whole(session: aiohttp.ClientSession, url: str, wanted: Wanted) -> None:
    """Read back what was acknowledged; broken off, it is fetched again.

    Raises:
        SystemExit: it is not there, or has other contents.
    """
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url) as answer:
                data = await answer.read()
                if answer.status == 404 or (answer.status == 200 and hashlib.sha256(data).hexdigest() != wanted.sha256):
                    raise SystemExit(f"{url} was acknowledged and came back with status {answer.status}, changed.")
                if answer.status == 200:
                    return
        await asyncio.sleep(RETRY_MS / 1000)


async def store_for_ever(base: str, folder: str, worker: int, size_bytes: int, seed: int) -> None:
    """Store files named after their number, with contents of the seed, until cancelled."""
    source = random.Random(seed + worker)
    number = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)) as session:
        while True:
            data = source.randbytes(source.randrange(1, 2 * size_bytes))
            path = f"{folder}/{worker}-{number}.bin"
            await _store_until_acknowledged(session, f"{base.rstrip('/')}/{path}", data)
            acknowledged = Wanted(path, hashlib.sha256(data).hexdigest(), len(data))
            sys.stdout.buffer.write(msgspec.json.encode(acknowledged) + b"\n")
            sys.stdout.buffer.flush()
            number += 1
            await _fetch_until_whole(session, f"{base.rstrip('/')}/{path}", acknowledged)


async def _all(base: str, folder: str, workers: int, size_bytes: int, seed: int) -> None:
    await asyncio.gather(*(store_for_ever(base, folder, worker, size_bytes, seed) for worker in range(workers)))


def main() -> None:
    """Read the arguments and store until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--folder", default="load")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=DEFAULT_BYTES)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_all(arguments.url, arguments.folder, arguments.workers, arguments.bytes, arguments.seed))


if __name__ == "__main__":
    main()
