"""Read and check `relevo.toml` with its secrets and heartbeat keys."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import msgspec

from relevo.config import alerts, merge_drbd, ping, rules
from relevo.config.alerts import AlertTarget, MailAlert
from relevo.config.authkeys import parse_authkeys
from relevo.config.draft import Draft, read_draft
from relevo.config.errors import ConfigError, ConfigErrors, UnknownNode
from relevo.config.model import AuthKeys, Config, Node
from relevo.config.private import read_private
from relevo.config.table import MAX_CONFIG_BYTES, Source, Table, nearest

MAX_SECRET_BYTES = 64
"""drbd's limit of a shared secret."""


def load(path: pathlib.Path) -> Config:
    """The configuration that a `relevo.toml` describes; complete and checked.

    Args:
        path: the file; the secrets and keys it names are looked up relative to its folder.

    Raises:
        ConfigErrors: every mistake in any of the files.
    """
    mistakes: list[ConfigError] = []
    source = Source(path, mistakes)
    if not source.parse(_read(path)):
        raise ConfigErrors(mistakes)
    draft = read_draft(source)
    merge_drbd.merge(draft)
    rules.compare(draft)
    authkeys = _authkeys(path.parent / draft.authkeys, mistakes) if draft.authkeys else None
    read = _secrets(path.parent / draft.secrets, draft, mistakes) if draft.secrets else _Secrets()
    if mistakes:
        raise ConfigErrors(mistakes)
    assert draft.heartbeat is not None, "what was not understood is a mistake"
    assert authkeys is not None, "what was not understood is a mistake"
    mirrors = {
        name: msgspec.structs.replace(mirror, secret=read.mirrors.get(name, mirror.secret))
        for name, mirror in sorted(draft.mirrors.items())
    }
    config = Config(
        cluster=draft.cluster,
        nodes={name: _with_secrets(node, read.fencing) for name, node in sorted(draft.nodes.items())},
        links=draft.links,
        heartbeat=draft.heartbeat,
        authkeys=authkeys,
        mirrors=mirrors,
        services=dict(sorted(draft.services.items())),
        sides=dict(sorted(draft.sides.items())),
        drbd={name: source.path for name, source in sorted(draft.drbd.items())},
        witness=msgspec.structs.replace(draft.witness, key=read.key) if draft.witness is not None else None,
        fencing=draft.fencing,
        alerts=tuple(_with_password(target, read.alerts) for target in draft.alerts),
        alerts_policy=draft.alerts_policy,
        ping=draft.ping,
        watchdog=draft.watchdog,
        hash="",
    )
    return msgspec.structs.replace(config, hash=hash_of(config))


def whoami(config: Config, hostname: str) -> Node:
    """The node of the cluster that this host is.

    Raises:
        UnknownNode: none has the name of this host.
    """
    if hostname not in config.nodes:
        known = ", ".join(config.nodes)
        raise UnknownNode(
            f"This host is called {hostname!r}, which is no node of cluster {config.cluster!r} ({known}).",
            "Set the host name, or name this node with --node.",
        )
    return config.nodes[hostname]


def hash_of(config: Config) -> str:
    """SHA-256 of the values that are configured, secrets included: equal on two servers if they mean the same.

    What has its default value is left out, so that a later version's new options do not make its servers differ from
    those that do not know them yet: a new option's default has to mean what there was before it. The rest is encoded as
    JSON (keys of every object sorted, addresses and paths as text).
    """
    plain = _configured(msgspec.structs.replace(config, drbd={}, hash=""))
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted", enc_hook=str)).hexdigest()


