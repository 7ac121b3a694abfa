"""witness.toml: what is wrong with it is said before anything listens."""

from __future__ import annotations

import pathlib

import pytest

from relevo.config.errors import ConfigErrors
from relevo.witness.settings import load

CLUSTERS = '[clusters]\noffice = "the key"\n'


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "witness.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("address", ["192.168.0.30", "::", "fe80::1%eth0", "witness.example.org", "testigo.españa.es"])
def test_where_it_listens(tmp_path: pathlib.Path, address: str) -> None:
    settings = load(written(tmp_path, f'address = "{address}"\n{CLUSTERS}'))
    assert (settings.address, settings.keys) == (address, {"office": "the key"})


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (f'address = "a..b"\n{CLUSTERS}', ["address is no address or name of a machine."]),
        (f'address = "a\\u0000b"\n{CLUSTERS}', ["address is no address or name of a machine."]),
        ('[clusters]\n"../x" = "the key"\n', ["clusters.../x is not a name."]),
        ('[clusters]\noffice = ""\n', ["clusters.office is empty."]),
        ("[clusters]\n", ["It names 0 clusters."]),
    ],
)
def test_each_mistake_is_said_once(tmp_path: pathlib.Path, text: str, mistakes: list[str]) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(written(tmp_path, text))
    assert [error.mistake for error in caught.value.errors] == mistakes
