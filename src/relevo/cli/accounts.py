"""`relevo user`, `group`, `share`, `audit`: who may do what; forwarded from the passive server to the active one."""

from __future__ import annotations

import datetime as dt
import secrets
import sys
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes, parse_size_bytes
from relevo.cli.context import Context, of, print_json
from relevo.config.model import AddressResource, Config, FilesResource

user = typer.Typer(no_args_is_help=True, help="Who may log in to the file service.")
group = typer.Typer(no_args_is_help=True, help="Users with the same permissions.")
share = typer.Typer(no_args_is_help=True, help="Folders with permissions of their own, and links to what is in them.")
_NO_LIMIT = "none"
_DAY_S = 86_400

_Files = Annotated[str, typer.Option("--files", help="Id of the files resource, when there are several.")]
_JSON = Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")]
_STDIN = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input (one line).")]
_YES = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_QUOTA = Annotated[str | None, typer.Option(help="How much may be stored, such as 50GiB; none: no limit.")]
_User = Annotated[str, typer.Argument(metavar="USER", help="Login name.")]
_Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]
_Share = Annotated[str, typer.Argument(metavar="SHARE", help="Name of the share.")]


class NoPassword(RelevoError):
    """Nothing can be asked for a password."""


def _resource(config: Config, wanted: str) -> FilesResource:
    from relevo.files import daemon

    found = [
        item.id for service in config.services.values() for item in service.resources if isinstance(item, FilesResource)
    ]
    if not wanted and len(found) > 1:
        raise RelevoError("There are several file services.", f"Name one with --files: {', '.join(found)}.")
    return daemon.find(config, wanted or (found[0] if found else "files"))


def _give(context: Context, files: str, order: str, **arguments: Any) -> dict[str, Any]:
    """Have the active server follow an order."""
    from relevo.files.accounts import forward

    config = context.config()
    return forward.give(config, context.node, context.paths, _resource(config, files), {"order": order, **arguments})


def _change(ctx: typer.Context, files: str, order: str, done: str, **arguments: Any) -> None:
    answer = _give(of(ctx), files, order, **{key: value for key, value in arguments.items() if value is not None})
    single = "" if answer.get("copies") == 2 else " Stored on one server only: the other one is not there."
    typer.echo(done + single)


def _asked(*, stdin: bool) -> str:
    """A password, never from the command line.

    Raises:
        NoPassword: there is no terminal.
    """
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise NoPassword("There is no terminal to ask for the password.", "Use --password-stdin.")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _hashed(ctx: typer.Context, files: str, *, stdin: bool) -> dict[str, str]:
    """A user's password as its hashes: the password itself leaves this process for nowhere.

    Raises:
        NoPassword: there is no terminal.
        RelevoError: it is too short.
    """
    from relevo.files import daemon
    from relevo.files.accounts import nt, passwords

    password = _asked(stdin=stdin)
    hashes = {"password": passwords.hash_of(password)}
    config = of(ctx).config()
    if daemon.has_smb(config, _resource(config, files).id):
        hashes["nt"] = nt.nt_hash(password)
    return hashes


def _quota(text: str | None) -> int | None:
    """What an order says about a quota: None nothing, 0 no limit."""
    if text is None:
        return None
    return 0 if text == _NO_LIMIT else parse_size_bytes(text)


def _limit(item: dict[str, Any], used: dict[str, int]) -> str:
    if item["quota_bytes"] is None:
        return "-"
    return f"{format_bytes(used.get(item['name'], 0))} of {format_bytes(item['quota_bytes'])}"


def _print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(highlight=False, soft_wrap=True).print(table)


def _shown(ctx: typer.Context, files: str, what: str, *, as_json: bool) -> dict[str, Any] | None:
    """Everything about accounts, unless it was printed for a program or there are none."""
    state = _give(of(ctx), files, "show")
    if as_json:
        print_json({"accounts": state["accounts"], what: state[what], "used": state.get("used")})
        return None
    if not state["accounts"]:
        typer.echo("There are no accounts: everyone may do everything. `relevo user add NAME --admin` changes that.")
        return None
    return state


# --- users ------------------------------------------------------------------------------------------------------------


@user.command("add")
def user_add(
    ctx: typer.Context,
    name: _User,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="May do everything; the first user must be one.")] = False,
    password_stdin: _STDIN = False,
    files: _Files = "",
) -> None:
    """Add a user, and ask for their password. With the first one everyone has to log in from then on."""
    hashes = _hashed(ctx, files, stdin=password_stdin)
    _change(ctx, files, "user-add", f"User {name} is added.", name=name, admin=admin, **hashes)


@user.command("password")
def user_password(ctx: typer.Context, name: _User, *, password_stdin: _STDIN = False, files: _Files = "") -> None:
    """Give a user another password; their sessions end."""
    hashes = _hashed(ctx, files, stdin=password_stdin)
    _change(ctx, files, "user-set", f"The password of {name} is changed.", name=name, **hashes)


