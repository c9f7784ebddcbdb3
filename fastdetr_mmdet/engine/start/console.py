"""One page of output before the first loss; the log file keeps everything."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable

from mmengine.logging import MMLogger

# What mmengine says of every run, and what is left of it on the terminal
_SHORT: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    (r"\s*-+\nSystem environment:(?s:.*)", lambda found: _environment(found[0])),
    (r"Config:\n(?s:.*)", lambda found: ""),
    (r"Hooks will be executed in(?s:.*)", lambda found: ""),
    (r"Distributed training is not used, all SyncBatchNorm.*", lambda found: ""),
    (r'"(FileClient|HardDiskBackend)" (will be deprecated|is the alias).*', lambda found: ""),
)


def _environment(text: str) -> str:
    found = dict(
        re.findall(r"^ *(Python|PyTorch|GPU 0|seed|GPU number): (\S+)", text, re.MULTILINE)
    )
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _briefly(text: str) -> str | None:
    """What the terminal shows of a message, or None where it shows all."""
    for pattern, say in _SHORT:
        found = re.fullmatch(pattern, text)
        if found:
            return say(found)
    return None


def shorten() -> None:
    """Let mmengine's loggers say briefly on the terminal what only concerns their file."""
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
