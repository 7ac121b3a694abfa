"""Style sheet, scripts and icons: read once, sent from memory, so that the server without the volume sends them too.

Their address contains a hash of them all and may be kept for ever. After an upgrade of one server only, an address of
the other one is answered with what there is here, not to be kept.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import pathlib

import msgspec

from relevo.files.texts import LANGUAGES
from relevo.files.texts_script import SCRIPT
from relevo.files.urls import WORK_FOLDER

FOLDER = (WORK_FOLDER, "assets")
_HERE = pathlib.Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_WORTH_PACKING_BYTES = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Asset:
    """One file that pages refer to.

    Attributes:
        kind: its media type.
        plain: its bytes.
        packed: the same, compressed by gzip.
    """

    kind: str
    plain: bytes
    packed: bytes


def pack(data: bytes, level: int = 9) -> bytes:
    """Compress by gzip; the same bytes give the same result on both servers."""
    return gzip.compress(data, level, mtime=0)


def _sentences(language: str) -> bytes:
    words = {code: pair[LANGUAGES.index(language)] for code, pair in SCRIPT.items()}
    return b"export default " + msgspec.json.encode(words) + b";\n"


@functools.cache
def all_assets() -> dict[str, Asset]:
    """Every asset by its name below the folder of assets."""
    found = {
        str(path.relative_to(_HERE)): path.read_bytes() for path in sorted(_HERE.rglob("*")) if path.suffix in _TYPES
    }
    found |= {f"texts.{language}.js": _sentences(language) for language in LANGUAGES}
    return {name: Asset(_TYPES[pathlib.Path(name).suffix], data, pack(data)) for name, data in found.items()}


@functools.cache
def version() -> str:
    """A hash of all assets."""
    digest = hashlib.sha256()
    for name, asset in sorted(all_assets().items()):
        digest.update(f"{name}\0{len(asset.plain)}\0".encode() + asset.plain)
    return digest.hexdigest()[:16]


def url(name: str) -> str:
    """The address of an asset."""
    assert name in all_assets(), f"no asset is called {name}"
    return f"/{'/'.join(FOLDER)}/{version()}/{name}"


def find(names: tuple[str, ...]) -> tuple[Asset, bool] | None:
    """The asset of an address below the folder of assets, and whether it may be kept for ever."""
    if len(names) < 2 or (asset := all_assets().get("/".join(names[1:]))) is None:
        return None
    return asset, names[0] == version()
