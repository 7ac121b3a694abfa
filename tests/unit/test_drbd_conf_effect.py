"""An option that is said to have its effect is read by what the mirror is made of."""

from __future__ import annotations

import pathlib
import re

import msgspec
import pytest

import relevo
from relevo.config.drbd.options import OPTIONS, Option
from relevo.config.drbd_options import DrbdOptions
from relevo.config.model import Mirror

FIELDS = {
    "connect-int": "connect_interval_ms",
    "ping-int": "ping_interval_ms",
    "cram-hmac-alg": "hmac",
    "shared-secret": "secret",
    "sndbuf-size": "sndbuf_bytes",
    "rcvbuf-size": "rcvbuf_bytes",
}
"""Options whose field has another name."""


def reader_of(option: Option) -> str:
    """How the program reads what the option sets."""
    if option.section == "handlers":
        return r"options\.handlers\b"
    name = FIELDS.get(option.name, option.name.replace("-", "_"))
    names = {name, f"{name}_ms", f"{name}_bytes"}
    for struct, holder in ((DrbdOptions, r"options\."), (Mirror, r"(?:settings|mirror)\.")):
        found = names & {field.name for field in msgspec.structs.fields(struct)}
        if found:
            return rf"{holder}{found.pop()}\b"
    raise AssertionError(f"{option.name} sets nothing")


@pytest.fixture(scope="module")
def program() -> str:
    root = pathlib.Path(relevo.__file__).parent
    files = [path for part in ("mirror", "cli/drbdadm") for path in sorted((root / part).rglob("*.py"))]
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.honoured], ids=lambda option: option.name)
def test_what_is_honoured_is_read(option: Option, program: str) -> None:
    assert re.search(reader_of(option), program), f"nothing reads what {option.name} sets"
