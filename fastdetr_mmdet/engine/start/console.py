"""One page of output before the first loss; the log file keeps everything."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import MMLogger

# What mmengine says of every run, and what is left of it on the terminal
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


_config: list[Path] = []  # the file that the tool was started with
_MOST_LINES = 30


def _own_part() -> str:
    """Keys of the config's own file: its differences from the base."""
    text = _config[0].read_text(encoding="utf-8") if _config else ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not text.startswith("_base_") and "\n_base_" not in text:
        lines = []
    more = [f"... {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    given = " ".join([str(_config[0]) if _config else "The config", *sys.argv[2:]])
    return "\n".join([f"{given}; with its base in the log file:", *lines[:_MOST_LINES], *more])


def _briefly(text: str) -> str | None:
    """Shortened message for the terminal; None to show all of it."""
    for pattern, say in _SHORT:
        found = re.fullmatch(pattern, text)
        if found:
            return say(found)
    return None


def shorten(config: str | None = None) -> None:
    """Shorten messages of mmengine's loggers on the terminal.

    Args:
        config: The file that is trained or tested.
    """
    _config[:] = [Path(config)] if config and Path(config).is_file() else []
    original = MMLogger.callHandlers
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def call_handlers(self: MMLogger, record: logging.LogRecord) -> None:
        text = _briefly(str(record.msg))
        if text is None:
            return original(self, record)
        briefly = logging.makeLogRecord({**record.__dict__, "msg": text})
        for handler in self.handlers:
            whole = isinstance(handler, logging.FileHandler)
            if record.levelno >= handler.level and (whole or text):
                handler.handle(record if whole else briefly)

    MMLogger.callHandlers = call_handlers
