"""What the description of the HTTP API says is tried on the file service by schemathesis, thousands of requests long.

python tests/torture/api.py SCHEMATHESIS [--examples N] [--seed N]. Each answer has to be one that the description has
(docs/internals/files-api.json), and none a failure of the server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
DESCRIPTION = ROOT / "docs/internals/files-api.json"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 1000
START_LIMIT_S = 30.0


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_port(port: int) -> None:
    """Until somebody listens."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)  # only the next attempt tells
    raise SystemExit("the file service does not listen")


def main() -> int:
    """One run; schemathesis's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("schemathesis", type=pathlib.Path, help="its command")
    parser.add_argument("--examples", default=str(EXAMPLES), help="for each operation")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        volume = pathlib.Path(name, "volume")
        (volume / "folder").mkdir(parents=True)
        (volume / "there").write_bytes(b"here")
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        command = [sys.executable, "-m", "bench.files_service", str(volume), name, str(port)]
        service = subprocess.Popen(command, env=environment)
        try:
            await_port(port)
            command = [
                str(options.schemathesis.absolute()),
                "run",
                str(DESCRIPTION),
                "--url",
                f"http://127.0.0.1:{port}",
            ]
            command += ["--checks", CHECKS, "--max-examples", options.examples, "--seed", options.seed]
            command += ["--phases", "examples,coverage,fuzzing", "--no-color", "--suppress-health-check", "all"]
            hooks = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent), "SCHEMATHESIS_HOOKS": "api_hooks"}
            return subprocess.run(command, env=hooks, cwd=name).returncode
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    raise SystemExit(main())
