"""A client that fetches files and compares their checksums: run inside a lab as `python -m relevo.lab.verify URL`.

Standard input: one JSON object a line, `{"path": relative URL path, "sha256": hex, "bytes": n}`. Standard output: one
JSON object `{"files": n, "bytes": n, "lost": [paths], "corrupt": [paths]}`. It shares no code with the file service,
so that it can judge it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import urllib.parse

import aiohttp
import msgspec

PARALLEL = 4
ATTEMPT_LIMIT_S = 60.0
CHUNK_BYTES = 1 << 18


class Wanted(msgspec.Struct, frozen=True):
    """A file that was acknowledged."""

    path: str
    sha256: str
    bytes: int


class Verdict(msgspec.Struct):
    """What became of the files: `lost` could not be fetched, `corrupt` have other contents."""

    files: int = 0
    bytes: int = 0
    lost: list[str] = msgspec.field(default_factory=list)
    corrupt: list[str] = msgspec.field(default_factory=list)


async def _check(session: aiohttp.ClientSession, base: str, wanted: Wanted, verdict: Verdict) -> None:
    digest, size = hashlib.sha256(), 0
    url = base.rstrip("/") + "/" + urllib.parse.quote(wanted.path)
    async with session.get(url) as answer:
        if answer.status != 200:
            verdict.lost.append(f"{wanted.path} ({answer.status})")
            return
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    verdict.files += 1
    verdict.bytes += size
    if size != wanted.bytes or digest.hexdigest() != wanted.sha256:
        verdict.corrupt.append(wanted.path)


async def verify(base: str, files: list[Wanted]) -> Verdict:
    """Fetch every file and compare it; a few at a time."""
    verdict = Verdict()
    waiting = iter(files)
    limit = aiohttp.ClientTimeout(total=ATTEMPT_LIMIT_S)

    async def worker(session: aiohttp.ClientSession) -> None:
        for wanted in waiting:
            try:
                await _check(session, base, wanted, verdict)
            except (aiohttp.ClientError, TimeoutError) as error:
                verdict.lost.append(f"{wanted.path} ({type(error).__name__})")

    async with aiohttp.ClientSession(timeout=limit, auto_decompress=False) as session:
        await asyncio.gather(*(worker(session) for _ in range(PARALLEL)))
    return verdict


def main() -> None:
    """Read the list, fetch, print the verdict."""
    wanted = [msgspec.json.decode(line, type=Wanted) for line in sys.stdin.buffer if line.strip()]
    verdict = asyncio.run(verify(sys.argv[1], wanted))
    sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")


if __name__ == "__main__":
    main()
