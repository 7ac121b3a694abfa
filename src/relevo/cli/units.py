"""`relevo units install|remove`: the unit files with which systemd runs the daemons of this server."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from relevo import units as package
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.cli.context import Context, of
from relevo.config.model import FilesResource
from relevo.config.site import sites_here
from relevo.node.views import hosts
from relevo.witness.settings import FILE as WITNESS_FILE

SYSTEM = pathlib.Path("/etc/systemd/system")
"""Where systemd looks for units that an administrator has put there."""
Root = Annotated[pathlib.Path, typer.Option(help="Write below this folder, for a package or an image.")]
Into = Annotated[pathlib.Path, typer.Option(help="Folder of the units, seen from the root.")]

app = typer.Typer(no_args_is_help=True, help="Unit files for systemd: what runs the daemons on a server.")


GROWING_PAUSES_SINCE = 254
"""Version of systemd from which on the pause before a restart can grow."""
GROWING_PAUSES = "RestartSec=100ms\nRestartSteps=6\nRestartMaxDelaySec=5s"
"""As the lab's PID 1: at once after a single death, without a busy loop where something is wrong for good."""
FIXED_PAUSES = "RestartSec=1s"
VERSION_LIMIT_S = 10.0


class NotOurs(RelevoError):
    """A unit of that name is there, and is not one of ours."""


@app.command("install")
def install(ctx: typer.Context, *, root: Root = pathlib.Path("/"), into: Into = SYSTEM) -> None:
    """Write them, and have `relevo.target` start what the configuration has on this server; starts nothing.

    To be repeated when a mirror or a file service has been added or taken away.
    """
    context = of(ctx)
    folder = _below(root, into)
    wanted = set(_wanted(context))
    for name in package.ALL:
        _refuse_others(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    words = {"@RELEVO@": command(context), "@PAUSES@": pauses(systemd_version())}
    for name in package.ALL:
        text = (pathlib.Path(package.__file__).parent / name).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        (folder / name).write_text(text, encoding="utf-8")
    wants = _wants(folder)
    wants.mkdir(exist_ok=True)
    for link in wants.iterdir():
        if link.is_symlink() and link.name not in wanted:
            link.unlink()
    for name in sorted(wanted):
        link = wants / name
        link.unlink(missing_ok=True)
        link.symlink_to(into / _template(name))
    typer.echo(
        f"{folder}: {package.TARGET} starts {', '.join(sorted(wanted)) or 'nothing: nothing is configured yet'}."
    )
    typer.echo(f"Next: systemctl daemon-reload; systemctl enable --now {package.TARGET}")


@app.command("remove")
def remove(*, root: Root = pathlib.Path("/"), into: Into = SYSTEM) -> None:
    """Take them away again; what runs goes on running until it is stopped."""
    folder = _below(root, into)
    for name in package.ALL:
        _refuse_others(folder / name)
    for name in package.ALL:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(_wants(folder), ignore_errors=True)
    (folder / "multi-user.target.wants" / package.TARGET).unlink(missing_ok=True)
    typer.echo("Next: systemctl daemon-reload")


def systemd_version() -> int:
    """The version of systemd on this machine; 0 where there is none."""
    try:
        done = subprocess.run(["systemctl", "--version"], capture_output=True, timeout=VERSION_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(rb"systemd (\d+)", done.stdout)
    return int(match[1]) if match else 0


def pauses(version: int) -> str:
    """The lines of a unit that say how long to wait before a restart."""
    return GROWING_PAUSES if version >= GROWING_PAUSES_SINCE else FIXED_PAUSES


def command(context: Context) -> str:
    """`relevo` with the options that lead it to the same place, as a command line of a unit.

    The name of the node is written only where it is not the host's: it may be another one when the image of a server is
    copied.
    """
    words = [sys.executable, "-m", "relevo"]
    usual = context.paths == Paths()
    if not usual:
        words += context.arguments()
    elif context.node != os.uname().nodename:
        words += ["--node", context.node]
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A word of a command line as systemd reads it (systemd.service(5)): no specifiers, variables, blanks."""
    word = word.replace("%", "%%").replace("$", "$$")
    if all(letter.isalnum() or letter in "/._-+=:,@%$" for letter in word) and word:
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _wanted(context: Context) -> Iterator[str]:
    """The units that belong on this server; none where nothing is configured yet."""
    if (context.paths.etc / WITNESS_FILE).exists():
        yield package.WITNESS
    if not context.paths.config.exists():
        if context.paths.drbd.exists():
            for site in sites_here(context.paths, context.node):
                yield package.instance(package.MIRROR, site.mirror.name)
        return
    config = context.config()
    yield from package.SERVICES
    yield from (package.instance(package.MIRROR, name) for name in config.nodes[context.node].disks)
    for name, where in hosts(config).items():
        for resource in config.services[name].resources:
            if isinstance(resource, FilesResource) and context.node in where:
                yield package.instance(package.FILES, resource.id)


def _template(name: str) -> str:
    head, at, tail = name.partition("@")
    return f"{head}@{pathlib.PurePath(tail).suffix}" if at else name


def _below(root: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    return root / into.relative_to(into.anchor)


def _wants(folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{package.TARGET}.wants"


def _refuse_others(path: pathlib.Path) -> None:
    if path.exists() and package.MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise NotOurs(f"{path} is there already, and is not one of Relevo's.", "Move it away.")
