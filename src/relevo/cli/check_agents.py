"""`relevo check` looks at the agents of other people that a configuration names: are they here, do they take that?"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

from relevo.agents import nfs, ocf, ocf_meta, smb, systemd_bus
from relevo.agents.tools import ENVIRONMENT
from relevo.base.errors import RelevoError
from relevo.base.units import format_duration_ms
from relevo.config.model import Config, LsbResource, NfsResource, OcfResource, SmbResource, SystemdResource
from relevo.node import certificates

ASK_LIMIT_S = 10.0
"""How long systemd may take to say what it knows of a unit."""


def remarks(config: Config) -> Iterator[str]:
    """What will go wrong on this server, a sentence each."""
    for node in config.nodes.values():
        for device in node.fencing:
            if shutil.which(device.agent, path=ENVIRONMENT["PATH"]) is None:
                yield f"{node.name}: there is no {device.agent} on this server; install the package that has it."
    for name, told in certificates.troubles(config, dt.datetime.now(dt.UTC)).items():
        yield f"{name}: {told}"
    for service in config.services.values():
        for resource in service.resources:
            if isinstance(resource, OcfResource):
                yield from _ocf(f"{service.name}/{resource.id}", resource)
            elif isinstance(resource, SystemdResource):
                yield from _systemd(f"{service.name}/{resource.id}", resource)
            elif isinstance(resource, SmbResource):
                yield from _smb(f"{service.name}/{resource.id}")
            elif isinstance(resource, NfsResource) and shutil.which(nfs.PROGRAM, path=ENVIRONMENT["PATH"]) is None:
                yield f"{service.name}/{resource.id}: NFS-Ganesha is not installed on this server. {nfs.INSTALL}"
            elif isinstance(resource, LsbResource) and not os.access(resource.script, os.X_OK):
                yield f"{service.name}/{resource.id}: {resource.script} is no program on this server."


def _smb(where: str) -> Iterator[str]:
    if shutil.which("smbd", path=ENVIRONMENT["PATH"]) is None:
        yield f"{where}: Samba is not installed on this server. {smb.INSTALL}"
    wanted = pathlib.Path("/etc/systemd/system/multi-user.target.wants")
    for unit in ("smbd.service", "smb.service"):
        if (wanted / unit).exists():
            yield f"{where}: the system starts its own Samba at every boot; run systemctl disable --now {unit}."


def _ocf(where: str, resource: OcfResource) -> Iterator[str]:
    program = ocf.ROOT / "resource.d" / resource.provider / resource.agent
    if not os.access(program, os.X_OK):
        yield f"{where}: there is no agent {program} on this server; install the package that has it (resource-agents)."
        return
    environment = {**ENVIRONMENT, "OCF_ROOT": str(ocf.ROOT)}
    try:
        done = subprocess.run(
            [program, "meta-data"], capture_output=True, env=environment, timeout=ocf.META_LIMIT_S, check=False
        )
        meta = ocf_meta.parse(done.stdout)
    except (OSError, subprocess.TimeoutExpired, RelevoError) as error:
        yield f"{where}: the agent {program} does not say what it is ({error})."
        return
    yield from (f"{where}: {sentence}" for sentence in ocf_meta.mistakes(meta, resource.parameters))
    limits = {"start": resource.operation.start_timeout_ms, "stop": resource.operation.stop_timeout_ms}
    limits["monitor"] = resource.operation.monitor_timeout_ms
    for action, limit_ms in limits.items():
        advised_ms = meta.timeouts_ms.get(action, 0)
        if limit_ms < advised_ms:
            yield (
                f"{where}: {action}_timeout is {format_duration_ms(limit_ms)}; "
                f"the agent's author advises {format_duration_ms(advised_ms)}."
            )


def _systemd(where: str, resource: SystemdResource) -> Iterator[str]:
    if not systemd_bus.RUNS_HERE.exists():
        yield f"{where}: systemd does not run on this server; use an agent of type ocf or lsb."
        return
    try:
        unit = asyncio.run(asyncio.wait_for(_look(resource.unit), ASK_LIMIT_S))
    except (RelevoError, TimeoutError) as error:
        yield f"{where}: systemd does not say what {resource.unit} is ({error})."
        return
    yield from (f"{where}: {sentence}" for sentence in unit_remarks(resource, unit))


async def _look(name: str) -> systemd_bus.Unit:
    async with systemd_bus.manager() as systemd:
        return await systemd.look(name)


def unit_remarks(resource: SystemdResource, unit: systemd_bus.Unit) -> Iterator[str]:
    """What will go wrong with a unit, by what systemd says of it."""
    if unit.load == systemd_bus.NOT_FOUND:
        yield f"systemd has no unit {resource.unit} on this server; install what has it."
        return
    if unit.load != "loaded":
        yield f"{resource.unit} is {unit.load}: see systemctl status {resource.unit}."
    if unit.file in {"enabled", "enabled-runtime"}:
        yield (
            f"{resource.unit} is started at every boot, on both servers, whoever is active; "
            f"run systemctl disable {resource.unit}."
        )
    limit_ms = resource.operation.stop_timeout_ms
    if limit_ms < unit.stop_limit_ms:
        yield (
            f"stop_timeout is {format_duration_ms(limit_ms)}; "
            f"systemd gives the unit {format_duration_ms(unit.stop_limit_ms)}."
        )
