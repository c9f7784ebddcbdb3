"""What is reported of a training step with numbers that are not finite."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ...structures.targets import name_image
from ...utils.files import write_atomically


@dataclass
class Update:
    """What is known of the update of the weights that is under way.

    Attributes:
        batches: From the data loader; several when gradients are accumulated.
        losses: Of every batch, by name; on the device.
        failure: The matcher's error.
        fatal: Whether that is not about numbers, so that skipping does not help.
        bad_loss: Whether a loss of an earlier batch of the update is not finite.
        bad_gradient: Whether the norm of the gradient is not finite.
        parameters: The first parameters with such gradients, and their values.
        loss_scale: At which the gradient still overflowed, if that is the reason to stop.
        settled: Whether it has been skipped.
    """

    batches: list[Any] = field(default_factory=list)
    losses: list[dict[str, Tensor]] = field(default_factory=list)
    failure: ValueError | None = None
    fatal: bool = False
    bad_loss: bool = False
    bad_gradient: bool = False
    parameters: list[str] = field(default_factory=list)
    loss_scale: float | None = None
    settled: bool = False


def name_bad_gradients(model: nn.Module, most: int = 5) -> list[str]:
    """The first parameters with gradients that are not finite, and how many values are not."""
    found = []
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None or gradient.numel() == 0:
            continue
        nans, infinite = int(gradient.isnan().sum()), int(gradient.isinf().sum())
        if nans or infinite:
            found.append(f"{name} ({nans} NaN and {infinite} infinite of {gradient.numel()})")
    if len(found) > most:
        found[most:] = [f"and {len(found) - most} more parameters"]
    return found


def describe(update: Update, where: str, processes: int) -> str:
    """Say what has happened.

    Args:
        update: The facts.
        where: The iteration.
        processes: How many take part.
    """
    terms = [
        f"{_name_term(name, losses)} is {float(value.mean())}"
        for losses in update.losses
        for name, value in losses.items()
        if not bool(value.isfinite().all())
    ]
    if update.failure is not None:
        what = f"{update.failure} This was {where}."
    elif terms:
        what = f"The loss is not finite in {where}: {', '.join(terms)}."
    else:
        what = f"The gradient is not finite in {where}, although this process's loss is: "
        what += ", ".join(update.parameters) or "no float holds its norm"
        if update.loss_scale is not None:
            what += f"; a loss scale of {update.loss_scale:g} does not help"
        what += "."
        if processes > 1:
            what += " It is the mean over all processes: the images of another may be the cause."
    if update.failure is None:
        what += (
            " Lower the learning rate or clip gradients (optim_wrapper.clip_grad), and check the "
            "images; to skip up to N such steps give NumbersCheckHook max_skips=N."
        )
    images, bad = [], []
    for batch in update.batches:
        if not isinstance(batch, dict):
            continue
        pixels = batch.get("inputs", ())
        for n, sample in enumerate(batch.get("data_samples") or ()):
            images.append(f"({name_image(sample.metainfo)})")
            if n < len(pixels) and not bool(pixels[n].isfinite().all()):
                bad.append(images[-1])
    if bad:  # batch norms spread them over the batch, of which another image may be named above
        what += f" There are pixels that are not finite in {', '.join(bad)}."
    return f"{what} Images of the step: {', '.join(images) or 'unknown'}."


def _name_term(name: str, losses: dict[str, Tensor]) -> str:
    layer = re.fullmatch(r"d(\d+)\.(\w+)", name)
    if layer:
        return f"{layer[2]} of decoder layer {layer[1]}"
    if name.startswith("enc_loss"):
        return f"{name.removeprefix('enc_')} of the encoder proposals"
    return f"{name} of the last decoder layer" if f"d0.{name}" in losses else name


def write_bundle(path: Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors, to be read by ``torch.load(path, weights_only=True)``.

    Args:
        path: Comes into being whole or not at all; its folder is made.
        content: Batches, data samples, NumPy values and the like are turned into what any torch
            reads without this package; of the rest, the text that ``repr`` gives.

    Raises:
        OSError: if it cannot be written.
    """
    file = io.BytesIO()
    torch.save(as_plain_data(content), file)
    write_atomically(path, file.getvalue())


def as_plain_data(value: Any) -> Any:
    """Dicts, lists, tuples, strings, numbers, None and tensors on the CPU."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, torch.Tensor):
        # a copy, because of a view torch.save would write all that it is a view of
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, BaseDataElement):  # data samples and instances
        return dict(
            metainfo=as_plain_data(dict(value.metainfo_items())),
            **as_plain_data(dict(value.items())),
        )
    if isinstance(value, Mapping):
        return {str(key): as_plain_data(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(map(as_plain_data, value))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(map(as_plain_data, value))
    if isinstance(getattr(value, "tensor", None), torch.Tensor):  # boxes with a type of their own
        return as_plain_data(value.tensor)
    return repr(value)
