"""`meta_disks`: where meta-data may lie, and what of it is refused."""

from __future__ import annotations

import pathlib

import pytest
from test_config_load import RIGHT, mistakes, written

from relevo.config.load import load
from relevo.config.meta_disk import INTERNAL, MetaDisk, MetaDiskWrong, parse_meta_disk


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("internal", INTERNAL),
        ("/dev/sdb1", MetaDisk(kind="flexible", path=pathlib.Path("/dev/sdb1"))),
        ("/dev/sdb1[0]", MetaDisk(kind="external", path=pathlib.Path("/dev/sdb1"), index=0)),
        ("/dev/disk/by-id/x[12]", MetaDisk(kind="external", path=pathlib.Path("/dev/disk/by-id/x"), index=12)),
    ],
)
def test_each_kind_is_read_and_written(text: str, place: MetaDisk) -> None:
    assert parse_meta_disk(text) == place
    assert str(place) == text


@pytest.mark.parametrize("text", ["sdb1", "/dev/../x", "/dev/sdb[256]", "[1]", "Internal"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(MetaDiskWrong):
        parse_meta_disk(text)


def with_meta_disks(table: str) -> str:
    """The right file with a second mirror and meta-disks on nodo1."""
    toml = RIGHT.replace('disks = { r0 = "/dev/relevo/r0" }', 'disks = { r0 = "/dev/a", r1 = "/dev/b" }')
    toml = toml.replace("[nodes.nodo2]", f"meta_disks = {table}\n[nodes.nodo2]")
    return toml + '[mirrors.r1]\nlink = "cross"\nport = 7789\n'


SECRETS = '[mirror]\nr0 = "not a word"\nr1 = "another one"\n'


def test_each_node_has_its_own(tmp_path: pathlib.Path) -> None:
    toml = with_meta_disks('{ r0 = "/dev/meta[0]", r1 = "/dev/meta[1]" }')
    config = load(written(tmp_path, toml, SECRETS))
    assert str(config.nodes["nodo1"].meta_disk("r1")) == "/dev/meta[1]"
    assert config.nodes["nodo2"].meta_disk("r1") == INTERNAL


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('{ r0 = "meta" }', "is no place of meta-data"),
        ('{ r9 = "/dev/meta" }', "has no disk of mirror 'r9'"),
        ('{ r0 = "/dev/b" }', "/dev/b is the disk of mirror 'r1'"),
        ('{ r0 = "/dev/meta", r1 = "/dev/meta" }', "already holds the meta-data of another mirror"),
        ('{ r0 = "/dev/meta[2]", r1 = "/dev/meta[2]" }', "already holds the meta-data of another mirror"),
        ('{ r0 = "/dev/meta", r1 = "/dev/meta[2]" }', "already holds the meta-data of another mirror"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(tmp_path: pathlib.Path, table: str, sentence: str) -> None:
    toml = with_meta_disks(table)
    found = mistakes(written(tmp_path, toml, SECRETS))
    line = toml[: toml.index("meta_disks")].count("\n") + 1
    assert [(at, sentence in what) for _, at, what, _ in found] == [(line, True)], found
