"""A FastDETR predicts only with a checkpoint that has all of its weights.

mmengine only logs that weights are missing or of another shape, and leaves them random: a training
with another ``num_queries`` than in the config at hand gives noise.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.apis import det_inferencer, inference
from mmengine.infer import infer
from torch import nn

from .files import weights_of
from .loading import fill
from .safe_loading import CheckpointError


def lacking(model: nn.Module, checkpoint: Mapping[str, Any]) -> str:
    """Describe the weights of a FastDETR that a checkpoint lacks; "" for other models."""
    from ..models import FastDETR

    if not isinstance(model, FastDETR) or not weights_of(dict(checkpoint)):
        return ""
    return fill(model, dict(checkpoint))


def refusal(found: str, file: str | None) -> CheckpointError:
    """Return the error; it names the config beside the checkpoint."""
    beside = sorted(Path(file).parent.glob("*.py")) if file else []
    known = f" That is {beside[0]}." if beside else ""
    return CheckpointError(
        f"The checkpoint {file or 'given'} does not belong to the config: {found}. Use the config "
        f"that it was trained with.{known}"
    )


def refuse_others() -> None:
    """Make ``init_detector`` and ``DetInferencer`` refuse the checkpoint of another model."""
    load, to_model = inference.load_checkpoint, det_inferencer._load_checkpoint_to_model
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def load_checkpoint(model: nn.Module, filename: str, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load(model, filename, *args, **kwargs)
        if found := lacking(model, checkpoint):
            raise refusal(found, str(filename))
        return checkpoint

    read = infer._load_checkpoint

    @functools.wraps(read)
    def read_checkpoint(filename: str, *args: Any, **kwargs: Any) -> Any:
        content = read(filename, *args, **kwargs)
        names[:] = [(id(content), str(filename))]  # DetInferencer forgets it
        return content

    names: list[tuple[int, str]] = []

    @functools.wraps(to_model)
    def load_to_model(model: nn.Module, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        loaded = to_model(model, checkpoint, *args, **kwargs)
        if found := lacking(model, checkpoint):
            raise refusal(found, dict(names).get(id(checkpoint)))
        return loaded

    inference.load_checkpoint, infer._load_checkpoint = load_checkpoint, read_checkpoint
    det_inferencer._load_checkpoint_to_model = load_to_model
