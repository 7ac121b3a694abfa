"""Anything at all as the text of a drbd.conf, and large files."""

from __future__ import annotations

import contextlib
import pathlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import drbd_conf_files as files
from relevo.config.drbd import load
from relevo.config.drbd.dump import dump
from relevo.config.drbd.lexer import Lexed
from relevo.config.drbd.load import read
from relevo.config.drbd.options import KEYWORDS
from relevo.config.drbd.site import two_sides
from relevo.config.errors import ConfigErrors

_PIECES = st.sampled_from(
    [
        *sorted(KEYWORDS),
        *(
            "{",
            "}",
            ";",
            "[",
            "]",
            ":",
            '"',
            "\\",
            "#",
            "\n",
            " ",
            "\0",
            "é",
            "10.0.0.1:7788",
            "ipv6 [::1]:1",
            "/dev/drbd0",
        ),
        *("r0", "nodo1", "7", "100M", '"a b"', "resource r0 {", "on nodo1 {", "volume 0 {", 'include "*.conf";'),
        files.HOST_1,
        files.HOST_2,
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(_PIECES, max_size=60).map(" ".join), st.text(max_size=300), st.lists(_PIECES).map("".join)))
@example("{" * 5000)
@example("resource r0 {" * 2000)
@example("skip " + "{" * 3000)
@example('"' * 2001)
def test_nothing_but_a_result_or_a_clear_error(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "drbd.conf"
    path.write_bytes(text.encode("utf-8", "surrogateescape" if text.isprintable() else "replace"))
    try:
        conf = read(path, "nodo1")
    except ConfigErrors as errors:
        unclear = [error for error in errors.errors if error.line is None or not error.mistake]
    else:
        unclear = []
        dump(conf, "nodo1")
        for resource in conf.resources:
            with contextlib.suppress(ConfigErrors):
                two_sides(resource)
    assert unclear == []


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400))
def test_every_character_belongs_to_a_token_a_blank_or_a_comment(text: str) -> None:
    lexed = Lexed(pathlib.Path("x"), text)
    rest, at = "", 0
    for token in lexed.tokens:
        rest += text[at : token.offset]
        assert text.startswith(token.text, token.offset)
        at = token.offset + len(token.text)
    assert at == len(text)
    outside = [line.partition("#")[0] for line in rest.split("\n")]
    assert all(line.strip(" \t\r") == "" for line in outside)


LARGE_BYTES = load.MAX_FILE_BYTES // 4


def filled(head: str, piece: str, tail: str) -> str:
    """As many pieces as a large file holds."""
    return head + piece * ((LARGE_BYTES - len(head) - len(tail)) // len(piece)) + tail


def in_resource(section: str, piece: str, more: str = "") -> str:
    before, after = files.resource(f"{section} {{ @ }} {more}").split("@")
    return filled(before, piece, after)


@pytest.mark.parametrize(
    "text",
    [
        in_resource("net", "timeout 60; "),
        in_resource("net", "timeuot 60; "),
        in_resource("net", "after-sb-0pri nothing; "),
        in_resource("disk", "rate 1M;"),
        filled("common { net { ", "ping-int 9; ", "} }")[: LARGE_BYTES // 2].rpartition(";")[0]
        + "; } } "
        + files.resource("net { " + "timeout 60; " * 10_000 + "}"),
        in_resource("handlers", 'pri-lost "a"b"'),
        in_resource("handlers", '"'),
        in_resource("handlers", 'pri-lost "a\\" x";\n'),
        in_resource("proxy", "plugin { zlib level 9; } "),
        filled("resource r0 { on ", "a ", "{ } }"),
        filled("resource r0 { on nodo1 { ", "volume 1 { device minor 5; } ", "} }"),
        filled("resource r0 { ", "on nodo1 { } ", "}"),
        filled("", "resource r { } ", ""),
        filled("", "{", ""),
        filled("", "}", ""),
        filled("skip {", "{}", "}"),
        filled("", ":", ""),
        filled("", "a:", ""),
        filled("", "a", ""),
        filled('handlers "', '\\"', ""),
        filled("", 'include "*.none";\n', ""),
    ],
    ids=lambda text: text[:20] + text[len(text) // 2 :][:20],
)
@pytest.mark.timeout(60)
def test_a_large_file_takes_no_more_than_its_length(text: str, tmp_path: pathlib.Path) -> None:
    """What grew with the square of the length would not end within the limit of a test."""
    with contextlib.suppress(ConfigErrors):
        path = tmp_path / "drbd.conf"
        path.write_text(text)
        read(path, "nodo1")
