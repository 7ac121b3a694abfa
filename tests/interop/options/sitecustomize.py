"""Gives our mirror options of drbd.conf for one case: RELEVO_INTEROP_OPTIONS holds them as JSON."""

from __future__ import annotations

import json
import os
import pathlib

import msgspec

from relevo.config import load as loading
from relevo.config.model import Config

_load = loading.load


def load(path: pathlib.Path) -> Config:
    config = _load(path)
    changes = json.loads(os.environ["RELEVO_INTEROP_OPTIONS"])
    mirrors = {
        name: msgspec.structs.replace(mirror, options=msgspec.structs.replace(mirror.options, **changes))
        for name, mirror in config.mirrors.items()
    }
    return msgspec.structs.replace(config, mirrors=mirrors)


loading.load = load
