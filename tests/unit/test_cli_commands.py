"""The commands that the units start are there, however few others their group has."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from relevo.cli.main import app
from relevo.lab.scene import SERVICE_UNITS, WITNESS_UNIT


@pytest.mark.parametrize("argv", [unit.argv[1:3] for unit in (*SERVICE_UNITS, WITNESS_UNIT)], ids=" ".join)
def test_what_a_unit_starts_is_a_command(argv: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, [*argv, "--help"])
    assert done.exit_code == 0, done.output
    assert f"{argv[0]} {argv[1]} [OPTIONS]" in done.output
