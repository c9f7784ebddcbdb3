"""One HTML file about training runs: ``python -m fastdetr_mmdet report``."""

from ..utils.cli import only_help

if not only_help():
    from .build import make_report
    from .settings import Settings

__all__ = ["Settings", "make_report"]
