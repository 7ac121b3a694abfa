"""`relevo check`: is the configuration right? Starts nothing, changes nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relevo.base.errors import RelevoError
from relevo.cli.context import EXIT_FAILED, of, print_json
from relevo.config.errors import ConfigErrors
from relevo.config.load import load, warnings, whoami
from relevo.config.model import Config


def check(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say whether the configuration is right, every mistake with its line; nothing is started."""
    context = of(ctx)
    try:
        config = load(context.paths.config)
    except ConfigErrors as errors:
        _refuse(errors, as_json=as_json)
        raise SystemExit(EXIT_FAILED) from None
    named = list(warnings(config))
    try:
        whoami(config, context.node)
    except RelevoError as error:
        named.append(str(error))
    if as_json:
        print_json({"ok": True, "hash": config.hash, "mistakes": [], "warnings": named})
        return
    typer.echo(_summary(config))
    for sentence in named:
        typer.echo(f"warning: {sentence}")


def _refuse(errors: ConfigErrors, *, as_json: bool) -> None:
    if as_json:
        mistakes: list[dict[str, Any]] = [
            {"file": str(error.file), "line": error.line, "what": error.mistake, "remedy": error.remedy}
            for error in errors.errors
        ]
        print_json({"ok": False, "mistakes": mistakes, "warnings": []})
        return
    for error in errors.errors:
        typer.echo(str(error), err=True)
    count = len(errors.errors)
    typer.echo(f"{count} mistake{'s' if count > 1 else ''}.", err=True)


def _summary(config: Config) -> str:
    parts = [
        f"nodes {', '.join(config.nodes)}",
        f"links {', '.join(config.links)}",
        f"mirrors {', '.join(config.mirrors) or 'none'}",
        f"services {', '.join(config.services) or 'none'}",
    ]
    return f"OK: cluster {config.cluster}: {'; '.join(parts)}; hash {config.hash[:12]}."
