"""`relevo status`, `leave`, `force`, `fence`: the cluster as seen from this server."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from relevo.base import units
from relevo.base.control import Refused, call, watch
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.cli.context import ask_node, node_meant, of, print_json
from relevo.cli.local_time import localised

_ASK_S = 1.0
"""How long a file service is asked whether it has accounts."""
_STATE_COLOURS = {
    "alive": "green",
    "started": "green",
    "UpToDate": "green",
    "reached": "green",
    "Connected": "green",
    "stopped": "dim",
}


def status(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Print again at each change, until interrupted.")] = False,
) -> None:
    """Show who is alive, what runs where and why, the mirrors, and every risk and alarm."""
    paths = of(ctx).paths
    path = paths.socket("node")
    if not follow:
        _print(_with_access(ask_node(ctx, "status"), paths), as_json=as_json)
        return
    try:
        with node_meant(of(ctx)):
            for state in watch(path):
                _print(_with_access(state, paths), as_json=as_json)
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def _with_access(state: dict[str, Any], paths: Paths) -> dict[str, Any]:
    """The state, with what this server's file services say: that they are open to everyone, or lack a certificate."""
    for socket in sorted(paths.run.glob("files-*.sock")):
        with contextlib.suppress(RelevoError):
            status, name = call(socket, "status", timeout_s=_ASK_S), socket.stem.removeprefix("files-")
            problem = (status.get("tls") or {}).get("problem")
            if problem and name not in state.get("certificates", {}):
                state["alarms"].append(f"{name}: {problem}")
            if status.get("access") == "everyone":
                state["risks"].append(
                    f"{name}: there are no accounts, so everyone may read, change and delete everything "
                    "(relevo user add NAME --admin)."
                )
    return state


def _print(state: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{state['cluster']}[/] seen from [bold]{state['me']}[/]")
    for sentence in state["alarms"]:
        console.print(f"[bold red]alarm[/]  {escape(localised(sentence))}")
    for sentence in state["risks"]:
        console.print(f"[yellow]risk[/]   {escape(sentence)}")
    console.print(_nodes_table(state))
    console.print(_services_table(state))
    console.print(_mirrors_table(state))
    if state.get("witness") is not None:
        console.print(_witness_line(state["witness"]))
    if state.get("watchdog") is not None:
        console.print(_watchdog_line(state["me"], state["watchdog"]))
    for name, target in state.get("ping", {}).items():
        console.print(_ping_line(name, target))
    for name, service in state["services"].items():
        console.print(f"[bold]{name}[/]: {escape(localised(service['reason']))} {escape(service['remedy'])}".rstrip())
    for event in state["history"][-5:]:
        at = localised(event["at"], seconds=True)
        console.print(f"[dim]{at}  {escape(localised(event['what']))}[/]")


def _coloured(word: str) -> str:
    colour = _STATE_COLOURS.get(word, "yellow")
    return f"[{colour}]{word}[/]"


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _nodes_table(state: dict[str, Any]) -> Any:
    table = _table("node", "state", "links", "notes")
    for name, node in state["nodes"].items():
        notes = [word for word in ("late", "standby") if node[word]]
        if node.get("original"):
            notes.append("Heartbeat 3")
        links = " ".join(f"{link}:{word}" for link, word in node["links"].items() if name != state["me"])
        table.add_row(name, _coloured(node["state"]), links, ", ".join(notes))
    return table


def _services_table(state: dict[str, Any]) -> Any:
    names = list(state["nodes"])
    table = _table("service", *names)
    for name, service in state["services"].items():
        table.add_row(name, *(_coloured(service["states"].get(node, "unknown")) for node in names))
        for resource in service["resources"]:
            cells = (service["resource_states"].get(node, {}).get(resource, "-") for node in names)
            table.add_row(f"  {resource}", *(_coloured(cell) for cell in cells))
    return table


def _mirrors_table(state: dict[str, Any]) -> Any:

    table = _table("mirror", "node", "role", "connection", "disk", "out of sync", "notes")
    for name, sides in state["mirrors"].items():
        for node, side in sides.items():
            table.add_row(
                name,
                node,
                side["role"],
                _coloured(side["connection"]),
                _coloured(side["disk"]),
                units.format_bytes(side["out_of_sync_bytes"]),
                _note(side),
            )
    return table


def _note(side: dict[str, Any]) -> str:
    """One word for a narrow column; the sentence is among the alarms."""
    if side.get("split_brain"):
        return "[red]split brain[/]"
    if side.get("io_suspended"):
        return "[red]I/O held[/]"
    return "[yellow]see alarm[/]" if side.get("problem") else ""


def _witness_line(witness: dict[str, Any]) -> str:
    newest = "; ".join(
        f"{name} is newest on {' and '.join(nodes)}" if nodes else f"{name} is not known yet"
        for name, nodes in witness["in_sync"].items()
    )
    word = "[green]answers[/]" if witness["answers"] else "[yellow]silent[/]"
    return f"[bold]witness[/] {witness['address']}: {word}{', ' if newest else ''}{newest}"


def _watchdog_line(me: str, watchdog: dict[str, Any]) -> str:
    word = "[green]armed[/]" if watchdog["armed"] else "[yellow]not armed[/]"
    what = f" ({watchdog['identity']}, {units.format_duration_ms(watchdog['timeout_ms'])})" if watchdog["armed"] else ""
    return f"[bold]watchdog[/] of {me}, {watchdog['device']}: {word}{what}"


def _ping_line(name: str, target: dict[str, Any]) -> str:
    words = ", ".join(f"{node} {_coloured(word)}" for node, word in target["nodes"].items())
    return f"[bold]ping[/] {name} ({', '.join(target['addresses'])}): {words} (no vote: it only moves services)"


def leave(ctx: typer.Context) -> None:
    """Hand over what runs here, mark this copy as no longer current, say goodbye: before a shutdown of this server."""
    typer.echo(ask_node(ctx, "leave", timeout_s=120)["what"])


def force(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(help="The service to start here.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Start a service here although this copy may be stale: the other server is gone and will not come back."""
    try:
        ask_node(ctx, "force_check", service=service)
    except Refused as error:
        if error.error == "RunsWell":  # a daemon of an earlier version does not know the question
            raise
    if not yes:
        typer.confirm(f"Changes that only the other server has will be given up. Start {service} here?", abort=True)
    typer.echo(ask_node(ctx, "force", service=service)["what"])


def fence(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(help="The node to switch off.")],
    *,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="It is off: a person has seen to that.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Have a node switched off by its fence devices, or say that it is off."""
    if not yes:
        question = f"Is {node} off, and does it stay off?" if by_hand else f"Switch {node} off, whatever it is doing?"
        typer.confirm(question, abort=True)
    typer.echo(ask_node(ctx, "fence", node=node, by_hand=by_hand)["what"])
