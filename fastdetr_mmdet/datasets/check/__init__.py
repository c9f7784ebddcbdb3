"""Find errors in a dataset in COCO format before training.

Usage:
    python -m fastdetr_mmdet check ANNOTATIONS --images DIR
    python -m fastdetr_mmdet check --config CONFIG
"""

from .annotations import check_annotations
from .clean import CannotCleanError, clean
from .files import check_files
from .read import NotCocoError, read_coco
from .report import KINDS

__all__ = [
    "KINDS",
    "CannotCleanError",
    "NotCocoError",
    "check_annotations",
    "check_files",
    "clean",
    "read_coco",
]
