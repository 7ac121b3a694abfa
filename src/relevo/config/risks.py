"""What a mirror's configuration allows although it is a risk; one sentence each, wherever it was configured."""

from __future__ import annotations

from collections.abc import Iterator

from relevo.base.sysrq import dangerous_part
from relevo.config.model import Mirror

_PROTOCOLS = {
    "A": "a write is complete when it lies in the send buffer",
    "B": "a write is complete when the peer has received it",
}
_OUTDATED_HASHES = frozenset({"md5", "sha1"})


def risks(mirror: Mirror) -> Iterator[str]:
    """The risks of one mirror."""
    name, options = f"Mirror {mirror.name!r}", mirror.options
    if mirror.alone == "risk":
        yield (
            f'{name} has alone = "risk": a server that loses its peer goes on writing alone, and after a '
            "cut of all links both may: what one of them accepted then has to be given up."
        )
    if mirror.hmac == "none":
        yield f"{name} asks the peer for no proof: whoever reaches its port can take the peer's place; set a secret."
    elif not mirror.secret:
        yield f"{name} has an empty secret; set one."
    if mirror.hmac in _OUTDATED_HASHES:
        yield f'{name} authenticates with {mirror.hmac} (an outdated hash); use hmac = "sha256".'
    if options.protocol in _PROTOCOLS:
        yield (
            f"{name} uses protocol {options.protocol} ({_PROTOCOLS[options.protocol]}): what was acknowledged last is "
            "lost when this server dies. Protocol C loses nothing."
        )
    if options.on_io_error == "pass_on":
        yield f"{name} passes on errors of a disk (on-io-error pass_on): applications see them."
    if options.on_congestion == "pull-ahead":
        yield (
            f"{name} pulls ahead of a slow network (on-congestion pull-ahead): the other copy is Outdated then, "
            "and what is written, flushed or not, is on this server alone until it has caught up."
        )
    yield from _split_brain_risks(mirror)
    for handler, command in sorted(options.handlers.items()):
        part = dangerous_part(command)
        if part:
            yield (
                f"The handler {handler} of mirror {mirror.name!r} resets or switches off the whole machine at once "
                f"({part}): nothing is stopped or written first."
            )


def _split_brain_risks(mirror: Mirror) -> Iterator[str]:
    options = mirror.options
    discarding = [
        f"{word} {policy}"
        for word, policy in (
            ("after-sb-0pri", options.after_sb_0pri),
            ("after-sb-1pri", options.after_sb_1pri),
            ("after-sb-2pri", options.after_sb_2pri),
        )
        if policy not in {"disconnect", "discard-zero-changes"}
    ]
    if options.discard_node:
        discarding.insert(0, f"after-sb-0pri discard-node-{options.discard_node}")
    if options.rr_conflict == "violently":
        yield f"Mirror {mirror.name!r} has rr-conflict violently: a Primary is never overwritten here; it is refused."
    if discarding:
        how = ", ".join(discarding)
        yield f"Mirror {mirror.name!r} gives up one side's changes after a split brain by itself ({how})."
