"""How fast configs learn: ``python -m fastdetr_mmdet.convergence`` (docs/convergence.md)."""

from .budget import apply_budget
from .data_check import check_data
from .found import find_runs
from .launch import train_all
from .reference import Reference, read_reference
from .results import Curve, Point, Reached, Summary, read_curve, summarise
from .run import Run
from .write import write_results

__all__ = [
    "Curve",
    "Point",
    "Reached",
    "Reference",
    "Run",
    "Summary",
    "apply_budget",
    "check_data",
    "find_runs",
    "read_curve",
    "read_reference",
    "summarise",
    "train_all",
    "write_results",
]
