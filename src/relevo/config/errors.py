"""What is wrong in a configuration, and where."""

from __future__ import annotations

import pathlib

from relevo.base.errors import RelevoError


class ConfigError(RelevoError):
    """One mistake in the configuration.

    Args:
        file: the file that has to be changed.
        line: its line, counted from 1; None when the file as a whole is meant.
        mistake: one sentence, what is wrong.
        remedy: one sentence, what to write instead.
    """

    def __init__(self, file: pathlib.Path, line: int | None, mistake: str, remedy: str = "") -> None:
        where = f"{file}:{line}" if line is not None else str(file)
        super().__init__(f"{where}: {mistake}", remedy)
        self.file = file
        self.line = line
        self.mistake = mistake


class ConfigErrors(RelevoError):
    """Every mistake that was found in the configuration, in the order of files and lines."""

    def __init__(self, errors: list[ConfigError]) -> None:
        assert errors, "an error is about something"
        self.errors = tuple(sorted(errors, key=lambda error: (str(error.file), error.line or 0)))
        super().__init__("\n".join(str(error) for error in self.errors))


class UnknownNode(RelevoError):
    """This host is none of the nodes of the cluster."""
