"""Two servers that serve, a client that stores files all the time, and the judgement at the end."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec

from relevo.lab import compare
from relevo.lab.lab import Lab
from relevo.lab.scene import MIRROR, URL
from relevo.lab.story import Story
from relevo.lab.verify import Verdict, Wanted

STORED_BEFORE = 5
LOAD_BYTES = 16 << 10
LOOK_S = 0.005


class Cluster:
    """Two servers that serve, a client that stores files, and the judgement at the end."""

    def __init__(self, lab: Lab, scratch: pathlib.Path) -> None:
        self.lab = lab
        self.scratch = scratch
        self.story = Story(lab)
        self.acknowledged: list[Wanted] = []
        self._loads = 0

    @contextlib.contextmanager
    def load(self, *, at_least: int = STORED_BEFORE) -> Iterator[None]:
        """A client stores files during the body, which begins when the first ones are acknowledged.

        At the end at least as many again have to be acknowledged: the service goes on.
        """
        self._loads += 1
        log = self.scratch / f"load-{self._loads}.jsonl"
        folder = f"load{self._loads}"
        command = [sys.executable, "-m", "relevo.lab.load", URL, "--folder", folder, "--bytes", str(LOAD_BYTES)]
        with log.open("wb") as out:
            process = self.lab.popen("client", command, stdout=out)
            try:
                await_lines(log, at_least)
                yield
                await_lines(log, lines_of(log) + at_least)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
                lines = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
                self.acknowledged += [msgspec.json.decode(line, type=Wanted) for line in lines]

    def _used_kib(self, node: str, folder: str) -> int:
        done = self.lab.run(node, ["du", "-sk", folder], capture=True)
        return int(done.stdout.split()[0])

    def hold_when(self, node: str, folder: str, grown_kib: int, command: str) -> None:
        """Stop a client's process when a folder has grown by so much."""
        before_kib = self._used_kib(node, folder)
        end = time.monotonic() + 60
        while self._used_kib(node, folder) < before_kib + grown_kib:
            assert time.monotonic() < end, f"{folder} does not grow"
        self.lab.run("client", ["pkill", "-STOP", "-f", f"python.*{command}"], check=True)

    def verify(self) -> None:
        """Everything that was acknowledged is there, whole, through the virtual IP."""
        lines = b"\n".join(msgspec.json.encode(item) for item in self.acknowledged)
        command = [sys.executable, "-m", "relevo.lab.verify", URL]
        done = self.lab.run("client", command, stdin=lines, capture=True)
        assert done.returncode == 0, done.stderr.decode()
        verdict = msgspec.json.decode(done.stdout, type=Verdict)
        assert not verdict.lost
        assert not verdict.corrupt
        assert verdict.files == len(self.acknowledged) > 0

    def recover(self) -> None:
        """As every test begins, whatever a failed one left: links whole, nobody in standby, the service on nodo1."""
        for node in ("nodo1", "nodo2"):
            self.lab.heal(node)
            self.lab.run(node, ["relevo", "online", node], capture=True)
        self.story.await_service_on("nodo1")

    def judge(self) -> None:
        """All that was acknowledged is there; after an orderly stop both disks are equal and fsck finds nothing."""
        self.verify()
        state = self.story.stop_service()
        size_bytes = state["mirrors"][MIRROR]["nodo1"]["size_bytes"]
        images = [self.lab.image(node) for node in ("nodo1", "nodo2")]
        differing = list(compare.differing_blocks(*images, size_bytes))
        assert differing == []
        for image in images:
            _fsck(image, size_bytes, self.scratch)
        for node in ("nodo1", "nodo2"):
            self.lab.run("nodo1", ["relevo", "online", node], check=True, capture=True)
        self.story.await_service_on("nodo1")
        # All tests share the volume: what a fast machine stores in all of them would fill it.
        self.lab.run("nodo1", ["sh", "-c", "rm -rf /srv/relevo/load* /srv/relevo/large.bin"], check=True)

    @contextlib.contextmanager
    def one_address(self) -> Iterator[None]:
        """During the body the virtual IP is looked for all the time: it is never on both servers."""
        over = threading.Event()
        seen: list[str] = []

        def look() -> None:
            while not over.is_set():
                # While it moves it may be seen there and then here: it is on both only if it still is there afterwards.
                if self._holds("nodo1") and self._holds("nodo2") and self._holds("nodo1"):
                    seen.append("both")
                over.wait(LOOK_S)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        assert seen == []

    def _holds(self, node: str) -> bool:
        """Read from outside, because a command in the node would cost more than the pause it looks for."""
        process = self.lab.machine(node).process
        if process is None:
            return False
        try:
            return "192.168.0.29\n" in pathlib.Path(f"/proc/{process.pid}/net/fib_trie").read_text()
        except OSError:
            return False  # it has lost its power meanwhile

    def holders(self) -> list[str]:
        """The nodes that hold the virtual IP at this moment."""
        return [node for node in ("nodo1", "nodo2") if self._holds(node)]


def lines_of(log: pathlib.Path) -> int:
    return log.read_bytes().count(b"\n")


def await_lines(log: pathlib.Path, wanted: int, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while lines_of(log) < wanted:
        assert time.monotonic() < end, f"{lines_of(log)} of {wanted} files were acknowledged within {limit_s:.0f} s"
        time.sleep(0.02)  # a file that grows has no event to wait for


def _fsck(image: pathlib.Path, size_bytes: int, scratch: pathlib.Path) -> None:
    """A copy of the data area has a clean ext4."""
    copy = scratch / "fsck.img"
    with image.open("rb") as source, copy.open("wb") as target:
        remaining = size_bytes
        while chunk := source.read(min(4 << 20, remaining)):
            target.write(chunk)
            remaining -= len(chunk)
    done = subprocess.run(["e2fsck", "-f", "-n", str(copy)], capture_output=True, text=True)
    copy.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
