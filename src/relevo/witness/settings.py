"""`witness.toml`: where the witness listens, and the key of each cluster that it serves."""

from __future__ import annotations

import pathlib

import msgspec

from relevo.config.draft import WITNESS_PORT
from relevo.config.draft_mirror import MAX_PORT
from relevo.config.errors import ConfigError, ConfigErrors
from relevo.config.names import HOST_REMEDY, NO_HOST, is_host
from relevo.config.private import read_private
from relevo.config.table import Source, Table

FILE = "witness.toml"
ANYWHERE = "0.0.0.0"  # noqa: S104 - a witness is there to be reached; what is not signed is not answered
MAX_CLUSTERS = 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says.

    Attributes:
        address: where to listen; `::` for IPv6 as well.
        keys: name of a cluster -> its key.
    """

    address: str
    port: int
    keys: dict[str, str]


def load(path: pathlib.Path) -> Settings:
    """Read `witness.toml`.

    Raises:
        ConfigErrors: every mistake in it.
    """
    mistakes: list[ConfigError] = []
    source = Source(path, mistakes)
    try:
        parsed = source.parse(read_private(path, "the keys of the clusters"))
    except ConfigError as error:
        raise ConfigErrors([error]) from error
    if not parsed:
        raise ConfigErrors(mistakes)
    root = Table(source, (), source.values)
    clusters = root.table("clusters", required=True)
    names = clusters.names()
    settings = Settings(
        address=root.text("address", ANYWHERE),
        port=root.integer("port", WITNESS_PORT, 1, MAX_PORT),
        keys={name: clusters.text(name, None, '"a long text that nobody guesses"') for name in names},
    )
    if root.sound and not is_host(settings.address):
        root.wrong("address", NO_HOST, HOST_REMEDY)
    if clusters.sound and not 0 < len(names) <= MAX_CLUSTERS:
        source.mistake(("clusters",), f"It names {len(names)} clusters.", f"Name 1 to {MAX_CLUSTERS}.")
    root.finish()
    if mistakes:
        raise ConfigErrors(mistakes)
    return settings
