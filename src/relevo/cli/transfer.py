"""`relevo put` and `relevo get`: store and fetch files; a failover on the way is a pause, not an error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, Self

import msgspec
import typer
import yarl

from relevo.base.units import format_bytes, format_duration_ms, parse_duration_ms
from relevo.files.client import (
    Fetched,
    Observer,
    ServerRefused,
    Stored,
    TransferFailed,
    TreeReport,
    get_file,
    put_file,
    put_tree,
)
from relevo.files.client.connection import below, names_of, parse, session

_GIVE_UP = Annotated[str, typer.Option("--give-up", help="Fail after this long without any progress.")]
_JSON = Annotated[bool, typer.Option("--json", help="For programs: a JSON object a line for each event.")]
_USER = Annotated[str, typer.Option("--user", "-u", help="Log in as this user; asks for the password.")]
_PASSWORD_FILE = Annotated[
    pathlib.Path | None, typer.Option(help="Read the password from this file (its first line; - is standard input).")
]
_NOT_LOGGED_IN = 401
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def _has_terminal() -> bool:
    """Whether a person can be asked: at the terminal of this session, even where standard input is something else."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return sys.stdin.isatty()
    return True


def _login(user: str, file: pathlib.Path | None) -> tuple[str, str] | None:
    """User name and password, or None; the password never stands on the command line, where everyone could see it.

    Raises:
        TransferFailed: there is no terminal to ask at.
    """
    if not user:
        return None
    if file is None:
        if not _has_terminal():
            raise TransferFailed(
                "There is no terminal to ask for the password.", "Use --password-file FILE (- is standard input)."
            )
        return user, typer.prompt(f"Password of {user}", hide_input=True, err=True)
    text = sys.stdin.readline() if str(file) == "-" else file.read_text().partition("\n")[0]
    return user, text.rstrip("\r\n")


@contextlib.contextmanager
def _naming_the_option(user: str) -> Iterator[None]:
    """Whoever came without a name and is told to log in is told how: the server's sentence is for browsers too."""
    try:
        yield
    except ServerRefused as error:
        if error.status == _NOT_LOGGED_IN and not user:
            error.remedy = "Add --user NAME."
        raise


class JsonLines(Observer):
    """One JSON object a line on standard output."""

    def stored(self, source: pathlib.Path | str, result: Stored) -> None:
        """A file was acknowledged."""
        self.write({"event": "stored", "source": str(source), **msgspec.structs.asdict(result)})

    def retrying(self, source: pathlib.Path | str, why: str) -> None:
        """An attempt broke off."""
        self.write({"event": "retrying", "source": str(source), "why": why})

    def failed(self, source: pathlib.Path | str, why: str) -> None:
        """A file was refused."""
        self.write({"event": "failed", "source": str(source), "why": why})

    @staticmethod
    def write(event: dict[str, Any]) -> None:
        """Print an event at once."""
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


