"""Every option of drbd.conf 8.3 and 8.4: where it is written, what it takes, and whether it has an effect here.

Ranges, defaults and units are those of drbd 8.4 (drbd.conf(5), drbdsetup(8)); a test compares them with what
`drbdsetup xml-help` says. The tables in docs/internals/drbd-conf.md are made from this module.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from relevo.config import drbd_options as typed


class Takes(enum.Enum):
    """What stands between an option's name and its semicolon."""

    NUMBER = "number"
    CHOICE = "choice"
    TEXT = "text"
    FLAG = "yes or no"
    BARE = "nothing"


class Scale(NamedTuple):
    """What a bare number means.

    Attributes:
        unit: for people.
        factor: what one stands for: bytes, milliseconds or pieces.
        shift: what drbdadm shifts a suffix by: with K = 2^10 bytes, `1M` of a number counted in KiB is 1024.
    """

    unit: str
    factor: int = 1
    shift: int = 0


COUNT = Scale("")
BYTES = Scale("bytes")
SECTORS = Scale("sectors of 512 bytes", 512, 9)
KIB = Scale("KiB", 1024, 10)
KIB_PER_S = Scale("KiB/s", 1024, 10)
SECONDS = Scale("s", 1000)
TENTHS = Scale("tenths of a second", 100)


class Option(NamedTuple):
    """One option.

    Attributes:
        name: as it is written in 8.4.
        section: where it is written: net, disk, options, startup, handlers, proxy or global.
        takes: what it takes.
        default: as it would be written; empty for texts without one.
        scale, low, high: of a number; `high` 0 is none.
        strict: a number outside of low and high is refused by drbdadm; others drbd itself clamps.
        choices: the words of a choice.
        without_effect: why it has none here; empty when it is honoured.
        harmless: the value that asks for what is done anyway: no warning.
        in_syncer: also taken in the section syncer of 8.3.
        old_name: how 8.3 spells it.
    """

    name: str
    section: str
    takes: Takes
    default: str = ""
    scale: Scale = COUNT
    low: int = 0
    high: int = 0
    strict: bool = True
    choices: tuple[str, ...] = ()
    without_effect: str = ""
    harmless: str = ""
    in_syncer: bool = False
    old_name: str = ""

    @property
    def honoured(self) -> bool:
        """Whether it has its effect here."""
        return not self.without_effect


class NotANumber(ValueError):
    """A text that no number with a suffix is."""


_NUMBER = re.compile(r"([0-9]+)([KkMmGgs]?)")
_SUFFIX_SHIFTS = {"": 0, "s": 9, "k": 10, "m": 20, "g": 30}
_MAX_NUMBER = (1 << 64) - 1


