"""What an agent answers, and what it is given (OCF resource agent API 1.1)."""

from __future__ import annotations

import enum
import os

import msgspec

from relevo.base.errors import RelevoError
from relevo.config.names import is_name

DEFAULT_LIMIT_MS = 60_000
LIMIT_SHARE = 0.9
"""Share of an action's time that it uses: its own sentence says more than that it was killed."""


class Code(enum.IntEnum):
    """Exit statuses of an action."""

    SUCCESS = 0
    GENERIC = 1
    ARGS = 2
    UNIMPLEMENTED = 3
    INSTALLED = 5
    """This server cannot run it; others may."""
    CONFIGURED = 6
    """Nobody can run it like this."""
    NOT_RUNNING = 7
    RUNNING_PROMOTED = 8
    FAILED_PROMOTED = 9


class ActionFailed(RelevoError):
    """An action has failed.

    Attributes:
        code: with which status.
    """

    def __init__(self, code: Code, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.code = code


class Given(msgspec.Struct, frozen=True):
    """What Pacemaker says of an action.

    Attributes:
        instance: name of the resource.
        name: of the mirror, or the files resource.
        limit_s: how long the action may take, with a margin.
        probe: a look whether it happens to run here.
        notice: of a notification: `post` or `pre`, and the action; else empty.
        feature_set: of the Pacemaker that asks; (0,) for none.
    """

    instance: str
    name: str
    limit_s: float
    probe: bool
    notice: tuple[str, str]
    feature_set: tuple[int, ...]


def given(parameter: str) -> Given:
    """What the environment says.

    Args:
        parameter: the agent's one parameter.

    Raises:
        ActionFailed: that is missing, or no name.
    """
    env = os.environ
    name = env.get(f"OCF_RESKEY_{parameter}", "")
    if not is_name(name):
        what = f"The parameter {parameter} is {name!r}, which is no name." if name else f"{parameter} is missing."
        raise ActionFailed(Code.CONFIGURED, what, f"Set it: {parameter}=NAME, as relevo.toml calls it.")
    limit_ms = _number(env.get("OCF_RESKEY_CRM_meta_timeout", "")) or DEFAULT_LIMIT_MS
    return Given(
        instance=env.get("OCF_RESOURCE_INSTANCE", name),
        name=name,
        limit_s=LIMIT_SHARE * limit_ms / 1000,
        probe=_number(env.get("OCF_RESKEY_CRM_meta_interval", "0")) == 0,
        notice=(
            env.get("OCF_RESKEY_CRM_meta_notify_type", ""),
            env.get("OCF_RESKEY_CRM_meta_notify_operation", ""),
        ),
        feature_set=tuple(_number(part) for part in env.get("OCF_RESKEY_crm_feature_set", "0").split(".")),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0
