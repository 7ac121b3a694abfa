"""`relevo demo`: the main job, watched."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from relevo.base.units import parse_size_bytes

DEFAULT_DIR = pathlib.Path("/var/lib/relevo/demo")


def demo(
    lab_dir: Annotated[pathlib.Path, typer.Option("--dir", help="Folder of the lab's disks and state.")] = DEFAULT_DIR,
    files: Annotated[
        pathlib.Path | None, typer.Option(help="The files to store (default: Python's standard library).")
    ] = None,
    large: Annotated[str, typer.Option(help="Size of the one large file.")] = "96 MiB",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object as the last line.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Leave the lab running, at http://127.0.0.1:8029.")] = False,
) -> None:
    """Two servers, one address; the active one loses power in the middle; nothing that was acknowledged is lost."""
    from relevo.lab import demo as show

    raise SystemExit(show.run(lab_dir, files=files, large_bytes=parse_size_bytes(large), stay=stay, as_json=as_json))
