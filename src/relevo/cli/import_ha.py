"""`relevo import`: the configuration of Heartbeat and drbd as a relevo.toml, each line explained."""

from __future__ import annotations

import pathlib
from ipaddress import IPv4Interface
from typing import Annotated

import typer

from relevo.base.durable import write_durably
from relevo.base.errors import RelevoError
from relevo.cli.context import EXIT_FAILED, of
from relevo.config.authkeys import parse_authkeys
from relevo.config.drbd.load import read
from relevo.config.drbd.site import TwoSides, two_sides
from relevo.config.errors import ConfigErrors
from relevo.config.ha.convert import Converted, Sources, convert
from relevo.config.ha.ha_cf import read_ha_cf
from relevo.config.ha.haresources import read_haresources
from relevo.config.private import read_private

CONFIG_MODE = 0o644


class ImportRefused(RelevoError):
    """The configuration cannot be imported as it is asked."""


def import_ha(
    ctx: typer.Context,
    ha: Annotated[pathlib.Path, typer.Argument(metavar="HA.D", help="Folder of ha.cf, haresources and authkeys.")],
    drbd: Annotated[
        pathlib.Path | None, typer.Argument(metavar="DRBD", help="drbd.conf, or the folder drbd.d beside it.")
    ] = None,
    *,
    into: Annotated[pathlib.Path | None, typer.Option(help="Write DIR/relevo.toml; else it is printed.")] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            help="NODE:LINK=ADDRESS/BITS, where no file says it (NODE=… if there is one link); may be repeated."
        ),
    ] = None,
) -> None:
    """Turn the configuration of Heartbeat (and drbd) into a relevo.toml that means the same."""
    context = of(ctx)
    converted = convert(_sources(ha, drbd, address or [], context.node))
    if into is None:
        typer.echo(converted.text, nl=False)
    _tell(converted)
    if converted.missing:
        raise SystemExit(EXIT_FAILED)
    if into is not None:
        target = into / "relevo.toml"
        if target.exists():
            raise ImportRefused(f"{target} exists.", "Name another folder, or move that file away.")
        write_durably(target, converted.text.encode(), CONFIG_MODE)
        typer.echo(f"{target} is written. See what it means: relevo --etc {into} check")


def _tell(converted: Converted) -> None:
    for sentence in converted.left_out:
        typer.echo(f"left out: {sentence}", err=True)
    for sentence in converted.missing:
        typer.echo(f"missing: {sentence}", err=True)


def _sources(folder: pathlib.Path, drbd: pathlib.Path | None, given: list[str], me: str) -> Sources:
    """Read everything.

    Raises:
        ConfigErrors: every mistake of all the files.
    """
    if not folder.is_dir():
        raise ImportRefused(
            f"There is no folder {folder}.",
            "Name the one that has Heartbeat's ha.cf, haresources and authkeys, such as /etc/ha.d.",
        )
    found = read_ha_cf(folder / "ha.cf")
    mistakes = list(found.mistakes)
    groups, wrong = read_haresources(folder / "haresources", found.nodes)
    mistakes += wrong
    authkeys = folder / "authkeys"
    _, wrong = parse_authkeys(read_private(authkeys, "the keys of the heartbeats"), authkeys)
    mistakes += wrong
    if mistakes:
        raise ConfigErrors(mistakes)
    conf = None if drbd is None else _drbd_conf(drbd)
    return Sources(
        ha=found,
        groups=groups,
        authkeys=authkeys.absolute(),
        mirrors={} if conf is None else _mirrors(conf, found.nodes),
        drbd=conf,
        me=me,
        own=_own_addresses(),
        given=_given(given, found.nodes, list(dict.fromkeys(medium.interface for medium in found.media))),
    )


def _drbd_conf(path: pathlib.Path) -> pathlib.Path:
    """The file that includes the rest, also where its folder drbd.d was named."""
    conf = path.parent / "drbd.conf" if path.is_dir() else path
    if not conf.is_file():
        raise ImportRefused(
            f"{conf} is not there.", "Name the drbd.conf; it includes the files of drbd.d, and is what is read."
        )
    return conf.absolute()


def _mirrors(conf: pathlib.Path, nodes: list[str]) -> dict[str, TwoSides]:
    me = nodes[0] if nodes else ""
    return {resource.name: two_sides(resource) for resource in read(conf, me).resources}


def _given(words: list[str], nodes: list[str], links: list[str]) -> dict[str, dict[str, tuple[IPv4Interface, ...]]]:
    """Node -> link -> the addresses named for it."""
    found: dict[str, dict[str, tuple[IPv4Interface, ...]]] = {}
    for word in words:
        where, _, address = word.partition("=")
        node, scoped, named = where.partition(":")
        if node not in nodes:
            raise ImportRefused(f"{word!r}: ha.cf names no node {node!r}.", f"Known: {', '.join(nodes)}.")
        try:
            interface = IPv4Interface(address if "/" in address else f"{address}/24")
        except ValueError:
            raise ImportRefused(f"{word!r} has no address.", "Write NODE=192.168.0.28/24, for example.") from None
        link = _link(word, named if scoped else None, links)
        of_node = found.setdefault(node, {})
        of_node[link] = (*of_node.get(link, ()), interface)
    return found


def _link(word: str, named: str | None, links: list[str]) -> str:
    """The link that an address is for; without a name only if there is no choice."""
    known = f"Known: {', '.join(links)}."
    if named is None:
        if len(links) != 1:
            raise ImportRefused(f"{word!r} does not say on which link. {known}", "Write NODE:LINK=ADDRESS/BITS.")
        return links[0]
    if named not in links:
        raise ImportRefused(f"{word!r}: ha.cf names no link {named!r}.", known)
    return named


def _own_addresses() -> dict[str, tuple[IPv4Interface, ...]]:
    """Network card -> its addresses on this machine."""
    import socket

    from pyroute2 import IPRoute

    found: dict[str, tuple[IPv4Interface, ...]] = {}
    with IPRoute() as routes:
        for entry in routes.get_addr(family=socket.AF_INET):
            card, address = entry.get_attr("IFA_LABEL"), entry.get_attr("IFA_ADDRESS")
            if card and address:
                name = str(card).partition(":")[0]
                found[name] = (*found.get(name, ()), IPv4Interface(f"{address}/{entry['prefixlen']}"))
    return found
