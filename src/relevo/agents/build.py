"""From a resource in the configuration to the agent that handles it."""

from __future__ import annotations

import pathlib

from relevo.agents.address import AddressAgent
from relevo.agents.base import Agent
from relevo.agents.files import FilesAgent
from relevo.agents.filesystem import FilesystemAgent, mirror_device
from relevo.agents.lsb import LsbAgent
from relevo.agents.mirror import MirrorAgent
from relevo.agents.nfs import NfsAgent
from relevo.agents.ocf import OcfAgent
from relevo.agents.smb import SmbAgent
from relevo.agents.systemd import SystemdAgent
from relevo.base.paths import Paths
from relevo.config.model import (
    AddressResource,
    Config,
    FilesResource,
    FilesystemResource,
    LsbResource,
    MirrorResource,
    NfsResource,
    OcfResource,
    Resource,
    SmbResource,
    SystemdResource,
)


def build(resource: Resource, config: Config, paths: Paths) -> Agent:
    """The agent of one resource on this server.

    Args:
        resource: from a service of `config`.
        config: the whole cluster (links give interfaces).
        paths: where control sockets lie.
    """
    match resource:
        case MirrorResource():
            return MirrorAgent(resource, paths)
        case FilesystemResource():
            return FilesystemAgent(resource, mirror_device(resource, paths))
        case FilesResource():
            return FilesAgent(resource, paths)
        case SmbResource():
            return SmbAgent(resource, paths)
        case NfsResource():
            return NfsAgent(resource, paths)
        case AddressResource():
            return AddressAgent(resource, config.links[resource.link], _files_socket(resource, config, paths))
        case OcfResource():
            return OcfAgent(resource)
        case LsbResource():
            return LsbAgent(resource)
        case SystemdResource():
            return SystemdAgent(resource)


def _files_socket(resource: AddressResource, config: Config, paths: Paths) -> pathlib.Path | None:
    """The control socket of the file service that goes with an address, if one does."""
    for service in config.services.values():
        if resource in service.resources:
            for part in service.resources:
                if isinstance(part, FilesResource):
                    return paths.socket(f"files-{part.id}")
    return None
