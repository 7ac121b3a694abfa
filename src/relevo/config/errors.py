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
        column: where in the line it is, counted from 1; None when the line as a whole is meant.
    """

    def __init__(
        self, file: pathlib.Path, line: int | None, mistake: str, remedy: str = "", *, column: int | None = None
    ) -> None:
        where = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{where}: {mistake}", remedy)
        self.file = file
        self.line = line
        self.column = column
        self.mistake = mistake


class ConfigErrors(RelevoError):
    """Every mistake that was found in the configuration, in the order of files and lines."""

    def __init__(self, errors: list[ConfigError]) -> None:
        assert errors, "an error is about something"
        self.errors = tuple(sorted(errors, key=lambda error: (str(error.file), error.line or 0, error.column or 0)))
        super().__init__("\n".join(str(error) for error in self.errors))


class UnknownNode(RelevoError):
    """This host is none of the nodes of the cluster."""