def _configured(value: object) -> object:
    """A value as JSON can have it, without the fields that have their default."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        fields = {field.name: (getattr(value, field.name), field) for field in msgspec.structs.fields(value)}
        chosen = {name: _configured(found) for name, (found, field) in fields.items() if found != _default_of(field)}
        return chosen if tag is None else {**chosen, "type": tag}
    if isinstance(value, dict):
        return {str(key): _configured(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [_configured(found) for found in value]
    return value


def _default_of(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def warnings(config: Config) -> tuple[str, ...]:
    """What is allowed, but weak or a risk: one sentence each."""
    return (
        *rules.weaknesses(config.mirrors, config.authkeys.signing.method, config.drbd),
        *rules.undecided(
            config.mirrors,
            with_witness=config.witness is not None,
            unfenced=tuple(name for name, node in config.nodes.items() if not node.fencing),
        ),
        *rules.unguarded(config.services),
        *merge_drbd.notes(set(config.drbd.values())),
        *alerts.remarks(config.alerts),
        *pings(config),
    )


def pings(config: Config) -> tuple[str, ...]:
    """What ping targets do not do, where neither a witness nor fencing of every node does it."""
    decided = config.witness is not None or all(node.fencing for node in config.nodes.values())
    return ping.remarks(config.ping, decided=decided)


def _read(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        error = ConfigError(path, None, "There is no such file.", "Create it, or name its folder with --etc.")
        raise ConfigErrors([error]) from None
    except OSError as error:
        raise ConfigErrors(
            [ConfigError(path, None, f"It cannot be read ({error.strerror}).", "Run as root.")]
        ) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigErrors(
            [ConfigError(path, None, f"It is larger than {MAX_CONFIG_BYTES} bytes.", "Make it smaller.")]
        )
    return data


def _authkeys(path: pathlib.Path, mistakes: list[ConfigError]) -> AuthKeys | None:
    try:
        data = read_private(path, "the heartbeat keys")
    except ConfigError as error:
        mistakes.append(error)
        return None
    keys, wrong = parse_authkeys(data, path)
    mistakes.extend(wrong)
    return keys


@dataclasses.dataclass(frozen=True, slots=True)
class _Secrets:
    """What `secrets.toml` says: of mirrors, of the witness, of each node's fence devices, of mail servers."""

    mirrors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key: str = ""
    fencing: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    alerts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _with_secrets(node: Node, fencing: Mapping[str, Mapping[str, str]]) -> Node:
    """Each of its devices gets the secret parameters too."""
    secret = fencing.get(node.name)
    if not secret:
        return node
    devices = (msgspec.structs.replace(device, parameters={**device.parameters, **secret}) for device in node.fencing)
    return msgspec.structs.replace(node, fencing=tuple(devices))


def _with_password(target: AlertTarget, passwords: Mapping[str, str]) -> AlertTarget:
    if isinstance(target, MailAlert) and target.name in passwords:
        return msgspec.structs.replace(target, password=passwords[target.name])
    return target


def _secrets(path: pathlib.Path, draft: Draft, mistakes: list[ConfigError]) -> _Secrets:
    """The secrets of what relevo.toml configures; nothing is read where nothing needs one."""
    names = [name for name in draft.declared.get("mirrors", ()) if name not in draft.drbd]
    fenced = [node.name for node in draft.nodes.values() if node.fencing]
    mails = [target.name for target in draft.alerts if isinstance(target, MailAlert) and target.user]
    if not names and not mails and draft.witness is None and not (fenced and path.exists()):
        return _Secrets()
    source = Source(path, mistakes)
    try:
        data = read_private(path, "the secrets")
    except ConfigError as error:
        mistakes.append(error)
        return _Secrets()
    if not source.parse(data):
        return _Secrets()
    root = Table(source, (), source.values)
    found = _Secrets(
        mirrors=_mirror_secrets(root, names),
        key=_witness_key(root) if draft.witness is not None else "",
        fencing=_fence_secrets(root, fenced),
        alerts=_passwords(root, mails),
    )
    root.finish()
    return found


def _passwords(root: Table, mails: list[str]) -> dict[str, str]:
    """The passwords of those alerts that name a user."""
    table = root.table("alerts", required=bool(mails))
    if not table.sound:
        return {}
    passwords = {name: table.text(name, example='"the password of that user"') for name in mails}
    table.finish()
    return passwords


def _fence_secrets(root: Table, fenced: list[str]) -> dict[str, dict[str, str]]:
    table = root.table("fencing")
    found = {}
    for name in table.names():
        if name not in fenced:
            table.wrong(name, "is no node with a fence device.", nearest(name, fenced))
        inner = table.table(name)
        found[name] = {key: inner.text(key) for key in inner.names()}
    return found


def _mirror_secrets(root: Table, names: list[str]) -> dict[str, str]:
    table = root.table("mirror", required=bool(names))
    if not table.sound:
        return {}
    secrets = {name: table.text(name, example='"a long text that nobody guesses"') for name in names}
    for name, secret in secrets.items():
        if len(secret.encode()) > MAX_SECRET_BYTES:
            table.wrong(name, f"is longer than {MAX_SECRET_BYTES} bytes.", "Write a shorter secret.")
    table.finish()
    return secrets


def _witness_key(root: Table) -> str:
    table = root.table("witness", required=True)
    if not table.sound:
        return ""
    key = table.text("key", example='"the same long text as on the witness"')
    table.finish()
    return key
