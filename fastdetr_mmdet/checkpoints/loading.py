"""Load all weights of a model, or describe what a checkpoint lacks."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
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

    Args:
        config: Config of the model.
        checkpoint: File or URL; read as data only. Surplus weights are ignored.
        device: Device of the model; None: a GPU if available.
        cfg_options: Changes of the config.

    Raises:
        UsageError: if the config or checkpoint does not exist, or the config has no detector.
        CheckpointRefusedError: if the checkpoint is not plain data.
        CheckpointError: if the checkpoint is damaged or does not fit the model.
    """
    for what, given in (("config", config), ("checkpoint", checkpoint)):
        there = isinstance(given, Config) or "://" in str(given) or Path(given).is_file()
        if not there:  # URLs are checked by reading
            raise UsageError(f"There is no {what} {given}. Give the path of a file.")
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
    if found := fill(model, content):
        raise refusal(found, checkpoint, config.filename)
    return model


def _build(config: Config, content: dict[str, Any], device: str) -> Any:
    """Build the model, without weights, with its config and class names."""
    init_default_scope(config.get("default_scope", "mmdet"))
    with contextlib.redirect_stdout(io.StringIO()):  # parts may print
        model: Any = revert_sync_batchnorm(MODELS.build(config.model))
        data = DATASETS.build(dict(config.test_dataloader.dataset, lazy_init=True))
    known = dataset_meta(content.get("meta"))
    if not known:
        warnings.warn("The checkpoint has no class names; using COCO's.", stacklevel=3)
        known = {"classes": get_classes("coco")}
    palette = data.metainfo.get("palette") or known.get("palette", "random")
    model.dataset_meta = {**known, "palette": palette}
    model.cfg = config  # read by mmdet's inferencers and the attention viewer
    return model.to(device).eval()


def refusal(found: str, file: Any, config: str | None = None) -> CheckpointError:
    """Return the error for what ``fill`` found; it names the config next to the checkpoint."""
    beside = sorted(Path(file).parent.glob("*.py")) if file else []
    other = not config or Path(config).resolve() not in map(Path.resolve, beside)
    known = f" That is {beside[0]}." if beside and other else ""
    return CheckpointError(
        f"{file or 'The checkpoint'} does not belong to {config or 'the config'}: {found}. Use the "
        f"config that it was trained with.{known}"
    )


def load_whole(model: nn.Module, content: dict[str, Any], file: str | None) -> dict[str, Any]:
    """Load a checkpoint, or refuse it; see ``without_surplus`` for what is returned."""
    if found := fill(model, content):
        raise refusal(found, file)
    return without_surplus(model, content)


def without_surplus(
    model: nn.Module, content: dict[str, Any], say: Callable[[str], Any] = print
) -> dict[str, Any]:
    """Replace a checkpoint's weights by those of the model loaded from it.

    So mmengine does not print each weight that does not fit; surplus ones are reported in one line.
    """
    own = model.state_dict()
    names = (key.removeprefix("module.") for key in weights_of(content))
    surplus = [key for key in names if key not in own and not key.startswith("aux_heads.")]
    if surplus:
        place = f"{len(surplus)} weights of the checkpoint have no place in the model"
        say(f"{place}: {by_part(surplus)}.")
    return {**content, "state_dict": own}


def by_part(keys: Iterable[str]) -> str:
    """Count weights per part, such as "neck.convs (4), ..."; the four largest."""
    parts = Counter(".".join(key.split(".")[:2]) for key in keys)
    return shorten([f"{part} ({count})" for part, count in parts.most_common()])


def shorten(words: Sequence[str], most: int = 4) -> str:
    """List the first words, and count the others."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def fill(model: nn.Module, content: dict[str, Any], unknown: bool = False) -> str:
    """Load a checkpoint's weights that fit, and describe weights of the model that it lacks.

    Args:
        unknown: Whether surplus weights count as errors, too.

    Returns:
        "" if all weights fit; else for example "of 210 weights 2 missing, for example NAME".
    """
    try:
        missing, turned, extra = load_fitting(model, weights_of(content))
    except RuntimeError as error:  # for example another shape under an older name
        return " ".join(str(error).split())[:300]
    wrong = {"missing": missing, "of another shape": [*turned]}
    wrong["unknown to the model"] = extra if unknown else []
    said = ", ".join(f"{len(keys)} {what}" for what, keys in wrong.items() if keys)
    if not said:
        return ""
    own = model.state_dict()
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
    own = model.state_dict()
    fitting: OrderedDict[str, Any] = OrderedDict()
    turned: dict[str, Tensor] = {}
    for key, value in source.items():
        key = key.removeprefix("module.")
        unfit = isinstance(value, Tensor) and value.shape != own.get(key, value).shape
        (turned if unfit else fitting)[key] = value
    if hasattr(source, "_metadata"):  # versions, which modules use to rename older keys
        fitting._metadata = source._metadata  # type: ignore[attr-defined]
    result = model.load_state_dict(fitting, strict=False)
    missing = [k for k in result.missing_keys if k not in turned and _COUNTER not in k]
    return missing, turned, [key for key in result.unexpected_keys if _COUNTER not in key]
