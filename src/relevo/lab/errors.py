"""What can go wrong in a lab."""

from __future__ import annotations

from relevo.base.errors import RelevoError


class LabFailed(RelevoError):
    """A part of the lab could not be made or does not answer."""


class LabRunning(RelevoError):
    """The lab in this folder is up already."""


class LabNotRunning(RelevoError):
    """There is no lab in this folder, or it is down."""


class MachineOff(RelevoError):
    """What was asked needs a machine that is switched on."""


class MachineOn(RelevoError):
    """What was asked needs a machine that is switched off."""


class LabBusy(RelevoError):
    """Another command is changing the lab."""


class CommandFailed(RelevoError):
    """A command in a machine ended with an error."""


class ServiceNotUp(RelevoError):
    """The lab is on, but the service did not come up."""
