"""What a training step with numbers that are not finite is told in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...structures.targets import name_image


@dataclass
class Update:
    """What is known of the update of the weights that is under way.

    Attributes:
        batches: From the data loader; several when gradients are accumulated.
        losses: Of every batch, by name; on the device.
        failure: What the matcher said of outputs that are not finite.
        bad_loss_anywhere: Whether a loss of any process is not finite, as far as they have told one
            another.
        bad_gradient: Whether the norm of the gradient is not finite.
        parameters: The first parameters with such gradients, and what they hold.
        loss_scale: At which the gradient still overflowed, if that was what stopped it.
        settled: Whether it has been skipped.
    """

    batches: list[Any] = field(default_factory=list)
    losses: list[dict[str, Tensor]] = field(default_factory=list)
    failure: ValueError | None = None
    bad_loss_anywhere: bool = False
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
    """What has happened, in words.

    Args:
        update: What is known of it.
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
    elif update.bad_loss_anywhere:
        what = f"The loss of another process is not finite in {where}."
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
            "images; to leave out up to N such steps give NumbersCheckHook max_skips=N."
        )
    images, spoilt = [], []
    for batch in update.batches:
        if not isinstance(batch, dict):
            continue
        pixels = batch.get("inputs", ())
        for n, sample in enumerate(batch.get("data_samples") or ()):
            images.append(f"({name_image(sample.metainfo)})")
            if n < len(pixels) and not bool(pixels[n].isfinite().all()):
                spoilt.append(images[-1])
    if spoilt:  # batch norms spread them over the batch, of which another image may be named above
        what += f" There are pixels that are not finite in {', '.join(spoilt)}."
    return f"{what} Images of the step: {', '.join(images) or 'unknown'}."


def _name_term(name: str, losses: dict[str, Tensor]) -> str:
    layer = re.fullmatch(r"d(\d+)\.(\w+)", name)
    if layer:
        return f"{layer[2]} of decoder layer {layer[1]}"
    if name.startswith("enc_loss"):
        return f"{name.removeprefix('enc_')} of the encoder proposals"
    return f"{name} of the last decoder layer" if f"d0.{name}" in losses else name
