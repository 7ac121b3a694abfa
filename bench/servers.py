"""Web servers over one folder: the file service, and what it is compared with. Each is a process tree of its own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

START_LIMIT_S = 20.0
HERE = pathlib.Path(__file__).parents[1]
NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    sendfile on; tcp_nopush on; access_log off; keepalive_requests 100000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=1024; root {root}; autoindex on; }}
}}
"""
APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.log
DefaultRuntimeDir {folder}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule autoindex_module /usr/lib/apache2/modules/mod_autoindex.so
LoadModule dav_module /usr/lib/apache2/modules/mod_dav.so
LoadModule dav_fs_module /usr/lib/apache2/modules/mod_dav_fs.so
User www-data
Group www-data
MaxRequestWorkers 400
ThreadsPerChild 50
KeepAlive On
MaxKeepAliveRequests 0
EnableSendfile On
LimitRequestBody 0
DavLockDB {folder}/locks
DocumentRoot {root}
<Directory {root}>
Options Indexes
DirectoryIndex disabled
Dav On
Require all granted
</Directory>
"""


class Server:
    """One of them, running: its port, and what it costs.

    Attributes:
        name: in the tables.
        durable: its answer to an upload means stable storage, on any volume.
        needs: program that has to be installed.
    """

    name = "?"
    durable = False
    needs = ""

    def __init__(self, root: pathlib.Path, folder: pathlib.Path) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(self.command(root, folder), env=self.environment(), stdout=subprocess.DEVNULL)
        self._await()

    def command(self, root: pathlib.Path, folder: pathlib.Path) -> list[str]:
        """What is run."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """In which environment."""
        return dict(os.environ)

    def _await(self) -> None:
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            assert self._process.poll() is None, f"{self.name} ended at its start"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)  # only the next attempt tells
        raise AssertionError(f"{self.name} does not listen")

    def stop(self) -> None:
        """End it, and wait for that."""
        self._process.terminate()
        self._process.wait()

    def _processes(self) -> Iterator[tuple[int, list[str]]]:
        """Process id and the fields of /proc/PID/stat behind the name, of it and of all its descendants."""
        stats = {}
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdigit():
                with contextlib.suppress(OSError):
                    stats[int(name)] = pathlib.Path("/proc", name, "stat").read_text().rpartition(") ")[2].split()
        wanted = [self._process.pid]
        while wanted:
            pid = wanted.pop()
            if pid in stats:
                yield pid, stats[pid]
                wanted += [child for child, fields in stats.items() if int(fields[1]) == pid]

    def cpu_s(self) -> float:
        """Processor time so far, of ended children too."""
        ticks = sum(int(field) for _, fields in self._processes() for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Begin anew with the peak of the memory."""
        for pid, _ in self._processes():
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """The sum of the processes' peaks of resident memory since then."""
        total_kib = 0
        for pid, _ in self._processes():
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
            total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return total_kib / 1024


class Relevo(Server):
    """The file service, with a mirror's answer beside it, but without a mirror: so much for the disk."""

    name = "Relevo"
    durable = True

    def command(self, root: pathlib.Path, folder: pathlib.Path) -> list[str]:
        return [sys.executable, "-m", "bench.files_service", str(root), str(folder), str(self.port)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{HERE}:{HERE}/tests:{HERE}/src"}


class Nginx(Server):
    """nginx, one worker, sendfile; it serves downloads and listings."""

    name = "nginx"
    needs = "nginx"

    def command(self, root: pathlib.Path, folder: pathlib.Path) -> list[str]:
        conf = folder / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, root=root, port=self.port))
        return ["nginx", "-c", str(conf)]


class Apache(Server):
    """Apache with mod_dav."""

    name = "Apache mod_dav"
    needs = "apache2"

    def command(self, root: pathlib.Path, folder: pathlib.Path) -> list[str]:
        conf = folder / "apache.conf"
        conf.write_text(APACHE.format(folder=folder, root=root, port=self.port))
        for owned in (root, folder):
            shutil.chown(owned, "www-data", "www-data")
        return ["apache2", "-f", str(conf), "-DFOREGROUND"]


class Rclone(Server):
    """rclone serve webdav."""

    name = "rclone"
    needs = "rclone"

    def command(self, root: pathlib.Path, folder: pathlib.Path) -> list[str]:
        config = folder / "rclone.conf"
        config.touch()
        address = f"127.0.0.1:{self.port}"
        return ["rclone", "serve", "webdav", str(root), "--addr", address, "--config", str(config), "--log-level=ERROR"]


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def installed(kind: type[Server]) -> bool:
    """Whether its program is there."""
    return not kind.needs or shutil.which(kind.needs) is not None or pathlib.Path("/usr/sbin", kind.needs).exists()
