"""`relevo check`: is the configuration right? Starts nothing, changes nothing."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from relevo.base.control import call
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.cli import check_agents, check_disks, check_links, check_peer, check_watchdog
from relevo.cli.check_drbd import Report, report
from relevo.cli.context import EXIT_FAILED, of, print_json
from relevo.config.errors import ConfigError, ConfigErrors
from relevo.config.load import load, warnings, whoami
from relevo.config.model import Config
from relevo.config.site import configured_by_drbd
from relevo.manager.model import UNUSABLE

ASK_LIMIT_S = 2.0
"""How long the node daemon may take to say what it goes by."""


def check(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    drbd: Annotated[pathlib.Path | None, typer.Option(help="Check this drbd.conf instead of relevo.toml.")] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Check the cards, cables and MTU of every link as well: asks the others.")
    ] = False,
) -> None:
    """Say whether the configuration is right, every mistake with its line; nothing is started."""
    context = of(ctx)
    alone = drbd is None and configured_by_drbd(context.paths)
    if drbd is not None or alone:
        found = report(drbd or context.paths.drbd, context.node)
        if not alone or found.summary or found.mistakes:  # one that says nothing came with drbd's tools
            _check_drbd(found, as_json=as_json)
            return
    try:
        config = load(context.paths.config)
    except ConfigErrors as errors:
        _refuse(errors.errors, as_json=as_json)
        raise SystemExit(EXIT_FAILED) from None
    named = [*warnings(config), *check_agents.remarks(config), *check_watchdog.remarks(config)]
    named += check_disks.remarks(config, context.node)
    named += _unread(config, context.paths)
    named += check_peer.remarks(config, context)
    if not links:  # `look` says it too
        named += check_links.shared_cards(config)
    try:
        whoami(config, context.node)
    except RelevoError as error:
        named.append(str(error))
    good, wrong = check_links.look(config, context.node) if links and context.node in config.nodes else ([], [])
    if as_json:
        told = {"links": {"good": good, "wrong": wrong}} if links else {}
        print_json({"ok": not wrong, "hash": config.hash, "mistakes": [], "warnings": named, **told})
    else:
        typer.echo(_summary(config))
        _print_warnings(named)
        for sentence in good:
            typer.echo(sentence)
        for sentence in wrong:
            typer.echo(sentence, err=True)
    if wrong:
        raise SystemExit(EXIT_FAILED)


def _unread(config: Config, paths: Paths) -> list[str]:
    """Where the daemons here, or another server, go by something else than this file; nothing while none runs."""
    try:
        state = call(paths.socket("node"), "status", timeout_s=ASK_LIMIT_S)
    except RelevoError:
        return []
    found = []
    if state["config_hash"] != config.hash:
        restart = "systemctl restart relevo-heartbeat relevo-node"
        found.append(f"The daemons here have not read this {paths.config.name} yet: {restart}.")
    for name, node in state["nodes"].items():
        theirs = node.get("unread") or node.get("config_hash")
        if name != state["me"] and theirs and theirs not in {UNUSABLE, config.hash}:
            found.append(f"{name} has another {paths.config.name}: copy the right one to the other server.")
    return found


def _check_drbd(found: Report, *, as_json: bool) -> None:
    if found.mistakes:
        if not as_json:
            _print_warnings(found.warnings)
        _refuse(found.mistakes, found.warnings, as_json=as_json)
        raise SystemExit(EXIT_FAILED)
    if as_json:
        print_json({"ok": True, "resources": found.summary, "mistakes": [], "warnings": found.warnings})
        return
    typer.echo(f"OK: {'; '.join(found.summary) or 'nothing'}.")
    _print_warnings(found.warnings)


def _print_warnings(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        typer.echo(f"warning: {sentence}")


def _refuse(errors: Sequence[ConfigError], warned: Sequence[str] = (), *, as_json: bool) -> None:
    if as_json:
        mistakes: list[dict[str, Any]] = [
            {
                "file": str(error.file),
                "line": error.line,
                "column": error.column,
                "what": error.mistake,
                "remedy": error.remedy,
            }
            for error in errors
        ]
        print_json({"ok": False, "mistakes": mistakes, "warnings": list(warned)})
        return
    for error in errors:
        typer.echo(str(error), err=True)
    count = len(errors)
    typer.echo(f"{count} mistake{'s' if count > 1 else ''}.", err=True)


def _summary(config: Config) -> str:
    parts = [
        f"nodes {', '.join(config.nodes)}",
        f"links {', '.join(config.links)}",
        f"mirrors {', '.join(config.mirrors) or 'none'}",
        f"services {', '.join(config.services) or 'none'}",
    ]
    parts.append(f"watchdog {config.watchdog.device if config.watchdog is not None else 'none'}")
    if config.alerts:
        parts.append(f"alerts {', '.join(target.name for target in config.alerts)}")
    return f"OK: cluster {config.cluster}: {'; '.join(parts)}; hash {config.hash[:12]}."
