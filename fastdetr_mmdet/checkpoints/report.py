"""What a conversion tells its user."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .classes import TWO_STAGE
from .variants import Fit


@dataclass(frozen=True)
class Report:
    """What a conversion found; as a string, what the command prints.

    Args:
        method: As given.
        variant: What was recognised, in words.
        destination: The file written.
        configs: Every shipped config that the weights fit, by its path from the repository's root.
        options: What each of them has to say otherwise, by the keys of ``--cfg-options``.
        found_classes: Logits of the class branches in the file; None if it has none.
        num_classes: Logits that were written; None if the class branches were left out.
        num_tensors: Tensors written.
        notes: Sentences about what the weights do not tell, and what follows.
    """

    method: str
    variant: str
    destination: Path
    configs: tuple[str, ...]
    options: dict[str, Any]
    found_classes: int | None
    num_classes: int | None
    num_tensors: int
    notes: tuple[str, ...]

    @property
    def command(self) -> str:
        """What to run next, in a shell: mim test, or mim train where class branches are missing."""
        if self.num_classes is None:
            options = {**self.options, "load_from": self.destination}
            words = ["mim", "train", "fastdetr_mmdet", self.configs[0]]
        else:
            options = self.options
            words = ["mim", "test", "fastdetr_mmdet", self.configs[0], "-C", str(self.destination)]
        if options:
            words += ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
        return shlex.join(words)

    def __str__(self) -> str:
        classes = "class branches left out"
        if self.num_classes is not None:
            kept = self.found_classes == self.num_classes
            classes = f"{'' if kept else f'{self.found_classes} -> '}{self.num_classes} classes"
        lines = [
            f"Wrote {self.destination}: {self.method}, {self.num_tensors} tensors, {classes}.",
            f"Recognised: {self.variant}.",
            "Config:",
            *(f"    {config}" for config in self.configs),
        ]
        if self.options:
            lines.append("No shipped config says all of this by itself; give it these options:")
            lines += [f"    {key}={value}" for key, value in self.options.items()]
        return "\n".join([*lines, *self.notes, "Next:", f"    {self.command}"])


def notes(
    fits: Sequence[Fit],
    weights: Mapping[str, Tensor],
    num_classes: int | None,
    arguments: Mapping[str, Any],
    coco_ids: bool,
) -> Iterable[str]:
    """Sentences about what the weights do not tell, and about their classes.

    Args:
        fits: The configs that fit.
        weights: By our names.
        num_classes: Logits that are written; None if the class branches are left out.
        arguments: The official command line, if the file holds it.
        coco_ids: Whether the logits of the file are COCO's category ids.
    """
    dilation = arguments.get("dilation")
    dilated = {fit.dilated for fit in fits}
    if len(dilated) > 1 and isinstance(dilation, bool):
        yield (
            "DC5 (a dilated last stage) leaves no trace in weights, but the file's own arguments "
            f"say dilation={dilation}."
        )
    elif len(dilated) > 1:
        yield (
            "DC5 (a dilated last stage) leaves no trace in weights: take a config with dc5 in its "
            "name if the file's name or its origin says DC5, else one without."
        )
    elif dilation is True and dilated == {False}:
        yield (
            "Careful: the file's own arguments say dilation=True, that is DC5, of which there is "
            "no config for these weights. As they are, the configs compute something else; see "
            "how the other dc5 configs change the backbone."
        )
    epochs = sorted({fit.epochs for fit in fits})
    if len(epochs) > 1:
        numbers = " and ".join(map(str, epochs))
        yield f"The configs of {numbers} epochs have one architecture, and test alike."
    if TWO_STAGE in weights and "num_queries" not in arguments:
        yield "Two-stage weights do not tell the number of queries: the published model has 300."
    if num_classes is None:
        yield (
            "Without class branches the file is for load_from: set model.bbox_head.num_classes "
            "and the data set to your classes. mmengine will list bbox_head.cls_branches as "
            "missing and train them from random weights."
        )
    elif coco_ids and num_classes != 80:
        yield (
            "The labels are COCO's category ids. mmdet's COCO data set has 80 labels, so testing "
            "on it needs the conversion with --classes 80."
        )
    elif num_classes != 80:
        yield f"The config's data set has COCO's 80 classes: give it the file's {num_classes}."
