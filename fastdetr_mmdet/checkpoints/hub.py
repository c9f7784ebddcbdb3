"""Read Hugging Face models: a folder of config.json and weights, in one file or shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import Source, read_checkpoint
from .safe_loading import CheckpointError

# In transformers' order of search.
_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_MODELS = ("deformable_detr", "conditional_detr", "detr")
# Settings that this package's models need in config.json.
_ONLY = {"activation_function": "relu", "position_embedding_type": "sine"}


def read_hub(path: Path) -> Source:
    """Read a model of the hub.

    Args:
        path: Its folder, a file of weights, or the index of a sharded model; config.json next to
            the weights is optional.

    Raises:
        CheckpointError: if weights are missing, or config.json names an unsupported model.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        names = [name + end for name in _FILES for end in ("", _INDEX)]
        path = next((path / name for name in names if (path / name).is_file()), path)
        if path == folder:
            raise CheckpointError(f"{path} holds no weights: none of {', '.join(names)}.")
    weights = {}
    for part in _shards(path) if path.name.endswith(_INDEX) else [path]:
        weights.update(read_checkpoint(part).weights)
    return Source(weights, *_told_by(folder / "config.json"))


def _shards(index: Path) -> list[Path]:
    names = set(_read_json(index, "weight_map").values())
    if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
        raise CheckpointError(f"{index} names no files in its folder in weight_map.")
    return [index.parent / name for name in sorted(names)]


def _told_by(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Class names and settings from config.json."""
    if not file.is_file():
        return {}, {}
    config = _read_json(file)
    model = config.get("model_type")
    if model not in _MODELS:
        raise CheckpointError(f"{file} says model_type={model!r}; known: {', '.join(_MODELS)}.")
    wrong = [f"{k}={config[k]!r}" for k, v in _ONLY.items() if config.get(k, v) != v]
    if model == "conditional_detr" and config.get("auxiliary_loss"):
        wrong.append("auxiliary_loss=True, with which transformers normalises each layer's output")
    if wrong:
        raise CheckpointError(f"{file} says {', '.join(wrong)}: this package has no such model.")
    queries = "two_stage_num_proposals" if config.get("two_stage") else "num_queries"
    told = dict(dilation="dilation", nheads="encoder_attention_heads", num_queries=queries)
    arguments = {name: config[key] for name, key in told.items() if key in config}
    names = config.get("id2label")
    meta: dict[str, Any] = {}
    if isinstance(names, Mapping) and [*names] == [str(n) for n in range(len(names))]:
        meta["dataset_meta"] = dict(classes=tuple(map(str, names.values())))
    return meta, arguments


def _read_json(file: Path, entry: str | None = None) -> dict[str, Any]:
    """Read a dict from a JSON file, or from an entry of it."""
    try:
        content = json.loads(file.read_bytes())
        content = content[entry] if entry else content
        if isinstance(content, dict):
            return content
        raise TypeError("not a dict")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"an index with {entry}" if entry else "a config of transformers"
        raise CheckpointError(f"{file} is not {what} ({type(error).__name__}: {error}).") from error
