"""A minute on a machine without time: nobody is declared dead who is alive. Ten minutes, and `fast`: make torture."""

from __future__ import annotations

import pathlib
import tempfile

from relevo.lab.process import wait_until
from steady import Steady

SECONDS = 60.0
LIMIT_S = 30.0


def test_a_saturated_machine_raises_no_false_alarm() -> None:
    with tempfile.TemporaryDirectory(prefix="relevo-steady-", dir="/var/tmp") as folder:
        made = Steady(pathlib.Path(folder), None)
        try:
            made.up()
            assert made.watch(SECONDS) == []
            with made.busy():
                made.lab.crash("nodo2")  # that it would have been seen
                assert wait_until(lambda: bool(made.alarms()), LIMIT_S), "the death of nodo2 was not seen"
        finally:
            made.down()
