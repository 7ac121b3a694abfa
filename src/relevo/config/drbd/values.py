"""Settings as the program counts: bytes, milliseconds, words; what is not set has drbd's default."""

from __future__ import annotations

from relevo.config.drbd import options as known
from relevo.config.drbd.options import BY_NAME
from relevo.config.drbd.resolve import last
from relevo.config.drbd.tree import Setting


class Values:
    """The options of one section; of several of the same name the last one counts."""

    def __init__(self, settings: list[Setting]) -> None:
        self._settings = settings

    def setting(self, name: str) -> Setting | None:
        """The setting that counts, if there is one."""
        return last(self._settings, name)

    def text(self, name: str) -> str:
        """Its text."""
        setting = self.setting(name)
        return BY_NAME[name].default if setting is None or setting.value is None else setting.value

    def flag(self, name: str) -> bool:
        """Whether it is yes."""
        return self.text(name) == "yes"

    def count(self, name: str) -> int:
        """Its number, in the option's own unit, within the option's range."""
        option = BY_NAME[name]
        return max(option.low, min(option.high, known.number(self.text(name), option.scale)))

    def scaled(self, name: str) -> int:
        """Its number in bytes, in bytes per second or in milliseconds."""
        return self.count(name) * BY_NAME[name].scale.factor
