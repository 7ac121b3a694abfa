"""Reads haresources as Heartbeat 3.0.6 does.

A line is a node and the resources that run there together, started from left to right and stopped from right to left.
A resource is an agent's name and its arguments, with `::` between them; an address alone stands for IPaddr. `#` begins
a comment, and a backslash at a line's end continues it.
"""

from __future__ import annotations

import ipaddress
import pathlib
from collections.abc import Iterator

from relevo.config.errors import ConfigError
from relevo.config.ha.ha_cf import MAX_FILE_BYTES
from relevo.config.ha.tree import Group, Word
from relevo.config.table import nearest


def read_haresources(path: pathlib.Path, nodes: list[str]) -> tuple[list[Group], list[ConfigError]]:
    """The groups, and every mistake.

    Args:
        path: the file.
        nodes: the nodes that ha.cf names.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode()
    except OSError as error:
        return [], [ConfigError(path, None, f"It cannot be read ({error.strerror}).", "Check the path.")]
    except UnicodeDecodeError:
        return [], [ConfigError(path, None, "This is not UTF-8.", "Save the file as UTF-8.")]
    groups, mistakes = [], []
    for line, words in _lines(text):
        node, *resources = words
        if node not in nodes:
            mistakes.append(ConfigError(path, line, f"{node!r} is no node of ha.cf.", nearest(node, nodes)))
        elif not resources:
            mistakes.append(ConfigError(path, line, f"{node} has no resource here.", "Name one, or remove the line."))
        else:
            groups.append(Group(node, tuple(_word(word) for word in resources), line))
    return groups, mistakes


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that says something, continued ones joined."""
    held: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].rstrip()
        start = start or number
        held += content.removesuffix("\\").split()
        if content.endswith("\\"):
            continue
        if held:
            yield start, held
        held, start = [], 0
    if held:
        yield start, held


def _word(written: str) -> Word:
    agent, *arguments = written.split("::")
    try:
        ipaddress.ip_address(agent.partition("/")[0])
    except ValueError:
        return Word(agent, tuple(arguments))
    return Word("IPaddr", (agent, *arguments))
