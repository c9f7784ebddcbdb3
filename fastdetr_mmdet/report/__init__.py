"""One HTML file about training runs: ``python -m fastdetr_mmdet.report``."""

from .build import make_report
from .settings import Settings

__all__ = ["Settings", "make_report"]
