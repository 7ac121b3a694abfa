"""The demonstration: files are stored through one address while the active server loses its power."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator

import msgspec
from rich.console import Console

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.lab import compare, poll
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import MIRROR, URL
from relevo.lab.story import StageFailed, Story
from relevo.lab.verify import Verdict, Wanted

TREE = "library"
LARGE_NAME = "large.bin"
PROBE_NAME = "probe.txt"
STORE_LIMIT_S = 300.0
"""How long the client may take to store everything, the power cut included."""
SETTLE_S = 2.0
"""How long the polls go on after a stage, so that a late gap is seen."""
CRASH_AT = 0.4
"""The share of the files that is stored when the power goes."""


class Report(msgspec.Struct, kw_only=True):
    """What was measured; with `--json` the last line that the demonstration prints."""

    files: int
    bytes: int
    lost: int
    corrupt: int
    crash_gap_s: float
    failback_gap_s: float
    resync_bytes: int
    disks_identical: bool
    acknowledged_before_crash: int
    lab: str


def _manifest(tree: pathlib.Path, large: pathlib.Path) -> list[Wanted]:
    """Every file that is to be stored, with its checksum, read from the originals."""
    found = []
    sources = [(path, f"{TREE}/{path.relative_to(tree)}") for path in sorted(tree.rglob("*")) if path.is_file()]
    for path, name in [*sources, (large, LARGE_NAME)]:
        data = path.read_bytes()
        found.append(Wanted(name, hashlib.sha256(data).hexdigest(), len(data)))
    return found


def _copy_sources(files: pathlib.Path, scratch: pathlib.Path, large_bytes: int) -> tuple[pathlib.Path, pathlib.Path]:
    """A copy of the tree (Python writes caches into the original while it is stored) and one large random file."""
    tree = scratch / TREE
    for path in files.rglob("*"):
        skipped = "__pycache__" in path.parts or "site-packages" in path.parts or path.is_symlink()
        if path.is_file() and not skipped:
            target = tree / path.relative_to(files)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    large = scratch / LARGE_NAME
    with large.open("wb") as out:
        for _ in range(0, large_bytes, 1 << 20):
            out.write(os.urandom(min(1 << 20, large_bytes - out.tell())))
    return tree, large


@contextlib.contextmanager
def polling(lab: Lab, log: pathlib.Path, url: str, *, limit_ms: int = poll.LIMIT_MS) -> Iterator[None]:
    """Ask for `url` from the client every 50 ms while the body runs; the answers go to `log`."""
    with log.open("wb") as out:
        process = lab.popen(
            "client", [sys.executable, "-m", "relevo.lab.poll", url, "--limit-ms", str(limit_ms)], stdout=out
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


class Show:
    """One run of the demonstration in a lab that is up.

    Args:
        lab: two servers that serve at the virtual IP.
        console: where people read.
        scratch: a folder for the originals and the logs.
    """

    def __init__(self, lab: Lab, console: Console, scratch: pathlib.Path) -> None:
        self._lab = lab
        self._console = console
        self._story = Story(lab)
        self._scratch = scratch
        self._log = scratch / "polls.jsonl"

    def say(self, sentence: str) -> None:
        """One line for the spectator."""
        self._console.print(f"[bold cyan]·[/] {sentence}")

    def store(self, tree: pathlib.Path, large: pathlib.Path, files: int) -> int:
        """Store everything from the client and cut nodo1's power in the middle; the number acknowledged before it."""
        with (self._scratch / "put.jsonl").open("wb") as log:
            puts = [
                self._lab.popen("client", ["relevo", "put", "--json", str(source), URL], stdout=log)
                for source in (tree, large)
            ]
            acknowledged = self._await_acknowledged(puts[0], int(files * CRASH_AT))
            uploading = puts[1].poll() is None
            large_file = "The large file is on its way. " if uploading else ""
            self.say(f"{acknowledged} files are acknowledged. {large_file}[bold red]nodo1 loses its power[/] now.")
            self.crashed_at = time.monotonic()
            self._lab.crash("nodo1")
            for put in puts:
                if put.wait(timeout=STORE_LIMIT_S) != 0:
                    raise StageFailed("relevo put gave up.", _tail(self._scratch / "put.jsonl"))
        return acknowledged

    def _await_acknowledged(self, process: subprocess.Popen[bytes], wanted: int) -> int:
        log = self._scratch / "put.jsonl"
        end = time.monotonic() + STORE_LIMIT_S
        while time.monotonic() < end:
            stored = log.read_bytes().count(b'"stored"')
            if stored >= wanted:
                return stored
            if process.poll() is not None:
                raise StageFailed("relevo put ended before the power cut.", _tail(log))
            time.sleep(0.02)  # a file that grows has no event to wait for
        raise StageFailed(f"only {log.read_bytes().count(b'stored')} files were stored in {STORE_LIMIT_S:.0f} s.")

    def verify(self, wanted: list[Wanted]) -> Verdict:
        """Fetch everything through the virtual IP and compare checksums."""
        lines = b"\n".join(msgspec.json.encode(item) for item in wanted)
        done = self._lab.run("client", [sys.executable, "-m", "relevo.lab.verify", URL], stdin=lines, capture=True)
        if done.returncode != 0:
            raise StageFailed("The check of the files failed.", done.stderr.decode(errors="replace")[-400:])
        return msgspec.json.decode(done.stdout, type=Verdict)

    def come_back(self) -> float:
        """Boot nodo1 and wait until it has caught up and serves again; the moment it was booted."""
        booted_at = time.monotonic()
        self._lab.boot("nodo1")
        self._story.await_both_current("nodo2")
        self.say(f"nodo1 is back and has caught up after {time.monotonic() - booted_at:.1f} s. Failback.")
        self._story.await_service_on("nodo1", seen_from="nodo2")
        return booted_at

    def compare_disks(self) -> bool:
        """Stop the service in order on both servers and compare the data areas of both disks whole."""
        state = self._story.stop_service()
        size_bytes = state["mirrors"][MIRROR]["nodo1"]["size_bytes"]
        same = compare.equal(self._lab.image("nodo1"), self._lab.image("nodo2"), size_bytes)
        for node in ("nodo1", "nodo2"):
            self._lab.run("nodo1", ["relevo", "online", node], check=True, capture=True)
        return same

    def play(self, files: pathlib.Path, large_bytes: int) -> Report:
        """The whole story, in order."""
        tree, large = _copy_sources(files, self._scratch, large_bytes)
        wanted = _manifest(tree, large)
        total = sum(item.bytes for item in wanted)
        self._lab.run("client", ["relevo", "put", "--quiet", str(self._probe()), URL], check=True)
        self.say(f"The client stores {len(wanted)} files ({format_bytes(total)}) at {URL}.")
        with polling(self._lab, self._log, URL + PROBE_NAME):
            before = self.store(tree, large, len(wanted))
            self.say("Everything is stored. The client fetches it all and compares checksums.")
            verdict = self.verify(wanted)
            fetched_at = time.monotonic()
            self.say(f"{verdict.files} files fetched, {len(verdict.lost)} lost, {len(verdict.corrupt)} corrupt.")
            self.say("[bold green]nodo1 gets its power back.[/]")
            booted_at = self.come_back()
            time.sleep(SETTLE_S)  # the polls that would show a late gap
        polls = poll.read_polls(self._log)
        resync_bytes = int(self._story.status("nodo2")["mirrors"][MIRROR]["nodo2"]["resync_total_bytes"])
        again = self.verify(wanted)
        self.say(f"After the failback: {again.files} files fetched, {len(again.lost) + len(again.corrupt)} wrong.")
        self.say("The service is stopped in order and both disks are compared, block by block.")
        return Report(
            files=len(wanted),
            bytes=total,
            lost=len({*verdict.lost, *again.lost}),
            corrupt=len({*verdict.corrupt, *again.corrupt}),
            crash_gap_s=round(poll.longest_gap_s(polls, self.crashed_at, fetched_at), 2),
            failback_gap_s=round(poll.longest_gap_s(polls, booted_at, polls[-1].done), 2),
            resync_bytes=resync_bytes,
            disks_identical=self.compare_disks(),
            acknowledged_before_crash=before,
            lab=str(self._lab.dir),
        )

    def _probe(self) -> pathlib.Path:
        path = self._scratch / PROBE_NAME
        path.write_text("Relevo\n")
        return path


