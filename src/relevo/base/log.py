"""Structured logging: one JSON object a line on standard error, which the init system keeps."""

from __future__ import annotations

import logging
import sys

import structlog


def set_up(daemon: str, *, level: int = logging.INFO) -> None:
    """Send the log of this process to standard error as JSON lines that carry the daemon's name.

    Args:
        daemon: `heartbeat`, `node`, `mirror-r0`, …
        level: the lowest level that is written.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(daemon=daemon)
