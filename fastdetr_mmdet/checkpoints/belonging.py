"""Refuse to predict with a checkpoint that lacks weights of a FastDETR.

mmengine only logs weights that are missing or have another shape, and leaves them random: with
another ``num_queries`` than in training, a model would predict noise.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.apis import det_inferencer, inference
from mmengine.infer import infer
from mmengine.runner import CheckpointLoader
from torch import nn

from .files import weights_of
from .loading import fill
from .safe_loading import CheckpointError

_MOST = 4  # names per line


def lacking(model: nn.Module, checkpoint: Mapping[str, Any]) -> str:
    """Describe the weights of a FastDETR that a checkpoint lacks; "" for other models."""
    if not _is_ours(model) or not weights_of(dict(checkpoint)):
        return ""
    return fill(model, dict(checkpoint))


def _is_ours(model: nn.Module) -> bool:
    from ..models import FastDETR

    return isinstance(model, FastDETR)


def load_whole(model: nn.Module, checkpoint: dict[str, Any], file: str | None) -> dict[str, Any]:
    """Load a FastDETR's checkpoint, or refuse it; log surplus weights in one line.

    Returns:
        The checkpoint with the model's weights, so that mmengine does not print each one that does
        not fit.
    """
    if found := lacking(model, checkpoint):
        raise refusal(found, file)
    return without_surplus(model, checkpoint)


def without_surplus(
    model: nn.Module, checkpoint: dict[str, Any], say: Callable[[str], Any] = print
) -> dict[str, Any]:
    """Replace a checkpoint's weights by those of the model loaded from it; report surplus ones."""
    own = model.state_dict()
    names = (key.removeprefix("module.") for key in weights_of(checkpoint))
    surplus = [key for key in names if key not in own and not key.startswith("aux_heads.")]
    if surplus:
        place = f"{len(surplus)} weights of the checkpoint have no place in the model"
        say(f"{place}: {by_part(surplus)}.")
    return {**checkpoint, "state_dict": own}


def by_part(keys: Iterable[str]) -> str:
    """Count weights per part, such as "neck.convs (4), ..."; the four largest."""
    parts = Counter(".".join(key.split(".")[:2]) for key in keys)
    return shorten([f"{part} ({count})" for part, count in parts.most_common()])


def shorten(words: Sequence[str]) -> str:
    """The first four of a list."""
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    return ", ".join(words[:_MOST]) + more


def refusal(found: str, file: str | None) -> CheckpointError:
    """Return the error; it names the config next to the checkpoint."""
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
        if not _is_ours(model):
            return load(model, filename, *args, **kwargs)
        checkpoint = CheckpointLoader.load_checkpoint(filename, *args, **kwargs)
        load_whole(model, checkpoint, str(filename))
        return checkpoint

    read = infer._load_checkpoint

    @functools.wraps(read)
    def read_checkpoint(filename: str, *args: Any, **kwargs: Any) -> Any:
        content = read(filename, *args, **kwargs)
        names[:] = [(id(content), str(filename))]  # DetInferencer does not keep it
        return content

    names: list[tuple[int, str]] = []

    @functools.wraps(to_model)
    def load_to_model(model: nn.Module, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_ours(model):
            checkpoint = load_whole(model, checkpoint, dict(names).get(id(checkpoint)))
        return to_model(model, checkpoint, *args, **kwargs)

    inference.load_checkpoint, infer._load_checkpoint = load_checkpoint, read_checkpoint
    det_inferencer._load_checkpoint_to_model = load_to_model