def _tail(log: pathlib.Path) -> str:
    return log.read_text(errors="replace")[-400:]


def _print_report(console: Console, report: Report) -> None:
    good = not report.lost and not report.corrupt and report.disks_identical
    console.print()
    console.print(f"  files stored                {report.files} ({format_bytes(report.bytes)})")
    console.print(f"  of them before the cut      {report.acknowledged_before_crash}")
    console.print(f"  lost, corrupt               {report.lost}, {report.corrupt}")
    console.print(f"  gap at the power cut        {report.crash_gap_s:.2f} s   (no good answer; polled every 50 ms)")
    console.print(f"  gap at the failback         {report.failback_gap_s:.2f} s")
    console.print(f"  fetched by the resync       {format_bytes(report.resync_bytes)}")
    console.print(f"  both disks identical        {'yes' if report.disks_identical else 'NO'}")
    console.print()
    if good:
        gap = f"{report.crash_gap_s:.1f} s"
        console.print(
            f"[bold green]Nothing was lost:[/] one of two servers lost its power, the other one served after {gap}, "
            f"and all {report.files} files came back whole."
        )
    else:
        console.print("[bold red]FAILED:[/] see what was lost, corrupt or not identical above.")


class CannotShow(RelevoError):
    """The demonstration cannot begin."""


def run(lab_dir: pathlib.Path, *, files: pathlib.Path | None, large_bytes: int, stay: bool, as_json: bool) -> int:
    """The demonstration from beginning to end; the exit status. `as_json`: its report is the last line."""
    console = Console(highlight=False)
    lab = Lab(lab_dir, Options())
    source = files or pathlib.Path(sysconfig.get_path("stdlib"))
    if not source.is_dir():
        raise CannotShow(f"There is no folder {source}.", "Name one with --files.")
    if lab.folder.exists:
        raise CannotShow(
            f"A lab is up in {lab.dir}: another demonstration, or one that stayed.",
            f"End it with `relevo lab down --dir {lab.dir}`, or name another folder with --dir.",
        )
    good = False
    console.print("[bold]Relevo[/]: two servers, one address, the same files on both.")
    try:
        with tempfile.TemporaryDirectory(prefix="demo-", dir=lab.shared) as scratch:
            show = Show(lab, console, pathlib.Path(scratch))
            show.say("nodo1, nodo2 and a client come up on this machine.")
            lab.up()
            report = show.play(source, large_bytes)
        good = not report.lost and not report.corrupt and report.disks_identical
        _print_report(console, report)
        if stay and good:
            url = lab.expose()
            console.print(f"The lab goes on running: {url}/ · end it with: relevo lab down --dir {lab.dir}")
        if as_json:
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    finally:
        if not (stay and good):
            lab.erase()
    return 0 if good else 1
