"""What a mirror's configuration allows although it is a risk; one sentence each, wherever it was configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relevo.base.sysrq import dangerous_part
from relevo.config.model import Mirror

_PROTOCOLS = {
    "A": "a write is complete when it lies in the send buffer",
    "B": "a write is complete when the peer has received it",
}
_HMAC = {True: "hmac", False: "cram-hmac-alg"}
_OUTDATED_HASHES = frozenset({"md5", "sha1"})


def risks(mirror: Mirror, *, toml: bool) -> Iterator[str]:
    """The risks of one mirror.

    Args:
        mirror: its settings.
        toml: relevo.toml has them, and its keys are named; else those of drbd.conf.
    """
    name, options = f"Mirror {mirror.name!r}", mirror.options

    def told(key: str, value: str) -> str:
        """How it is written where it has to be changed."""
        return f'[mirrors.{mirror.name}] {key.replace("-", "_")} = "{value}"' if toml else f"{key} {value}"

    if mirror.alone == "risk":
        yield (
            f'{name} has alone = "risk": a server that loses its peer goes on writing alone, and after a '
            "cut of all links both may: what one of them accepted then has to be given up. "
            f'With a [witness], or fencing: [mirrors.{mirror.name}] alone = "ask".'
        )
    where = f" (secrets.toml: [mirror] {mirror.name})" if toml else " (cram-hmac-alg and shared-secret)"
    if mirror.hmac == "none":
        weak = "whoever reaches its port can take the peer's place"
        yield f"{name} asks the peer for no proof: {weak}; set a secret{where}."
    elif not mirror.secret:
        yield f"{name} has an empty secret; set one{where}."
    if mirror.hmac in _OUTDATED_HASHES:
        yield f"{name} authenticates with {mirror.hmac} (an outdated hash); use {told(_HMAC[toml], 'sha256')}."
    if options.protocol in _PROTOCOLS:
        yield (
            f"{name} uses protocol {options.protocol} ({_PROTOCOLS[options.protocol]}): what was acknowledged last is "
            f"lost when this server dies. With {told('protocol', 'C')} nothing is."
        )
    if options.on_io_error == "pass_on":
        yield f"{name} passes on errors of a disk ({told('on-io-error', 'pass_on')}): applications see them."
    if options.on_congestion == "pull-ahead":
        yield (
            f"{name} pulls ahead of a slow network ({told('on-congestion', 'pull-ahead')}): the other copy is "
            "Outdated then, and what is written, flushed or not, is on this server alone until it has caught up."
        )
    yield from _split_brain_risks(mirror, told)
    for handler, command in sorted(options.handlers.items()):
        part = dangerous_part(command)
        if part:
            yield (
                f"The handler {handler} of mirror {mirror.name!r} resets or switches off the whole machine at once "
                f"({part}): nothing is stopped or written first."
            )


def _split_brain_risks(mirror: Mirror, told: Callable[[str, str], str]) -> Iterator[str]:
    options = mirror.options
    discarding = [
        told(word, policy)
        for word, policy in (
            ("after-sb-0pri", options.after_sb_0pri),
            ("after-sb-1pri", options.after_sb_1pri),
            ("after-sb-2pri", options.after_sb_2pri),
        )
        if policy not in {"disconnect", "discard-zero-changes"}
    ]
    if options.discard_node:
        discarding.insert(0, told("after-sb-0pri", f"discard-node-{options.discard_node}"))
    if options.rr_conflict == "violently":
        has = told("rr-conflict", "violently")
        yield f"Mirror {mirror.name!r} has {has}: a Primary is never overwritten here; it is refused."
    if discarding:
        how = ", ".join(discarding)
        yield f"Mirror {mirror.name!r} gives up one side's changes after a split brain by itself ({how})."
