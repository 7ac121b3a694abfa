"""Shell scripts and files in the machines of a lab, for tests and benchmarks."""

from __future__ import annotations

import pathlib
import shlex

from relevo.lab.lab import Lab

LIMIT_S = 60.0


def shell(lab: Lab, node: str, script: str, *, check: bool = True) -> str:
    """Run a shell script in a machine; what it printed."""
    done = lab.run(node, ["sh", "-c", f"exec 2>&1; {script}"], capture=True, timeout_s=LIMIT_S)
    text = done.stdout.decode(errors="replace")
    assert not check or done.returncode == 0, text
    return text


def put(lab: Lab, node: str, path: str, text: str, mode: str = "600") -> None:
    """Write a file in a machine."""
    folder = shlex.quote(str(pathlib.PurePath(path).parent))
    shell(lab, node, f"mkdir -p {folder}; printf %s {shlex.quote(text)} > {path}; chmod {mode} {path}")
