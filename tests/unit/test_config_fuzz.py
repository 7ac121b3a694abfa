"""Whatever is written in the files: either a configuration, or mistakes with sentences; never a crash."""

from __future__ import annotations

import pathlib
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from test_config_load import AUTHKEYS, RIGHT, SECRETS, written

from relevo.config.errors import ConfigErrors
from relevo.config.load import hash_of, load

LINES = RIGHT.splitlines()
VALUES = """
""|0|-1|true|[]|{}|[1, {}]|"x"|1.5|1979-05-27|"0 ms"|"10.27.0.1/33"|"/"|"r0"|"nodo1"|"users"|"99999999999999999999 d"|
{ r0 = 1 }|"10.27.0.1"|9999999999999999999999999|nan
""".replace("\n", "").split("|")


@st.composite
def mutated(draw: st.DrawFn) -> str:
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "value", "swap", "double", "key"])):
            case "drop":
                del lines[at]
            case "value" if " = " in lines[at]:
                lines[at] = lines[at].partition(" = ")[0] + " = " + draw(st.sampled_from(VALUES))
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "key":
                lines[at] = lines[at].replace("r0", "r1").replace("users", "cross").replace("web", "mirrors")
        if not lines:
            break
    return "\n".join(lines) + "\n"


def outcome(path: pathlib.Path) -> None:
    try:
        config = load(path)
    except ConfigErrors as errors:
        for error in errors.errors:
            assert error.mistake.endswith("."), error.mistake
            assert error.remedy.endswith((".", "?")), error.remedy
            assert error.line is None or error.line >= 1
    else:
        assert config.hash == hash_of(config)


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_mutated_configurations(toml: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome(written(pathlib.Path(folder), toml))


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_in_the_private_files(secrets: bytes, authkeys: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = written(folder)
        (folder / "secrets.toml").write_bytes(SECRETS.encode() + secrets)
        (folder / "authkeys").write_bytes(AUTHKEYS.encode() + authkeys)
        outcome(path)
