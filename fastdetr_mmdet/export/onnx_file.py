"""Write a detector as an ONNX file."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.detectors import FastDETR
from ..ops import regions_in_onnx
from ..utils.cli import check_destination
from ..utils.files import write_atomically
from ..version import __version__
from .comparison import Comparison, compare
from .graph import DetectionGraph
from .preprocessing import ExportError, Preprocessing

# Has the needed GridSample and RoiAlign, and is the default of torch's exporter.
OPSET = 18
# Packages for export; import names equal pip names.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
AXES = {0: "batch", 2: "height", 3: "width"}
DETECTIONS = "k"  # axis 1 of outputs, if its length depends on the image size
INPUTS = ("images", "image_sizes")
OUTPUTS = ("boxes", "scores", "labels")


def export_onnx(
    detector: nn.Module,
    path: str | Path,
    preprocessing: Preprocessing | None = None,
    dynamic: bool = False,
    image_size: tuple[int, int] | None = None,
    batch_size: int = 1,
    check: bool = True,
) -> list[Comparison]:
    """Write a detector as one ONNX file of standard operators, atomically.

    The graph is ``DetectionGraph``: input ``images``, outputs ``boxes``, ``scores``, ``labels``.
    With padded images there is a second input, ``image_sizes``: if the model's preprocessor pads,
    or if the size is fixed and images keep their aspect ratio.

    Args:
        detector: A ``FastDETR`` on the CPU, from mmdet's ``init_detector`` unless preprocessing is
            given. It is not changed.
        path: The file to write or overwrite.
        preprocessing: Content of the file's metadata; None: from the detector's config.
        dynamic: Whether batch size, height and width are free instead of fixed.
        image_size: (H, W) in pixels; None: the test pipeline's size, or, if the size is fixed and
            images keep their aspect ratio, a square that holds both orientations. If dynamic, used
            for tracing only.
        batch_size: Images per batch of a file that is not dynamic.
        check: Whether to compare with PyTorch before writing; if dynamic, at two sizes.

    Returns:
        Comparisons, one per checked size.

    Raises:
        ExportError: if a package is missing, the detector is not a FastDETR, a part cannot be
            traced, or onnxruntime disagrees with PyTorch.
        OSError: if the file cannot be written.
    """
    check_packages()
    import onnx

    path = Path(path)
    _check(detector, path, image_size)
    preprocessing = preprocessing or Preprocessing.from_detector(detector)
    preprocessing, (height, width) = preprocessing.for_file(dynamic, image_size)
    padded = preprocessing.pad_to != (1, 1)
    if padded:
        _check_padding(detector)
    training = detector.training
    graph = DetectionGraph(detector).eval()
    bs, channels, traced = batch_size, len(preprocessing.mean), (height, width)
    if dynamic:  # at least two images and two cells: sizes of 1 would be traced as fixed
        bs, traced = 2, _with_two_cells(detector, channels, height, width)
    inputs = [torch.zeros(bs, channels, *traced)]
    if padded:
        inputs.append(torch.tensor([traced] * bs))
    try:
        with _quiet(), torch.no_grad(), regions_in_onnx():
            exported = _trace(graph, inputs, dynamic)
            program = torch.onnx.export(
                exported,
                tuple(inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUTS[: len(inputs)]),
                output_names=list(OUTPUTS),
                verbose=False,
            )
    finally:
        detector.train(training)
    assert program is not None
    model = program.model_proto
    entries = preprocessing.metadata() | {"fastdetr_mmdet": json.dumps(__version__)}
    sizes = [(batch_size, height, width)]
    if dynamic:
        _name_axes(model)
        smallest = _smallest(exported)
        entries["smallest_size"] = json.dumps(smallest)
        height, width = max(height, smallest[0]), max(width, smallest[1])
        # another batch size, and sides that strides do not divide
        other = max(height * 3 // 4 | 1, 65, smallest[0]), max(width * 2 // 3 | 1, 65, smallest[1])
        sizes = [(batch_size, height, width), (2, *other)]
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model, full_check=True)
    return _write(model.SerializeToString(), path, detector, sizes if check else [])


def check_packages() -> None:
    """Raise ExportError if a package for export is missing or torch is too old."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"Exporting needs {', '.join(missing)}: not installed. Run: "
            f"pip install {' '.join(PACKAGES)}"
        )
    if not hasattr(torch.onnx, "ops"):
        raise ExportError(
            f"Exporting needs torch 2.8 or later, but this is torch {torch.__version__}. Running "
            "the exported file does not need torch."
        )


