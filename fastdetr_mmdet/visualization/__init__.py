"""Pictures of a run: curves and predictions beside ground truth."""

from .curves import plot_curves
from .predictions import draw_predictions
from .run_log import RunLog, read_run_log

__all__ = ["RunLog", "draw_predictions", "plot_curves", "read_run_log"]
