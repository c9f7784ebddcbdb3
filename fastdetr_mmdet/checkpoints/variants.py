"""Which shipped config weights belong to, read off their names and shapes.

Every shipped config of the method is built (without memory for its weights) and compared, so that
a new config is recognised without a line here. What a config may say otherwise, such as the number
of queries, is read off the weights first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from .classes import CLASS_BRANCHES, TWO_STAGE, count_classes
from .files import CheckpointError

Shape = tuple[int, ...]
# Blocks of ResNet's third stage -> depth
_DEPTHS = {6: 50, 23: 101, 36: 152}
_SCALE_TYPES = {0: "fixed", 1: "single", 2: "independent", 3: "correlated"}
# Keys that a config need not have, because this is the default
_DEFAULTS = {
    "transformer.decoder.refine": False,
    "bbox_head.share_pred_layer": True,
    "transformer.decoder.spatial_prior.smooth": 8.0,
}


@dataclass(frozen=True)
class Fit:
    """How weights compare with one shipped config.

    Args:
        config: Its path, from the repository's root.
        options: What it has to say otherwise, by the keys of ``--cfg-options``.
        missing: What its model has and the weights lack, by our names.
        surplus: The reverse.
        shapes: (name, found, expected) where they differ.
        dilated: Whether it is a DC5 config.
        epochs: How long it trains.
    """

    config: str
    options: dict[str, Any]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    shapes: tuple[tuple[str, Shape, Shape], ...]
    dilated: bool
    epochs: int

    @property
    def num_problems(self) -> int:
        """Names and shapes that do not agree."""
        return len(self.missing) + len(self.surplus) + len(self.shapes)


def recognise(
    weights: Mapping[str, Tensor],
    method: str,
    class_head: bool = True,
    told: Mapping[str, Any] | None = None,
) -> list[Fit]:
    """The shipped configs that fit the weights best; several if they do so equally well.

    Args:
        weights: By our names.
        method: One of ``METHODS``.
        class_head: Whether the weights should have class branches.
        told: What is known besides, by the keys below ``model``; what the weights say counts more.

    Raises:
        CheckpointError: if no config of the method can be built with what the weights say.
    """
    if method == "mmdet":
        conditional = any(".cross_attn.q_spatial_proj." in key for key in weights)
        method = "conditional_detr" if conditional else "deformable_detr"
    said = {**(told or {}), **read_off(weights)}
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    fits = [_compare(name, said, shapes, class_head) for name in shipped_configs(method)]
    found = [fit for fit in fits if fit is not None]
    if not found:
        values = ", ".join(f"model.{key}={value}" for key, value in said.items())
        raise CheckpointError(
            f"no config of {method} can be built with what its weights and arguments say "
            f"({values})."
        )
    found.sort(key=lambda fit: (fit.dilated, fit.epochs, fit.config))
    best = min((fit.num_problems, len(fit.options)) for fit in found)
    return [fit for fit in found if (fit.num_problems, len(fit.options)) == best]


def read_off(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the weights say about keys below ``model``.

    Args:
        weights: By our names.
    """
    blocks = _count(weights, r"^backbone\.layer3\.(\d+)\.")
    said: dict[str, Any] = {
        "num_queries": _rows(weights, "transformer.queries.pos.weight")
        or _rows(weights, "transformer.queries.reference.weight", columns=4),
        "bbox_head.num_classes": count_classes(weights),
        "backbone.depth": _DEPTHS.get(blocks),
    }
    for part in ("encoder", "decoder"):
        layers = f"transformer.{part}.layers."
        number = _count(weights, rf"^{re.escape(layers)}(\d+)\.")
        said[f"transformer.{part}.num_layers"] = number or None
        hidden = _rows(weights, f"{layers}0.ffn.linear1.weight")
        said[f"transformer.{part}.feedforward_channels"] = hidden
    first = "transformer.decoder.layers.0."
    if f"{first}cross_attn.sampling_offsets.weight" in weights:  # the others' is fixed
        branches = _count(weights, r"^bbox_head\.reg_branches\.(\d+)\.")
        branches -= TWO_STAGE in weights
        said["transformer.decoder.refine"] = branches > 1
        said["bbox_head.share_pred_layer"] = branches <= 1
    offsets = _rows(weights, f"{first}spatial_prior.offset_branch.weight")
    if offsets:
        branch = f"{first}spatial_prior.scale_branch.weight"
        scales = _rows(weights, branch) if branch in weights else 0
        if scales is not None:
            scale_type = _SCALE_TYPES.get(2 * scales // offsets)
            said["transformer.decoder.spatial_prior.scale_type"] = scale_type
    kernel = weights.get("transformer.encoder.layers.0.within.0.weight")
    if kernel is not None and kernel.dim() == 4:
        said["transformer.encoder.kernel_size"] = kernel.shape[-1]
        between = _count(weights, r"^transformer\.encoder\.layers\.0\.down\.(\d+)\.")
        said["transformer.encoder.share_cross_level"] = between == 1
    return {key: value for key, value in said.items() if value is not None}


def describe(weights: Mapping[str, Tensor]) -> str:
    """The variant in words, such as 'ResNet-50, 4 levels, refinement, 300 queries'.

    Args:
        weights: By our names.
    """
    said = read_off(weights)
    levels = _count(weights, r"^neck\.convs\.(\d+)\.") + _count(
        weights, r"^neck\.extra_convs\.(\d+)\."
    )
    words = [f"ResNet-{said.get('backbone.depth', '?')}", f"{levels} level{'s'[levels == 1 :]}"]
    if "neck.convs.0.gn.weight" in weights:
        words.append("GroupNorm in the neck")
    if "transformer.encoder.kernel_size" in said:
        words.append(f"convolutions of {said['transformer.encoder.kernel_size']} in the encoder")
    if _count(weights, r"^bbox_head\.reg_branches\.(\d+)\.") > 1:
        words.append("refinement")
    if TWO_STAGE in weights:
        words.append("two stages")
    scale_type = said.get("transformer.decoder.spatial_prior.scale_type")
    if scale_type:
        words.append(f"Gaussian prior ({scale_type})")
    aligner = "transformer.decoder.layers.0.aligner."
    gate = _rows(weights, f"{aligner}content_gate.weight")
    points = _rows(weights, f"{aligner}point_branch.6.weight")
    squeezed = _rows(weights, f"{aligner}squeeze.weight")
    if gate and points and squeezed:
        heads = gate // (4 * squeezed)  # the gate is heads x width, the squeezed width a quarter
        words.append("Gaussian prior at the salient points" * (points == 4 * heads))
    if "num_queries" in said:
        words.append(f"{said['num_queries']} queries")
    return ", ".join(filter(None, words))


@lru_cache
def shipped_configs(folder: str) -> dict[str, Config]:
    """The configs of a folder below configs/, by their path from the repository's root.

    Raises:
        CheckpointError: if the installation lacks them.
    """
    package = Path(__file__).parents[1]
    copies = package / ".mim" / "configs"  # of an installed wheel; a clone has them at its root
    root = copies if copies.is_dir() else package.parent / "configs"
    files = sorted((root / folder).glob("*.py"))
    if not files:
        raise CheckpointError(
            f"this installation of fastdetr_mmdet has no configs in {root / folder}; install it "
            "from a clone or a wheel."
        )
    register_all_modules(init_default_scope=False)
    return {f"configs/{folder}/{file.name}": Config.fromfile(file) for file in files}


def _compare(
    name: str, said: Mapping[str, Any], shapes: Mapping[str, Shape], class_head: bool
) -> Fit | None:
    config = shipped_configs(name.split("/")[1])[name]
    model = config.model.to_dict()
    changes = {}
    for key, value in said.items():
        own = _get(model, key)
        if own is not None and own != value:
            changes[key] = value
    expected = _model_shapes(name, tuple(changes.items()))
    if expected is None:
        return None
    if not class_head:
        expected = {k: v for k, v in expected.items() if not k.startswith(CLASS_BRANCHES)}
    if "backbone.depth" in changes:  # the weights hold the backbone; the config's would not fit
        changes["backbone.init_cfg"] = None
    missing = [key for key in expected if key not in shapes]
    return Fit(
        config=name,
        options={f"model.{key}": value for key, value in changes.items()},
        # frozen batch norms of the official codes do not count batches, and nothing reads it
        missing=tuple(key for key in missing if not key.endswith(".num_batches_tracked")),
        surplus=tuple(key for key in shapes if key not in expected),
        shapes=tuple(
            (key, shape, expected[key])
            for key, shape in shapes.items()
            if expected.get(key, shape) != shape
        ),
        dilated=model["backbone"]["type"] == "DilatedResNet",
        epochs=config.train_cfg.max_epochs,
    )


@lru_cache(maxsize=256)
def _model_shapes(name: str, changes: tuple[tuple[str, Any], ...]) -> dict[str, Shape] | None:
    """Parameters and buffers of a config's model; None if its parts refuse the changes."""
    config = Config(dict(model=shipped_configs(name.split("/")[1])[name].model.to_dict()))
    config.merge_from_dict({f"model.{key}": value for key, value in changes})
    config.model.backbone.init_cfg = None
    try:
        with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
            model = MODELS.build(config.model)
    except (TypeError, ValueError):
        return None
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _get(model: Any, key: str) -> Any:
    """The value of a dotted key; None where the config's parts do not have it."""
    for name in key.split("."):
        model = model.get(name) if isinstance(model, dict) else None
    return _DEFAULTS.get(key) if model is None else model


def _rows(weights: Mapping[str, Tensor], key: str, columns: int | None = None) -> int | None:
    tensor = weights.get(key)
    if tensor is None or tensor.dim() == 0:
        return None
    if columns is not None and tuple(tensor.shape[1:]) != (columns,):
        return None
    return len(tensor)


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number in the names that match; 0 if none does.

    At most twice as many as there are, so that a strange name does not make for a huge model.
    """
    found = [re.match(pattern, key) for key in weights]
    numbers = {int(match[1]) for match in found if match}
    return min(max(numbers, default=-1) + 1, 2 * len(numbers))