def _check(detector: nn.Module, path: Path, image_size: tuple[int, int] | None) -> None:
    if not isinstance(detector, FastDETR):
        raise ExportError(
            f"{type(detector).__name__} cannot be exported: this command is for FastDETR; for "
            "mmdet's own detectors use MMDeploy."
        )
    if image_size is not None and min(image_size) < 1:
        raise ExportError(f"image_size={image_size} must be a height and a width above 0.")
    check_destination(path)


def _check_padding(detector: Any) -> None:
    """Refuse a detector whose ``predict`` runs each padded image by itself."""
    parts = (detector.transformer.encoder, *detector.transformer.decoder.modules())
    found = [type(p).__name__ for p in parts if getattr(p, "ignore_padding", False)]
    key = f"ignore_padding=True ({found[0]})" if found else "model.test_cfg.separate_sizes=True"
    if found or detector.separate_sizes:
        raise ExportError(
            f"Images of this file are padded, but {key} does not read padding. Add --dynamic, or "
            "set the key to False by --cfg-options."
        )


@torch.no_grad()
def _with_two_cells(detector: Any, channels: int, height: int, width: int) -> tuple[int, int]:
    """Double the size until every feature map has at least two rows and columns."""
    while True:
        maps = detector.extract_feat(torch.zeros(1, channels, height, width))
        rows, columns = (min(x.shape[axis] for x in maps) for axis in (-2, -1))
        if (rows > 1 and columns > 1) or max(height, width) > 4096:  # may be always one cell
            return height, width
        height, width = height * (1 + (rows < 2)), width * (1 + (columns < 2))


def _trace(graph: nn.Module, inputs: Sequence[Tensor], dynamic: bool) -> Any:
    """Trace with torch.export; raise an error if a part fixes a free size."""
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {axis: free for axis in (AXES if given.dim() == 4 else (0,))} if dynamic else None
        for given in inputs
    )
    try:
        return torch.export.export(graph, tuple(inputs), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # parts may raise anything
        what = "with free image sizes" if dynamic else "at all"
        advice = "; leave --dynamic out to fix the image size" if dynamic else ""
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ExportError(
            f"This model cannot be exported {what}: torch.export stops with "
            f"{type(error).__name__} ({reason.strip()[:300]}){advice}."
        ) from error


def _smallest(exported: Any) -> list[int]:
    """Smallest (height, width) of the traced graph."""
    (images,) = (node.meta["val"] for node in exported.graph.nodes if node.name == "images")
    ranges = exported.range_constraints
    return [int(ranges[images.shape[axis].node.expr].lower) for axis in (2, 3)]


def _name_axes(model: Any) -> None:
    """Name the free axes instead of torch's symbols and expressions."""
    axes = model.graph.input[0].type.tensor_type.shape.dim
    names = {axes[axis].dim_param: name for axis, name in AXES.items()}
    for output in model.graph.output:  # fewer two-stage queries on small images
        found = output.type.tensor_type.shape.dim[1].dim_param
        if found:
            names.setdefault(found, DETECTIONS)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _write(
    content: bytes, path: Path, detector: nn.Module, sizes: Sequence[tuple[int, int, int]]
) -> list[Comparison]:
    """Write the file if it agrees with the detector at all sizes."""
    comparisons = []
    for size in sizes:
        comparisons.append(compare(content, detector, size))
        if not comparisons[-1].agrees():
            raise ExportError(
                f"{path} was not written, because onnxruntime disagrees with PyTorch: "
                f"{comparisons[-1]}. Please report this with the config."
            )
    write_atomically(path, content)
    return comparisons


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the exporter's notices, such as that torchvision is missing."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
