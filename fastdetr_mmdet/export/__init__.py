"""Export detectors to ONNX: ``python -m fastdetr_mmdet export CONFIG CHECKPOINT OUT.onnx``."""

from ..utils.cli import only_help

if not only_help():
    from .comparison import Comparison, compare, measure_speed
    from .graph import DetectionGraph
    from .onnx_file import export_onnx
    from .preprocessing import ExportError, Preprocessing

__all__ = [
    "Comparison",
    "DetectionGraph",
    "ExportError",
    "Preprocessing",
    "compare",
    "export_onnx",
    "measure_speed",
]