def number(text: str, scale: Scale) -> int:
    """A number with a suffix, in the option's own unit, rounded up: `1M` in KiB is 1024.

    Raises:
        NotANumber: it is none, or does not fit 64 bits.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or int(match[1]) > _MAX_NUMBER:
        raise NotANumber(text)
    if not match[2]:
        return int(match[1])
    shift = _SUFFIX_SHIFTS[match[2].lower()] - scale.shift
    value = int(match[1]) << shift if shift >= 0 else -(-int(match[1]) >> -shift)
    if value > _MAX_NUMBER:
        raise NotANumber(text)
    return value


def _number(
    section: str,
    name: str,
    default: int,
    low: int,
    high: int,
    scale: Scale = COUNT,
    *,
    strict: bool = True,
    why: str = "",
    syncer: bool = False,
    old: str = "",
) -> Option:
    return Option(
        name,
        section,
        Takes.NUMBER,
        str(default),
        scale,
        low,
        high,
        strict,
        without_effect=why,
        harmless=str(default),
        in_syncer=syncer,
        old_name=old,
    )


def _choice(section: str, name: str, *words: str, why: str = "", syncer: bool = False) -> Option:
    """The first word is the default."""
    return Option(
        name,
        section,
        Takes.CHOICE,
        words[0],
        choices=words,
        without_effect=why,
        harmless=words[0],
        in_syncer=syncer,
    )


def _text(section: str, name: str, *, why: str = "", syncer: bool = False, old: str = "") -> Option:
    return Option(name, section, Takes.TEXT, without_effect=why, in_syncer=syncer, old_name=old)


def _flag(section: str, name: str, default: str, *, why: str = "", syncer: bool = False) -> Option:
    return Option(name, section, Takes.FLAG, default, without_effect=why, harmless=default, in_syncer=syncer)


_NO_QUEUES = "there are no queues of the kernel's block layer here"
_ALWAYS_FLUSHED = "order on the disk is always kept by flushes"
_NO_START_SCRIPT = "the cluster decides who becomes Primary"
_ONE_RESYNC = "each mirror is its own process and regulates its own resync"
NO_PROXY = "there is no proxy here: the mirror connects to the peer itself"
_DRBDADM_ONLY = "it tells drbdadm how to behave"

_NET = (
    _choice("net", "protocol", "C", "A", "B"),
    _number("net", "timeout", 60, 1, 600, TENTHS),
    _number("net", "max-epoch-size", 2048, 1, 20_000),
    _number("net", "max-buffers", 2048, 32, 131_072),
    _number("net", "unplug-watermark", 128, 1, 131_072, strict=False, why=_NO_QUEUES),
    _number("net", "connect-int", 10, 1, 120, SECONDS),
    _number("net", "ping-int", 10, 1, 120, SECONDS),
    _number("net", "sndbuf-size", 0, 0, 10 << 20, BYTES),
    _number("net", "rcvbuf-size", 0, 0, 10 << 20, BYTES),
    _number("net", "ko-count", 7, 0, 200),
    _flag("net", "allow-two-primaries", "no", why="two Primaries are never allowed here"),
    _text("net", "cram-hmac-alg"),
    _text("net", "shared-secret"),
    _choice("net", "after-sb-0pri", *typed.words_of(typed.AfterSb0)),
    _choice("net", "after-sb-1pri", *typed.words_of(typed.AfterSb1)),
    _choice("net", "after-sb-2pri", *typed.words_of(typed.AfterSb2)),
    _flag("net", "always-asbp", "no"),
    _choice("net", "rr-conflict", *typed.words_of(typed.RrConflict)),
    _number("net", "ping-timeout", 5, 1, 300, TENTHS, strict=False),
    _text("net", "data-integrity-alg"),
    _flag("net", "tcp-cork", "yes"),
    _choice("net", "on-congestion", *typed.words_of(typed.OnCongestion)),
    _number("net", "congestion-fill", 0, 0, 10 << 21, SECTORS),
    _number("net", "congestion-extents", 1237, 67, 65_534),
    _text("net", "csums-alg", syncer=True),
    _flag("net", "csums-after-crash-only", "no"),
    _text("net", "verify-alg", syncer=True),
    _flag("net", "use-rle", "yes", syncer=True),
    _number(
        "net", "socket-check-timeout", 0, 0, 300, TENTHS, strict=False, why="a new socket is waited for by ping-timeout"
    ),
)
_DISK = (
    _number("disk", "size", 0, 0, 2 << 40, SECTORS),
    _choice("disk", "on-io-error", *typed.words_of(typed.OnIoError)),
    _choice("disk", "fencing", *typed.words_of(typed.Fencing)),
    _number("disk", "max-bio-bvecs", 0, 0, 128, strict=False, why=_NO_QUEUES),
    _flag("disk", "use-bmbv", "no", why=_NO_QUEUES),
    _flag("disk", "disk-barrier", "no", why=_ALWAYS_FLUSHED),
    _flag("disk", "disk-flushes", "yes", why=_ALWAYS_FLUSHED),
    _flag("disk", "disk-drain", "yes", why=_ALWAYS_FLUSHED),
    _flag("disk", "md-flushes", "yes", why=_ALWAYS_FLUSHED),
    _number("disk", "resync-rate", 250, 1, 4 << 20, KIB_PER_S, syncer=True, old="rate"),
    _text("disk", "resync-after", why=_ONE_RESYNC, syncer=True, old="after"),
    _number("disk", "al-extents", 1237, 67, 65_534, strict=False, syncer=True),
    _flag("disk", "al-updates", "yes"),
    _flag("disk", "discard-zeroes-if-aligned", "yes", why="discarded blocks always read as zeroes here"),
    _flag("disk", "disable-write-same", "no", why="WRITE SAME is never offered here"),
    _number("disk", "c-plan-ahead", 20, 0, 300, TENTHS, syncer=True),
    _number("disk", "c-delay-target", 10, 1, 100, TENTHS, syncer=True),
    _number("disk", "c-fill-target", 100, 0, 1 << 20, SECTORS, syncer=True),
    _number("disk", "c-max-rate", 102_400, 250, 4 << 20, KIB_PER_S, syncer=True),
    _number("disk", "c-min-rate", 250, 0, 4 << 20, KIB_PER_S, syncer=True),
    _number("disk", "disk-timeout", 0, 0, 6000, TENTHS, strict=False),
    _choice(
        "disk",
        "read-balancing",
        "prefer-local",
        "prefer-remote",
        "round-robin",
        "least-pending",
        "when-congested-remote",
        *(f"{stripe}-striping" for stripe in ("32K", "64K", "128K", "256K", "512K", "1M")),
        why="reads are always local while the disk here is good",
    ),
    _number("disk", "rs-discard-granularity", 0, 0, 1 << 20, BYTES, strict=False),
)
_RESOURCE = (
    _text("options", "cpu-mask", why="systemd's CPUAffinity= does this", syncer=True),
    _choice(
        "options",
        "on-no-data-accessible",
        "io-error",
        "suspend-io",
        why="requests fail when neither copy can be reached",
        syncer=True,
    ),
)
_STARTUP = (
    _number("startup", "wfc-timeout", 0, 0, 300_000, SECONDS),
    _number("startup", "degr-wfc-timeout", 0, 0, 300_000, SECONDS),
    _number("startup", "outdated-wfc-timeout", 0, 0, 300_000, SECONDS),
    _flag("startup", "wait-after-sb", "no", why="a split brain never holds up the start here"),
    Option(
        "stacked-timeouts", "startup", Takes.BARE, without_effect="mirrors on top of mirrors are not supported here"
    ),
    Option("become-primary-on", "startup", Takes.TEXT, without_effect=_NO_START_SCRIPT),
)
HANDLERS = (
    "pri-on-incon-degr",
    "pri-lost-after-sb",
    "pri-lost",
    "initial-split-brain",
    "split-brain",
    "fence-peer",
    "unfence-peer",
    "local-io-error",
    "before-resync-target",
    "after-resync-target",
    "before-resync-source",
    "out-of-sync",
)
_HANDLERS = tuple(
    _text(
        "handlers",
        name,
        old="outdate-peer" if name == "fence-peer" else "",
    )
    for name in HANDLERS
)
_PROXY = tuple(_text("proxy", name, why=NO_PROXY) for name in ("memlimit", "read-loops", "compression", "bwlimit"))
_GLOBAL = (
    _number("global", "minor-count", 32, 1, 255, why="no module is loaded here"),
    _number("global", "dialog-refresh", 1, 0, 600, SECONDS, why=_DRBDADM_ONLY),
    *(
        _number("global", f"cmd-timeout-{word}", default, 0, 900, SECONDS, why=_DRBDADM_ONLY)
        for word, default in (("short", 5), ("medium", 121), ("long", 600))
    ),
    Option("disable-ip-verification", "global", Takes.BARE, without_effect=_DRBDADM_ONLY),
    Option("udev-always-use-vnr", "global", Takes.BARE, without_effect="devices are not made by udev here"),
    _choice("global", "usage-count", "ask", "yes", "no", why="nothing is ever counted or sent")._replace(harmless="no"),
)
OPTIONS = (*_NET, *_DISK, *_RESOURCE, *_STARTUP, *_HANDLERS, *_PROXY, *_GLOBAL)
"""Every option, section by section."""
SECTIONS = ("options", "net", "disk", "startup", "proxy", "handlers")
"""The sections of a resource and of `common`, in the order in which they are printed."""
PROXY_ALSO = frozenset({"sndbuf-size", "rcvbuf-size", "ping-timeout"})
"""Options of the section net that the section proxy takes as well."""
DEPRECATED = frozenset({"delay-probe-volume", "delay-probe-interval", "throttle-threshold", "hold-off-threshold"})
"""Options that are read with their value and forgotten, since drbd 8.3.9."""
OF_DRBD_9 = frozenset(
    (
        *("node-id", "connection", "connection-mesh", "path", "host", "hosts", "via", "peer-device-options"),
        *("template-file", "require-drbd-module-version", "auto-promote", "auto-promote-timeout", "quorum"),
        *("quorum-minimum-redundancy", "on-no-quorum", "on-suspended-primary-outdated", "max-io-depth", "transport"),
        *("tls", "tls-keyring", "allow-remote-read", "twopc-timeout", "twopc-retry-timeout", "bitmap"),
        *("resync-without-replication", "quorum-lost", "peer-max-bio-size", "drbd8-compat-mode", "block-size"),
    )
)
"""Words of drbd 9's configuration; `node-id` is skipped with a warning, others are refused by name."""

