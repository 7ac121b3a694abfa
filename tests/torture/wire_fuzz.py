"""Packets that a coverage-guided fuzzer (atheris) makes up, against a real core: what must not happen is an exception.


python tests/torture/wire_fuzz.py [--seconds N] makes them up; with a FILE that a run has left, that one again.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import atheris

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
SECONDS = 600
MAX_INPUT_BYTES = 4096
MEMORY_MB = 2048
with atheris.instrument_imports(include=["relevo.mirror"]):
    from mirror_pcap import tcp_streams
    from relevo.mirror import wire
    from wire_target import STARTS, Target

COMMANDS = sorted(wire.DATA_COMMANDS | wire.META_COMMANDS)
RAW, RAW_META, PACKET, WRITE, FLUSH, DONE, FINISH, TICK, CONNECT, HANG_UP = range(10)


def one(data: bytes) -> None:
    """An input is a start and a row of steps."""
    left = atheris.FuzzedDataProvider(data)
    target = Target(STARTS[left.ConsumeIntInRange(0, len(STARTS) - 1)])
    while left.remaining_bytes():
        step = left.ConsumeIntInRange(RAW, HANG_UP)
        if step == PACKET:
            _packet(target, left)
        elif step in {RAW, RAW_META}:
            target.receive(left.ConsumeBytes(left.ConsumeIntInRange(1, 300)), meta=step == RAW_META)
        elif step == WRITE:
            target.write(left.ConsumeIntInRange(0, 16_000))
        elif step == FLUSH:
            target.flush()
        elif step == DONE:
            target.finish_one(left.ConsumeIntInRange(0, 7))
        elif step == FINISH:
            target.finish()
        elif step == TICK:
            target.tick(left.ConsumeIntInRange(1, 7000))
        elif step == CONNECT:
            target.connect()
        else:
            target.hang_up()
    target.end()


def _packet(target: Target, left: atheris.FuzzedDataProvider) -> None:
    """A good header, on the socket where it belongs, and any body; a payload of zeros where there is one."""
    command = COMMANDS[left.ConsumeIntInRange(0, len(COMMANDS) - 1)]
    body = left.ConsumeBytes(left.ConsumeIntInRange(0, 64))
    payload = left.ConsumeIntInRange(0, 16) * 512
    stream = wire.encode_header(command, len(body) + payload) + body + bytes(payload)
    target.receive(stream, meta=command in wire.META_COMMANDS)


def _corpus(folder: pathlib.Path) -> None:
    """To begin with: what kernels have sent to each other, each with each start."""
    for name in ("drbd-complete-connection.pcap.gz", "drbd-linkloss-bitmap-resync.pcap.gz"):
        for number, stream in enumerate(tcp_streams(name).values()):
            begin = max(0, stream.find(b"\x86\x20\xec\x20"))
            for start in range(len(STARTS)):
                part = stream[begin : begin + 2000]
                # the provider takes numbers from the end and bytes from the beginning
                (folder / f"{name}-{number}-{start}").write_bytes(part + bytes([0, 255, RAW, start]))


def main() -> None:
    """Fuzz, or run one input again."""
    arguments = sys.argv[1:]
    files = [argument for argument in arguments if pathlib.Path(argument).is_file()]
    if files:
        options = files
    else:
        seconds = int(arguments[arguments.index("--seconds") + 1]) if "--seconds" in arguments else SECONDS
        corpus = pathlib.Path(tempfile.mkdtemp(prefix="mirror-fuzz-"))
        _corpus(corpus)
        sys.stdout.write(f"{seconds} s of packets; what fails is left in {corpus} as crash-…\n")
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_INPUT_BYTES}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={corpus}/",
            "-print_final_stats=1",
            str(corpus),
        ]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
