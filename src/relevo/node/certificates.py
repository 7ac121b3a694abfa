"""Looks at the TLS certificates that are given on this server, and has people told before they are over."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

from relevo.config.model import Config, FilesResource

LOOK_S = 60.0
"""So often they are looked at: an hour or a minute before the end makes no difference, that a new one is right does."""


def troubles(config: Config, now: dt.datetime) -> dict[str, str]:
    """Files resource -> what is wrong with its certificate on this server; those that are right are left out."""
    from relevo.config import certificates  # only who has one pays for the library

    found = {}
    for service in config.services.values():
        for resource in service.resources:
            tls = resource.tls if isinstance(resource, FilesResource) else None
            if tls is not None and tls.certificate is not None and tls.key is not None:
                found[resource.id] = certificates.trouble(tls.certificate, tls.key, now)
    return {name: told for name, told in found.items() if told}


class Certificates:
    """What is wrong with the certificates here.

    Args:
        config: the cluster.
        changed: called when there is news.
    """

    def __init__(self, config: Config, changed: Callable[[], None]) -> None:
        self._config = config
        self._changed = changed
        self.trouble: dict[str, str] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        resources = (resource for service in self._config.services.values() for resource in service.resources)
        if not any(isinstance(one, FilesResource) and one.tls is not None and one.tls.given for one in resources):
            return
        while True:
            found = await asyncio.to_thread(troubles, self._config, dt.datetime.now(dt.UTC))
            if found != self.trouble:
                self.trouble = found
                self._changed()
            await asyncio.sleep(LOOK_S)
