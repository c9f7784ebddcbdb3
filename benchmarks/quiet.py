"""Silence other packages on the terminal."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Turn off warnings and mmengine's log lines per parameter; errors stay."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
