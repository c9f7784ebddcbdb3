"""Pictures of a run: curves, predictions beside ground truth, and where the detector looked."""

from .contact_sheet import draw_contact_sheet
from .curves import plot_curves
from .detection_figure import draw_detection
from .inspected import InspectedImage, InspectedLayer, InspectedQuery
from .inspection import inspect_batch, inspect_image
from .predictions import draw_predictions
from .recording import record
from .run_log import RunLog, read_run_log

__all__ = [
    "InspectedImage",
    "InspectedLayer",
    "InspectedQuery",
    "RunLog",
    "draw_contact_sheet",
    "draw_detection",
    "draw_predictions",
    "inspect_batch",
    "inspect_image",
    "plot_curves",
    "read_run_log",
    "record",
]
