"""`relevo standby`, `online`, `move`, `ban`, `clear`, `maintenance`, `cleanup`, `explain`: where services shall run."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from relevo.base import units
from relevo.base.errors import RelevoError
from relevo.cli.context import EXIT_FAILED, ask_node, of, print_json
from relevo.cli.local_time import localised

_Service = Annotated[str, typer.Argument(help="The service.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done, step by step.")]
_Stop = Annotated[bool, typer.Option("--stop", help="Although a service would then run nowhere.")]


class BadDuration(RelevoError):
    """An option is not a duration."""


class Switch(enum.StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def _say(ctx: typer.Context, request: str, **arguments: Any) -> None:
    answer = ask_node(ctx, request, **arguments)
    if not arguments.get("dry_run"):
        typer.echo(localised(answer["what"]))
        return
    if answer["refused"]:
        typer.echo(f"This would be refused: {localised(answer['what'])}")
    for line in step_lines(answer["steps"]):
        typer.echo(line)
    for service, node in answer["after"].items():
        typer.echo(f"{service} would then run {'on ' + node if node else 'nowhere'}.")
    if answer["refused"]:
        raise SystemExit(EXIT_FAILED)


def step_lines(steps: list[dict[str, Any]], indent: str = "") -> list[str]:
    """What would be started and stopped, in order."""
    return [
        f"{indent}{number:3}. {step['node']}: {step['action']} {step['resource']} of {step['service']}"
        for number, step in enumerate(steps, 1)
    ] or [f"{indent}Nothing would be started or stopped."]


def standby(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(help="The node that shall run nothing.")],
    *,
    stop: _Stop = False,
    dry_run: _DryRun = False,
) -> None:
    """Move every service away from a node, in order, and keep it free until `relevo online`."""
    _say(ctx, "standby", node=node, stop=stop, dry_run=dry_run)


def online(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(help="The node that may run services again.")],
    *,
    dry_run: _DryRun = False,
) -> None:
    """Let a node run services again."""
    _say(ctx, "online", node=node, dry_run=dry_run)


def move(
    ctx: typer.Context,
    service: _Service,
    node: Annotated[str | None, typer.Argument(help="Where to; left out: to the other server.")] = None,
    *,
    stop: _Stop = False,
    dry_run: _DryRun = False,
) -> None:
    """Let a service run on a node, and belong there, until `relevo clear`."""
    _say(ctx, "move", service=service, node=node, stop=stop, dry_run=dry_run)


def ban(
    ctx: typer.Context,
    service: _Service,
    node: Annotated[str, typer.Argument(help="The node on which it shall not run.")],
    *,
    duration: Annotated[str, typer.Option("--for", help="So long, such as 2h; left out: until `relevo clear`.")] = "",
    stop: _Stop = False,
    dry_run: _DryRun = False,
) -> None:
    """Keep a service away from a node, whatever happens to the other one."""
    for_s = 0
    if duration:
        for_s = units.parse_duration_ms(duration) // 1000
        if for_s == 0:
            raise BadDuration(f"--for {duration} is less than a second.", "Write 1s or more.")
    _say(ctx, "ban", service=service, node=node, for_s=for_s, stop=stop, dry_run=dry_run)


def clear(ctx: typer.Context, service: _Service, *, stop: _Stop = False, dry_run: _DryRun = False) -> None:
    """Take back the bans and the move of a service."""
    _say(ctx, "clear", service=service, stop=stop, dry_run=dry_run)


def maintenance(
    ctx: typer.Context,
    switch: Annotated[Switch, typer.Argument(help="Begin or end it.")],
    service: Annotated[str | None, typer.Argument(help="One service; left out: all.")] = None,
    *,
    stop: _Stop = False,
    dry_run: _DryRun = False,
) -> None:
    """Leave services alone: nothing is started, stopped or restarted; monitors only report."""
    _say(ctx, "maintenance", on=switch is Switch.ON, service=service, stop=stop, dry_run=dry_run)


def cleanup(ctx: typer.Context, service: _Service, *, dry_run: _DryRun = False) -> None:
    """Forget the failures of a service on every server, and a `force` that was not carried out yet."""
    _say(ctx, "cleanup", service=service, dry_run=dry_run, stop=True)


def rebalance(
    ctx: typer.Context, *, apply: Annotated[bool, typer.Option("--apply", help="Make the move.")] = False
) -> None:
    """Propose a move by how busy each server is (pressure stall information of the last minute)."""
    told = ask_node(ctx, "rebalance", apply=apply)
    typer.echo(told["what"])
    if told["service"] and not told["done"]:
        typer.echo(f"To make it so: relevo rebalance --apply, or relevo move {told['service']} {told['node']}.")


def _the_service(ctx: typer.Context) -> str:
    known = sorted(of(ctx).config().services)
    if len(known) != 1:
        raise RelevoError("Which service is meant?", f"Name it: {', '.join(known) or 'there is none'}.")
    return known[0]


def explain(
    ctx: typer.Context,
    service: Annotated[str | None, typer.Argument(help="The service; may be left out if there is only one.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say why a service is where it is, why not elsewhere, and what would happen if a server died now."""
    service = _the_service(ctx) if service is None else service
    told = ask_node(ctx, "explain", service=service)
    if as_json:
        print_json(told)
        return
    for line in explanation(service, told):
        typer.echo(localised(line))


def explanation(service: str, told: dict[str, Any]) -> list[str]:
    """The answer to `explain` in lines."""
    runs = f"{service} runs on {told['node']}" if told["node"] else f"{service} runs nowhere"
    lines = [_without_saying_twice(runs, told["node"], told["reason"])]
    if told["remedy"]:
        lines.append(told["remedy"])
    lines += [f"{node}: {why}" for node, why in told["elsewhere"].items()]
    for name, target in told["ping"].items():
        words = ", ".join(f"{word} by {node}" for node, word in target["nodes"].items())
        lines.append(
            f"Ping target {name} ({', '.join(target['addresses'])}): {words}. It has no vote, as a witness has."
        )
    for node, then in told["if_dies"].items():
        where = f"it would run on {then['node']}" if then["node"] else "it would run nowhere"
        fenced = f" after {' and '.join(then['fenced'])} was fenced" if then["fenced"] else ""
        said = _without_saying_twice(f"If {node} died now, {where}{fenced}", then["node"], then["reason"])
        remedy = "" if then["remedy"] == told["remedy"] else then["remedy"]
        lines.append(f"{said} {remedy}".rstrip())
        lines += step_lines(then["steps"], indent="  ") if then["steps"] else []
    return lines


def _without_saying_twice(begin: str, node: str | None, reason: str) -> str:
    """The reason behind its beginning, without what both say: that the service runs on the node."""
    said = f"It runs on {node}"
    return f"{begin}{reason.removeprefix(said)}" if node and reason.startswith(said) else f"{begin}. {reason}"
