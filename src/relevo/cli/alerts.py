"""`relevo alerts`: who is told of trouble, what was told, and does it arrive?"""

from __future__ import annotations

from typing import Annotated

import typer

from relevo.base.control import call
from relevo.cli.context import EXIT_FAILED, of, print_json

app = typer.Typer(help="Who is told of trouble, and whether it arrives.", no_args_is_help=True)


@app.command("list")
def list_alerts(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Print what people were told and is not over, who is told, and what waits for each."""
    state = call(of(ctx).paths.socket("node"), "status")["alerts"]
    if as_json:
        print_json(state)
        return
    for told in state["told"]:
        typer.echo(f"told     {told['kind']} {told['subject']}".rstrip())
    for target in state["targets"]:
        typer.echo(f"{target['type']:8} {target['name']}: {', '.join(target['events'])}")
        if target["trouble"]:
            typer.echo(f"         {target['trouble']}")
        for sentence in target["waiting"]:
            typer.echo(f"         waits: {sentence}")
        if target["dropped"]:
            typer.echo(f"         dropped, because too many waited: {target['dropped']}")
    if not state["targets"]:
        typer.echo("No alerts are configured: write [[alerts]] in relevo.toml.")


@app.command("test")
def send_test(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Only this one (default: all).")] = "",
) -> None:
    """Send a test to everybody who is told; exit status 1 when one of them does not take it."""
    results = call(of(ctx).paths.socket("node"), "alerts_test", name=name)["results"]
    for result in results:
        typer.echo(result["why"] or f"{result['name']}: delivered.")
    if any(result["why"] for result in results):
        raise SystemExit(EXIT_FAILED)
