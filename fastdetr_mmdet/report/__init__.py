"""One HTML file about training runs: ``python -m fastdetr_mmdet.report``."""

from .build import Settings, make_report

__all__ = ["Settings", "make_report"]
