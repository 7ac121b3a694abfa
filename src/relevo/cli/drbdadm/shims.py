"""`relevo mirror shims --into DIR`: executables named drbdadm and drbddisk, for scripts and for Heartbeat."""

from __future__ import annotations

import pathlib
import shlex
import sys
from typing import Annotated

import typer

from relevo import shims as package
from relevo.base.errors import RelevoError
from relevo.cli.context import of

NAMES = ("drbdadm", "resource.d/drbddisk")
EXECUTABLE = 0o755


class NotOurs(RelevoError):
    """A file of that name is there, and is not one of ours."""


def register(app: typer.Typer) -> None:
    """Add the verb to `relevo mirror`."""
    app.command("shims")(shims)


def shims(
    ctx: typer.Context,
    *,
    into: Annotated[pathlib.Path, typer.Option(help="Folder where they are written, such as /usr/local/sbin.")],
    heartbeat: Annotated[
        pathlib.Path | None, typer.Option(help="Folder of Heartbeat's resource scripts, such as /etc/ha.d/resource.d.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put ours in the place of the originals, kept as NAME.original.")
    ] = False,
) -> None:
    """Write executables named drbdadm and drbddisk, for historic scripts and Heartbeat."""
    relevo = shlex.join([sys.executable, "-m", "relevo", *of(ctx).arguments()])
    drbdadm = into / "drbdadm"
    drbddisk = (heartbeat or into / "resource.d") / "drbddisk"
    _write(drbdadm, "drbdadm", {"@RELEVO@": relevo}, replace=replace)
    _write(drbddisk, "drbddisk", {"@DRBDADM@": shlex.quote(str(drbdadm.absolute()))}, replace=replace)
    typer.echo(f"{drbdadm}\n{drbddisk}")


def _write(target: pathlib.Path, template: str, words: dict[str, str], *, replace: bool) -> None:
    text = (pathlib.Path(package.__file__).parent / template).read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    if target.exists() and package.MARK not in target.read_text(encoding="utf-8", errors="replace"):
        if not replace:
            raise NotOurs(
                f"{target} is there already, and is not one of Relevo's.", "Use another folder, or --replace."
            )
        target.replace(target.with_name(f"{target.name}.original"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    target.chmod(EXECUTABLE)