BY_NAME = {option.name: option for option in OPTIONS}
_OLD_NAMES = {option.old_name: option for option in OPTIONS if option.old_name}
STRUCTURE = frozenset(
    (
        *("global", "common", "resource", "skip", "include", "on", "ignore-on", "stacked-on-top-of", "floating"),
        *("net", "disk", "syncer", "startup", "handlers", "options", "proxy", "volume", "device", "minor"),
        *("address", "alternate-link-address", "meta-disk", "flexible-meta-disk", "inside", "outside", "plugin"),
        *("sci", "ssocks", "sdp", "ipv4", "ipv6", "yes", "no", "ask", "discard-my-data"),
        *("_this_host", "_remote_host"),
    )
)
"""Words that give a file its structure."""
NEGATED = frozenset({"no-disk-barrier", "no-disk-flushes", "no-disk-drain", "no-md-flushes", "no-tcp-cork"})
"""How 8.3 switches a flag off."""
KEYWORDS = STRUCTURE | BY_NAME.keys() | _OLD_NAMES.keys() | NEGATED | DEPRECATED
"""Words that are no values unless they stand in quotation marks."""


class Meant(NamedTuple):
    """What a word in a section means: an option, and the value that the word itself gives it."""

    option: Option
    value: str | None = None


def meant_by(word: str, section: str) -> Meant | None:
    """The option that a word names in a section (`syncer` is one too); None when it is none there."""
    option = BY_NAME.get(word) or _OLD_NAMES.get(word)
    value = None
    if option is None and word in NEGATED:
        option, value = BY_NAME[word.removeprefix("no-")], "no"
    if option is None:
        return None
    of_syncer = option.in_syncer and value is None and word == (option.old_name or option.name)
    if section == "syncer":
        fits = of_syncer
    elif section == "proxy":
        fits = option.section == "proxy" or word in PROXY_ALSO or (of_syncer and option.takes is not Takes.FLAG)
    else:
        fits = option.section == section
    return Meant(option, value) if fits else None


def words_of(section: str) -> frozenset[str]:
    """Every word that begins an option in a section."""
    words = KEYWORDS - STRUCTURE - DEPRECATED
    return frozenset(word for word in words if meant_by(word, section) is not None)
