"""Load checkpoints for prediction: all weights of the model, or an error."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation import get_classes
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..utils.cli import UsageError
from ..utils.config import read_config
from .embedded_config import other_size
from .files import dataset_meta, read_content, weights_of
from .safe_loading import CheckpointError

_COUNTER = "num_batches_tracked"  # of batch norm; does not change results


def load_detector(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str | None = "cpu",
    cfg_options: dict | None = None,
) -> nn.Module:
    """Like mmdet's ``init_detector``, but refuse a checkpoint that would leave weights random.

    mmengine only logs weights that are missing or have another shape. Surplus weights are ignored.

    Args:
        config: Config of the model.
        checkpoint: File or URL; read as data only.
        device: Device of the model; None: a GPU if available.
        cfg_options: Changes of the config.

    Raises:
        UsageError: if the config or checkpoint does not exist, or the config has no detector.
        CheckpointRefusedError: if the checkpoint is not plain data.
        CheckpointError: if the checkpoint is damaged or does not fit the model.
    """
    given = [checkpoint] if isinstance(config, Config) else [config, checkpoint]
    for what, path in zip(("checkpoint", "config"), reversed(given), strict=False):
        # URLs are checked by reading
        if "://" not in str(path) and not Path(path).is_file():
            raise UsageError(f"There is no {what} {path}. Give the path of a file.")
    if not isinstance(config, Config):
        config = read_config(config)
    missing = [key for key in ("model", "test_dataloader") if key not in config]
    if missing:
        raise UsageError(
            f"{config.filename or 'The config'} has no {' and no '.join(missing)}; give the config "
            "that the checkpoint was trained with."
        )
    content = read_content(checkpoint)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if cfg_options:
        config.merge_from_dict(cfg_options)
    if text := other_size(config, content):
        warnings.warn(text, stacklevel=2)
    model = _build(config, content, device)
    found = fill(model, content)
    if found:
        raise CheckpointError(
            f"{checkpoint} does not belong to {config.filename or 'the config'}: {found}. Give the "
            "config that it was trained with."
        )
    return model


def _build(config: Config, content: dict[str, Any], device: str) -> Any:
    """Build the model, without weights, with its config and class names."""
    init_default_scope(config.get("default_scope", "mmdet"))
    with contextlib.redirect_stdout(io.StringIO()):  # parts may print
        model: Any = revert_sync_batchnorm(MODELS.build(config.model))
        data = DATASETS.build(dict(config.test_dataloader.dataset, lazy_init=True))
    model.dataset_meta = _classes(content)
    palette = data.metainfo.get("palette") or model.dataset_meta.get("palette", "random")
    model.dataset_meta["palette"] = palette
    model.cfg = config  # read by mmdet's inferencers and the attention viewer
    return model.to(device).eval()


def _classes(content: dict[str, Any]) -> dict[str, Any]:
    """Meta information of a checkpoint's training data, keys in lower case."""
    meta = content.get("meta")
    known = dataset_meta(meta)
    if known is not None:
        return known
    if isinstance(meta, Mapping) and "CLASSES" in meta:  # mmdet before 3.0
        return {"classes": meta["CLASSES"]}
    warnings.warn("The checkpoint has no class names; using COCO's.", stacklevel=4)
    return {"classes": get_classes("coco")}


def fill(model: nn.Module, content: dict[str, Any], unknown: bool = False) -> str:
    """Load a checkpoint's weights, and describe weights of the model that it lacks.

    Args:
        model: Gets all weights that fit.
        content: From ``read_content``.
        unknown: Whether surplus weights count as errors, too.

    Returns:
        "" if all weights fit; else for example "of 210 weights 2 missing, for example NAME".
    """
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    source = weights_of(content)
    try:
        missing, turned, extra = load_fitting(model, source)
    except RuntimeError as error:  # for example another shape under an older name
        return " ".join(str(error).split())[:300]
    wrong = {"missing": missing, "of another shape": turned}
    wrong["unknown to the model"] = extra if unknown else []
    said = ", ".join(f"{len(keys)} {what}" for what, keys in wrong.items() if keys)
    if not said:
        return ""
    example = [*missing, *turned, *extra][0]
    if example in turned:
        shapes = tuple(turned[example].shape), tuple(own[example].shape)
        example += f", {shapes[0]} in the file and {shapes[1]} in the model"
    total = sum(_COUNTER not in key for key in own)
    return f"of {total} weights {said}, for example {example}"


def load_fitting(
    model: nn.Module, source: Mapping[str, Any]
) -> tuple[list[str], dict[str, Tensor], list[str]]:
    """Load the entries of a state dict that fit.

    Returns:
        Missing weights; weights of another shape, as in the state dict; surplus names.
    """
    weights = OrderedDict((re.sub(r"^module\.", "", key), value) for key, value in source.items())
    own = model.state_dict()
    turned = {
        key: value
        for key, value in weights.items()
        if isinstance(value, Tensor)
        and isinstance(own.get(key), Tensor)
        and value.shape != own[key].shape
    }
    fitting = OrderedDict((key, value) for key, value in weights.items() if key not in turned)
    if hasattr(source, "_metadata"):  # versions, which modules use to rename older keys
        fitting._metadata = source._metadata  # type: ignore[attr-defined]
    result = model.load_state_dict(fitting, strict=False)
    missing = [k for k in result.missing_keys if k not in turned and _COUNTER not in k]
    return missing, turned, [key for key in result.unexpected_keys if _COUNTER not in key]