@user.command("set")
def user_set(
    ctx: typer.Context,
    name: _User,
    *,
    admin: Annotated[bool | None, typer.Option("--admin/--no-admin", help="May do everything.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="May log in.")] = None,
    quota: _QUOTA = None,
    files: _Files = "",
) -> None:
    """Change what a user may do, or how much their files may take up."""
    settings = {"admin": admin, "enabled": enabled, "quota_bytes": _quota(quota)}
    _change(ctx, files, "user-set", f"User {name} is changed.", name=name, **settings)


@user.command("remove")
def user_remove(ctx: typer.Context, name: _User, *, yes: _YES = False, files: _Files = "") -> None:
    """Remove a user, their permissions and their links; their files stay."""
    if not yes:
        typer.confirm(f"Remove {name}?", abort=True)
    _change(ctx, files, "user-remove", f"User {name} is removed.", name=name)


@user.command("list")
def user_list(ctx: typer.Context, *, as_json: _JSON = False, files: _Files = "") -> None:
    """List the users."""
    if (state := _shown(ctx, files, "users", as_json=as_json)) is None:
        return
    used = (state.get("used") or {}).get("users", {})
    rows = []
    for item in state["users"]:
        notes = [word for word, there in (("admin", item["admin"]), ("disabled", not item["enabled"])) if there]
        rows.append(
            (item["name"], str(item["uid"]), ", ".join(item["groups"]), _limit(item, used), ", ".join(notes)),
        )
    _print_table(("user", "uid", "groups", "quota", "notes"), rows)


@user.command("sessions")
def user_sessions(ctx: typer.Context, *, as_json: _JSON = False, files: _Files = "") -> None:
    """List who is logged in by a page, from where, and when they were there last."""
    if (state := _shown(ctx, files, "sessions", as_json=as_json)) is not None:
        rows = [
            (item["user"], item["address"], item["agent"], _moment(item["last_s"]), _moment(item["ends_s"]))
            for item in state["sessions"]
        ]
        _print_table(("user", "from", "program", "last used", "ends"), rows)


def _moment(seconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


@user.command("logout")
def user_logout(ctx: typer.Context, name: _User, *, files: _Files = "") -> None:
    """End every session of a user; the password stays."""
    _change(ctx, files, "sessions-end", f"The sessions of {name} have ended.", name=name)


# --- groups -----------------------------------------------------------------------------------------------------------


@group.command("add")
def group_add(ctx: typer.Context, name: _Group, *, files: _Files = "") -> None:
    """Add a group."""
    _change(ctx, files, "group-add", f"Group {name} is added.", name=name)


@group.command("remove")
def group_remove(ctx: typer.Context, name: _Group, *, yes: _YES = False, files: _Files = "") -> None:
    """Remove a group and its permissions."""
    if not yes:
        typer.confirm(f"Remove the group {name}?", abort=True)
    _change(ctx, files, "group-remove", f"Group {name} is removed.", name=name)


@group.command("join")
def group_join(ctx: typer.Context, name: _Group, member: _User, *, files: _Files = "") -> None:
    """Put a user into a group."""
    _change(ctx, files, "group-member", f"{member} is in {name}.", name=name, user=member, member=True)


@group.command("leave")
def group_leave(ctx: typer.Context, name: _Group, member: _User, *, files: _Files = "") -> None:
    """Take a user out of a group."""
    _change(ctx, files, "group-member", f"{member} is not in {name}.", name=name, user=member, member=False)


@group.command("list")
def group_list(ctx: typer.Context, *, as_json: _JSON = False, files: _Files = "") -> None:
    """List the groups and who is in them."""
    if (state := _shown(ctx, files, "groups", as_json=as_json)) is not None:
        rows = [(item["name"], str(item["gid"]), ", ".join(item["members"])) for item in state["groups"]]
        _print_table(("group", "gid", "members"), rows)


# --- shares -----------------------------------------------------------------------------------------------------------


@share.command("add")
def share_add(
    ctx: typer.Context,
    name: _Share,
    folder: Annotated[str, typer.Argument(help="Path below the root, such as /docs/plans; made when missing.")],
    *,
    files: _Files = "",
) -> None:
    """Make a folder a share; only administrators may do anything in it until somebody is permitted to."""
    _change(ctx, files, "share-add", f"Share {name} is added.", name=name, path=folder)


@share.command("remove")
def share_remove(ctx: typer.Context, name: _Share, *, yes: _YES = False, files: _Files = "") -> None:
    """The folder is no share any more; what is in it stays, and belongs to the share above or the administrators."""
    if not yes:
        typer.confirm(f"Remove the share {name}?", abort=True)
    _change(ctx, files, "share-remove", f"Share {name} is removed.", name=name)


@share.command("permit")
def share_permit(
    ctx: typer.Context,
    name: _Share,
    holder: Annotated[str, typer.Argument(metavar="WHO", help="A user, or @group.")],
    level: Annotated[
        Literal["none", "read", "write", "manage", "unset"], typer.Argument(help="unset: nothing is said about them.")
    ],
    *,
    files: _Files = "",
) -> None:
    """Say what a user or a group may do in a share; a user's own permission goes before those of their groups."""
    done = f"{holder} in {name}: {level}."
    _change(ctx, files, "share-permit", done, name=name, holder=holder, level=level)


@share.command("set")
def share_set(
    ctx: typer.Context,
    name: _Share,
    *,
    public: Annotated[bool | None, typer.Option("--public/--no-public", help="Everyone may read it.")] = None,
    quota: _QUOTA = None,
    files: _Files = "",
) -> None:
    """Make a share public or not, or limit how much it may take up."""
    _change(ctx, files, "share-set", f"Share {name} is changed.", name=name, public=public, quota_bytes=_quota(quota))


@share.command("list")
def share_list(ctx: typer.Context, *, as_json: _JSON = False, files: _Files = "") -> None:
    """List the shares and who may do what in them."""
    if (state := _shown(ctx, files, "shares", as_json=as_json)) is None:
        return
    used = (state.get("used") or {}).get("shares", {})
    rows = []
    for item in state["shares"]:
        grants = [f"{holder}: {level}" for holder, level in item["grants"].items()]
        everyone = ["everyone: read"] if item["public"] else []
        rows.append((item["name"], item["path"], ", ".join([*everyone, *grants]), _limit(item, used)))
    _print_table(("share", "folder", "permissions", "quota"), rows)


@share.command("link")
def share_link(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="File or folder below the root, such as /docs/plan.pdf.")],
    *,
    creator: Annotated[
        str, typer.Option("--as", metavar="USER", help="Whose link it is; it opens no more than they may.")
    ],
    drop: Annotated[bool, typer.Option("--drop", help="Files can be put there, and nothing is seen.")] = False,
    days: Annotated[int, typer.Option(help="How long it is valid; 0: until it is removed.", min=0, max=3650)] = 7,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password that the link will have.")] = False,
    password_stdin: _STDIN = False,
    files: _Files = "",
) -> None:
    """Make a link for people without an account, and print its address: this once, only its digest is kept."""
    from relevo.files import link
    from relevo.files.accounts import changes, passwords

    secret = secrets.token_urlsafe(link.SECRET_BYTES)
    hashed = passwords.hash_of(_asked(stdin=password_stdin)) if password or password_stdin else None
    expires_s = int(time.time()) + days * _DAY_S if days else None
    more = {"creator": creator, "kind": "drop" if drop else "read", "expires_s": expires_s, "password": hashed}
    address = _address(of(ctx).config(), files)
    _change(ctx, files, "link-add", address + link.url_for(secret), digest=changes.digest_of(secret), path=path, **more)


def _address(config: Config, wanted: str) -> str:
    """Where people find the file service: at the address that goes with it."""
    resource = _resource(config, wanted)
    for service in config.services.values():
        if resource in service.resources:
            for item in service.resources:
                if isinstance(item, AddressResource):
                    return _url(resource, str(item.address.ip))
    return _url(resource, "ADDRESS")


def _url(resource: FilesResource, host: str) -> str:
    scheme, port, usual = ("http", resource.port, 80) if resource.tls is None else ("https", resource.tls.port, 443)
    return f"{scheme}://{host}" + ("" if port == usual else f":{port}")


@share.command("unlink")
def share_unlink(
    ctx: typer.Context,
    link_id: Annotated[str, typer.Argument(metavar="ID", help="As relevo share links shows it.")],
    *,
    files: _Files = "",
) -> None:
    """Withdraw a link: it opens nothing from now on, and what is being fetched by it breaks off."""
    _change(ctx, files, "link-remove", f"The link {link_id} is withdrawn.", id=link_id)


@share.command("links")
def share_links(ctx: typer.Context, *, as_json: _JSON = False, files: _Files = "") -> None:
    """List the links, and how often each was used."""
    if (state := _shown(ctx, files, "links", as_json=as_json)) is None:
        return
    rows = []
    for item in state["links"]:
        end = item["expires_s"]
        until = "-" if end is None else "over" if end <= time.time() else _moment(end)
        use = item["used"]
        used = f"opened {use['opened']}, fetched {use['fetched']}, put {use['stored']}"
        kind = item["kind"] + (", password" if item["password"] else "")
        rows.append((item["id"], item["path"], kind, item["creator"], until, used))
    _print_table(("link", "path", "kind", "by", "until", "used"), rows)


def audit(
    ctx: typer.Context,
    *,
    last: Annotated[int, typer.Option(help="How many lines.", min=1, max=1000)] = 50,
    who: Annotated[str, typer.Option(help="Only what somebody did (a part of the name will do).")] = "",
    what: Annotated[str, typer.Option(help="Only what was done so, such as PUT or login.")] = "",
    text: Annotated[str, typer.Option(help="Only lines that have this somewhere.")] = "",
    as_json: _JSON = False,
    files: _Files = "",
) -> None:
    """Show who changed what, when and from where, and what was refused."""
    notes = _give(of(ctx), files, "audit", count=last, who=who, what=what, text=text)["notes"]
    if as_json:
        print_json({"notes": notes})
        return
    for note in notes:
        known = ("at", "who", "what", "from")
        rest = " ".join(f"{key}={value}" for key, value in note.items() if key not in known)
        head = "  ".join(str(note.get(key) or "-") for key in known)
        typer.echo(f"{head}  {rest}".rstrip())
