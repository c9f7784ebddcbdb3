"""Pictures of a detector: predictions beside ground truth, and where it looked."""

from .contact_sheet import draw_contact_sheet
from .detection_figure import draw_detection
from .inspected import InspectedImage, InspectedLayer, InspectedQuery
from .inspection import inspect_batch, inspect_image
from .predictions import draw_predictions
from .recording import record

__all__ = [
    "InspectedImage",
    "InspectedLayer",
    "InspectedQuery",
    "draw_contact_sheet",
    "draw_detection",
    "draw_predictions",
    "inspect_batch",
    "inspect_image",
    "record",
]
