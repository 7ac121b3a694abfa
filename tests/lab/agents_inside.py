"""Run a test in network, mount and PID namespaces of its own, so that whatever it leaves behind ends with it."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

INSIDE = "RELEVO_TEST_INSIDE"
LIMIT_S = 60
ROOT = pathlib.Path(__file__).resolve().parents[2]


def inside(test: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a test: outside it starts pytest for itself in new namespaces, inside it runs."""
    if os.environ.get(INSIDE):
        return test

    @functools.wraps(test)
    def outside(**_fixtures: object) -> None:
        where = f"{sys.modules[test.__module__].__file__}::{test.__name__}"
        argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
        argv += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", where]
        done = subprocess.run(
            argv, env=os.environ | {INSIDE: "1"}, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr

    # Fixtures are made inside only.
    del outside.__wrapped__  # type: ignore[attr-defined]
    return outside


def sh(*argv: str) -> str:
    """Run a tool that has to succeed; its output."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout.strip()
