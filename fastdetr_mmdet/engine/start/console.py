"""Shorten mmengine's output on the terminal; the log file keeps everything."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import MMLogger

_MOST_LINES = 30  # of a config
# Messages of mmengine in every run -> their text on the terminal.
_SHORT: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    (r"\s*-+\nSystem environment:(?s:.*)", lambda found: _environment(found[0])),
    (r"Config:\n(?s:.*)", lambda found: _own_part()),
    (r"paramwise_options -- .*", lambda found: ""),
    (r"Hooks will be executed in(?s:.*)", lambda found: ""),
    (r"Distributed training is not used, all SyncBatchNorm.*", lambda found: ""),
    (r'"(FileClient|HardDiskBackend)" (will be deprecated|is the alias).*', lambda found: ""),
)


def _environment(text: str) -> str:
    found = dict(
        re.findall(r"^ *(Python|PyTorch|GPU 0|seed|GPU number): (\S+)", text, re.MULTILINE)
    )
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _own_part() -> str:
    """Describe the tool's arguments and the config's own file, without its base."""
    path = Path(*sys.argv[1:2])
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not any(line.startswith("_base_") for line in lines):
        lines = []
    more = [f"... {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    given = " ".join(sys.argv[1:])
    return "\n".join([f"{given}; with its base in the log file:", *lines[:_MOST_LINES], *more])


def shorten() -> None:
    """Make mmengine's loggers print long messages in short; the log file keeps them."""
    original = MMLogger.callHandlers
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def call_handlers(self: MMLogger, record: logging.LogRecord) -> None:
        matches = ((re.fullmatch(pattern, str(record.msg)), say) for pattern, say in _SHORT)
        text = next((say(found) for found, say in matches if found), None)
        if text is None:
            return original(self, record)
        briefly = logging.makeLogRecord({**record.__dict__, "msg": text})
        for handler in self.handlers:
            whole = isinstance(handler, logging.FileHandler)
            if record.levelno >= handler.level and (whole or text):
                handler.handle(record if whole else briefly)

    MMLogger.callHandlers = call_handlers