class Bar(Observer):
    """A progress bar on standard error, when that is a terminal; else one line there each time that nothing moves.

    Args:
        waited_for: the address, as it was given.
        limit_s: after so long without any progress the transfer fails.
    """

    def __init__(self, waited_for: str, limit_s: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TextColumn("{task.fields[note]}", style="yellow", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, note="")
        self._positions: dict[str, int] = {}
        self._total = 0
        self._told = not self._progress.disable
        """That nothing moves has been said, or the bar says it."""
        self._waited_for = waited_for
        self._limit = format_duration_ms(round(limit_s * 1000))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def found(self, source: pathlib.Path | str, size_bytes: int) -> None:
        """One more file belongs to the whole."""
        if str(source) not in self._positions:
            self._positions[str(source)] = 0
            self._total += size_bytes
        self._progress.update(self._task, total=self._total, description=pathlib.PurePath(source).name)

    def moved(self, source: pathlib.Path | str, position_bytes: int) -> None:
        """The bar moves on (or back)."""
        if position_bytes > self._positions.get(str(source), 0):
            self._told = not self._progress.disable
        self._positions[str(source)] = position_bytes
        self._progress.update(self._task, completed=sum(self._positions.values()), note="")

    def retrying(self, source: pathlib.Path | str, why: str) -> None:  # noqa: ARG002 - the bar is of all files
        """Say why nothing moves."""
        if not self._told:
            self._told = True
            wait = f"Waiting for it, and trying again until nothing has moved for {self._limit} (--give-up)."
            sys.stderr.write(f"relevo: {self._waited_for}: {why}. {wait}\n")
            sys.stderr.flush()
        self._progress.update(self._task, note=f"trying again: {why}")


class Counted(Observer):
    """Passes on what it is told, and knows how much the server has acknowledged."""

    def __init__(self, inner: Observer) -> None:
        self._inner = inner
        self.files = 0
        self.bytes = 0
        self.found, self.moved = inner.found, inner.moved  # type: ignore[method-assign]
        self.retrying, self.failed = inner.retrying, inner.failed  # type: ignore[method-assign]

    def stored(self, source: pathlib.Path | str, result: Stored) -> None:
        """A file was acknowledged."""
        self.files += 1
        self.bytes += result.bytes
        self._inner.stored(source, result)

    def interrupted(self) -> str:
        """What is there, and how to go on."""
        again = "The same command begins again from the first file; what is there is replaced by the same."
        if not self.files:
            return f"Interrupted: nothing has been stored yet. {again}"
        files = "1 file is" if self.files == 1 else f"{self.files} files are"
        return f"Interrupted: {files} stored ({format_bytes(self.bytes)}), and what was under way is not. {again}"


def _watching(url: str, limit_s: float, *, as_json: bool, quiet: bool) -> Observer:
    if as_json:
        return JsonLines()
    return Observer() if quiet else Bar(url, limit_s)


def put(
    files: Annotated[list[str], typer.Argument(metavar="FILE… URL", help="Files or folders, and where they go.")],
    *,
    user: _USER = "",
    password_file: _PASSWORD_FILE = None,
    give_up: _GIVE_UP = "2 min",
    as_json: _JSON = False,
    quiet: _QUIET = False,
) -> None:
    """Store files and folders; what is acknowledged is on the disks of both servers, its checksum verified.

    A URL that ends with / is a folder that takes them; otherwise it is the name of the one file (or folder).
    """
    *sources, url = files
    if not sources:
        raise TransferFailed("There is nothing to store.", "Write relevo put FILE… URL.")
    limit_s = parse_duration_ms(give_up) / 1000
    begun_s = time.monotonic()
    watching = _watching(url, limit_s, as_json=as_json, quiet=quiet)
    login = _login(user, password_file)
    counted = Counted(watching)
    job = _put_all([pathlib.Path(source) for source in sources], url, limit_s, counted, login)
    try:
        with watching if isinstance(watching, Bar) else contextlib.nullcontext(), _naming_the_option(user):
            report = asyncio.run(job)
    except KeyboardInterrupt:
        typer.echo(f"relevo: {counted.interrupted()}", err=True)
        raise
    took_s = time.monotonic() - begun_s
    if as_json:
        JsonLines.write({"event": "finished", **_summary(report), "seconds": round(took_s, 3)})
    elif not quiet:
        _tell(report, took_s)
    if report.failed:
        raise TransferFailed(f"{len(report.failed)} of the files could not be stored. {report.failed[0]}")


async def _put_all(
    sources: list[pathlib.Path], url: str, give_up_s: float, observer: Observer, login: tuple[str, str] | None
) -> TreeReport:
    report = TreeReport()
    target = parse(url)
    into = url.endswith("/") or len(sources) > 1 or not names_of(target)
    async with session(login=login) as http:
        for source in sources:
            place = below(target, source.resolve().name) if into else target
            if source.is_dir():
                report.add(await put_tree(source, place, give_up_s=give_up_s, observer=observer, http=http))
                continue
            try:
                report.stored.append(await put_file(source, place, give_up_s=give_up_s, observer=observer, http=http))
            except TransferFailed as error:
                if len(sources) == 1:
                    raise
                report.failed.append(str(error))
                observer.failed(source, str(error))
    return report


def _summary(report: TreeReport) -> dict[str, Any]:
    return {
        "files": len(report.stored),
        "bytes": report.bytes,
        "skipped": report.skipped,
        "failed": report.failed,
        "copies": min((item.copies for item in report.stored), default=2),
        "retries": sum(item.retries for item in report.stored),
    }


def _sentences(report: TreeReport, took_s: float) -> Iterator[str]:
    speed = format_bytes(round(report.bytes / max(took_s, 0.001)))
    size = format_bytes(report.bytes)
    yield f"{len(report.stored)} stored, {size} in {took_s:.1f} s ({speed}/s), checksums verified."
    single = sum(item.copies < 2 for item in report.stored)
    if single:
        yield f"{single} of them on one server only: the other one is not there."
    if report.skipped:
        yield f"{len(report.skipped)} skipped (neither file nor folder): {report.skipped[0]}"


def _tell(report: TreeReport, took_s: float) -> None:
    for sentence in _sentences(report, took_s):
        typer.echo(sentence)


def get(
    url: Annotated[str, typer.Argument(help="The file's address.")],
    file: Annotated[pathlib.Path | None, typer.Argument(help="Where it goes (default: its name, here).")] = None,
    *,
    user: _USER = "",
    password_file: _PASSWORD_FILE = None,
    give_up: _GIVE_UP = "2 min",
    as_json: _JSON = False,
    quiet: _QUIET = False,
) -> None:
    """Fetch a file; a broken-off one is continued, and it gets its name when its checksum is verified."""
    source = parse(url)
    names = names_of(source)
    if not names:
        raise TransferFailed(f"{url} is not a file.", "Write the address of one file.")
    name = names[-1]
    if "/" in name or name in {".", ".."} or "\0" in name:
        raise TransferFailed(f"{name!r} cannot be the name of a file.", "Name the file after the URL.")
    target = file if file is not None else pathlib.Path(name)
    if target.is_dir():
        target /= name
    limit_s = parse_duration_ms(give_up) / 1000
    watching = _watching(url, limit_s, as_json=as_json, quiet=quiet)
    job = _get_one(source, target, limit_s, watching, _login(user, password_file))
    try:
        with watching if isinstance(watching, Bar) else contextlib.nullcontext(), _naming_the_option(user):
            done = asyncio.run(job)
    except KeyboardInterrupt:
        typer.echo(f"relevo: Interrupted: {target} is not there yet. The same command goes on where it was.", err=True)
        raise
    if as_json:
        JsonLines.write({"event": "fetched", **msgspec.structs.asdict(done)})
    elif not quiet:
        typer.echo(f"{done.file}: {format_bytes(done.bytes)}, checksum verified.")


async def _get_one(
    source: yarl.URL, target: pathlib.Path, give_up_s: float, observer: Observer, login: tuple[str, str] | None
) -> Fetched:
    async with session(login=login) as http:
        return await get_file(source, target, give_up_s=give_up_s, observer=observer, http=http)
