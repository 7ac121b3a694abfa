"""`relevo ocf mirror ACTION`, `relevo ocf files ACTION`, `relevo ocf install`."""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from relevo import shims as package
from relevo.base.errors import RelevoError
from relevo.cli.context import Context, of
from relevo.cli.ocf.codes import ActionFailed, Code, Given, given
from relevo.cli.units import NotOurs

INTO = pathlib.Path("/usr/lib/ocf/resource.d/relevo")
AGENTS = ("mirror", "files")
EXECUTABLE = 0o755
_SHIPPED = pathlib.Path(package.__file__).parent / "ocf"
Action = Annotated[str, typer.Argument(help="start, stop, monitor, meta-data, validate-all, …")]

app = typer.Typer(no_args_is_help=True, help="Resource agents, for a cluster that Pacemaker runs.")


@app.command("mirror")
def mirror(ctx: typer.Context, action: Action) -> None:
    """A mirror as a promotable resource (run by Pacemaker)."""
    from relevo.cli.ocf.mirror import PARAMETER, MirrorActions

    _run(ctx, "mirror", PARAMETER, action, lambda context, what: MirrorActions(context, what).actions())


@app.command("files")
def files(ctx: typer.Context, action: Action) -> None:
    """The file service as a resource (run by Pacemaker)."""
    from relevo.cli.ocf.files import PARAMETER, FilesActions

    _run(ctx, "files", PARAMETER, action, lambda context, what: FilesActions(context, what).actions())


Actions = Callable[[Context, Given], dict[str, Callable[[], Code]]]


def _run(ctx: typer.Context, agent: str, parameter: str, action: str, actions: Actions) -> None:
    """Carry out one action and end with its status; why it failed goes where Pacemaker shows it to people."""
    if action == "meta-data":
        sys.stdout.write((_SHIPPED / f"{agent}.xml").read_text(encoding="utf-8"))
        return
    if action in {"usage", "help"}:
        typer.echo(f"{agent} {{start|stop|monitor|validate-all|meta-data|…}}")
        return
    code = _outcome(of(ctx), parameter, action, actions)
    raise typer.Exit(code)


def _outcome(context: Context, parameter: str, action: str, actions: Actions) -> Code:
    try:
        known = actions(context, given(parameter))
        if action not in known:
            raise ActionFailed(Code.UNIMPLEMENTED, f"There is no action {action!r}.", f"Known: {', '.join(known)}.")
        return known[action]()
    except ActionFailed as error:
        code, said = error.code, str(error)
    except RelevoError as error:
        code, said = Code.GENERIC, str(error)
    sys.stderr.write(f"ocf-exit-reason:{' '.join(said.split())}\n")
    return code


@app.command("install")
def install(
    ctx: typer.Context,
    *,
    root: Annotated[pathlib.Path, typer.Option(help="Write below this folder, for a package.")] = pathlib.Path("/"),
    into: Annotated[pathlib.Path, typer.Option(help="Folder of the agents, seen from the root.")] = INTO,
) -> None:
    """Write the agents `ocf:relevo:mirror` and `ocf:relevo:files` where Pacemaker looks for them."""
    folder = root / into.relative_to(into.anchor)
    relevo = shlex.join([sys.executable, "-m", "relevo", *of(ctx).arguments()])
    template = (_SHIPPED / "agent").read_text(encoding="utf-8")
    for name in AGENTS:
        path = folder / name
        if path.exists() and package.MARK not in path.read_text(encoding="utf-8", errors="replace"):
            raise NotOurs(f"{path} is there already, and is not one of Relevo's.", "Move it away.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in AGENTS:
        words = {"@NAME@": name, "@PYTHON@": shlex.quote(sys.executable), "@RELEVO@": relevo}
        text = template
        for word, value in words.items():
            text = text.replace(word, value)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(EXECUTABLE)
        typer.echo(folder / name)
