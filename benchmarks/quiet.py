"""Less noise of other packages on the terminal."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """No warnings, and no log line per parameter of mmengine's; errors stay."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
