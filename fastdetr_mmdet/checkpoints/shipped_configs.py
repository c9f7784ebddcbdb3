"""Find the shipped config that weights fit, by building and comparing each config's model."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch.overrides import TorchFunctionMode

from .classes import CLASS_BRANCHES
from .safe_loading import CheckpointError

Shape = tuple[int, ...]
Options = dict[str, Any]

# Config folders of methods that are not named like their folder.
_FOLDERS = {
    "detrex": ["deformable_detr", "conditional_detr", "dino"],
    "hf": ["deformable_detr", "conditional_detr"],
    "mmdet": ["deformable_detr", "conditional_detr", "dino"],
}
# Options that equal the size of a tensor whose name starts like this.
_SIZES = {
    "num_queries": "transformer.queries.",
    "bbox_head.num_classes": CLASS_BRANCHES,
    "transformer.encoder.feedforward_channels": "transformer.encoder.",
    "transformer.encoder.kernel_size": "transformer.encoder.",
    "transformer.decoder.feedforward_channels": "transformer.decoder.",
}
# Defaults of keys that configs may leave out.
_DEFAULTS = {
    "transformer.decoder.refine": False,
    "bbox_head.share_pred_layer": True,
    "transformer.decoder.spatial_prior.smooth": 8.0,
}
# Other options to try if tensors whose names start like this do not fit.
_CHOICES: dict[str, list[Options]] = {
    # ImageNet weights would be another depth's
    "backbone.": [{"backbone.depth": n, "backbone.init_cfg": None} for n in (50, 101, 152)],
    "bbox_head.": [
        {"transformer.decoder.refine": refine, "bbox_head.share_pred_layer": not refine}
        for refine in (True, False)
    ],
    "transformer.decoder.": [
        {"transformer.decoder.spatial_prior.scale_type": kind}
        for kind in ("fixed", "single", "independent", "correlated")
    ],
    "transformer.encoder.": [
        {"transformer.encoder.share_cross_level": share} for share in (True, False)
    ],
}


class HostLinspace(TorchFunctionMode):
    """Keep linspace on the CPU under ``torch.device("meta")``; mmdet's Swin reads its values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        device = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**device, **(kwargs or {})})


@dataclass(frozen=True)
class Fit:
    """How weights compare with one shipped config."""

    config: str  # path from the repository's root
    options: Options  # changes of the config that fit better, by keys below ``model``
    missing: tuple[str, ...]  # names in the model that the weights lack
    surplus: tuple[str, ...]  # names of weights that the model lacks
    shapes: tuple[tuple[str, Shape, Shape], ...]  # (name, shape in the file, in the model)
    dilated: bool  # whether the config is DC5
    epochs: int

    @property
    def differing(self) -> tuple[str, ...]:
        """Every name that does not fit."""
        return (*self.missing, *self.surplus, *(name for name, _, _ in self.shapes))


def find_configs(
    shapes: Mapping[str, Shape],
    method: str,
    left_out: tuple[str, ...] = (),
    known: Mapping[str, Any] | None = None,
) -> list[Fit]:
    """The shipped configs that fit the weights best; several if they fit equally well.

    Args:
        shapes: The weights' shapes by this package's names.
        method: One of ``METHODS``.
        left_out: Prefixes of names that are not compared.
        known: Options that the file tells besides weights, by keys below ``model``; the weights
            have precedence.

    Raises:
        CheckpointError: if no config of the method can be built with the known options.
    """
    compare = partial(_compare, shapes=shapes, left_out=left_out)
    known = known or {}
    fits = []
    for folder in _FOLDERS.get(method, [method]):
        for name, config in shipped_configs(folder).items():
            said = {key: known[key] for key in known if option_of(config, key) is not None}
            if fit := compare(name, config, said):
                fits.append((fit, config))
    if not fits:
        raise CheckpointError(f"no config of {method} can be built with {dict(known)}.")
    nearest = min(len(fit.differing) for fit, _ in fits)
    found = []
    for fit, config in fits:
        if len(fit.differing) > nearest:
            continue
        choices = [(below, options) for below, several in _CHOICES.items() for options in several]
        for below, options in [*_sizes(config, fit, shapes), *choices]:
            possible = all(option_of(config, key) is not None for key in options)
            if possible and any(key.startswith(below) for key in fit.differing):
                trial = compare(fit.config, config, {**fit.options, **options})
                if trial is not None and len(trial.differing) < len(fit.differing):
                    fit = trial
        found.append(fit)
    best = min((len(fit.differing), len(fit.options)) for fit in found)
    found = [fit for fit in found if (len(fit.differing), len(fit.options)) == best]
    return sorted(found, key=lambda fit: (fit.dilated, fit.epochs, fit.config))


@lru_cache
def shipped_configs(folder: str) -> dict[str, Config]:
    """The configs of a folder below configs/, by their path from the repository's root.

    Raises:
        CheckpointError: if the installation lacks them.
    """
    package = Path(__file__).parents[1]
    copies = package / ".mim" / "configs"  # installed wheel; a clone has configs at its root
    root = copies if copies.is_dir() else package.parent / "configs"
    files = sorted((root / folder).glob("*.py"))
    if not files:
        raise CheckpointError(
            f"this installation of fastdetr_mmdet has no configs in {root / folder}. Install it "
            "from a clone or a wheel."
        )
    register_all_modules(init_default_scope=False)
    return {f"configs/{folder}/{file.name}": Config.fromfile(file) for file in files}


def _compare(
    name: str,
    config: Config,
    options: Options,
    shapes: Mapping[str, Shape],
    left_out: tuple[str, ...],
) -> Fit | None:
    """Compare with a config's model; None if the model cannot be built."""
    changed = _changed(config, options)
    changed.model.backbone.init_cfg = None
    expected = _shapes(repr(changed.model.to_dict()))
    if expected is None:
        return None
    expected = {k: v for k, v in expected.items() if not k.startswith(left_out)}
    missing = [key for key in expected if key not in shapes]
    return Fit(
        config=name,
        options={key: value for key, value in options.items() if option_of(config, key) != value},
        # the official codes' frozen batch norms have no counters
        missing=tuple(key for key in missing if not key.endswith(".num_batches_tracked")),
        surplus=tuple(key for key in shapes if key not in expected),
        shapes=tuple(
            (key, shape, expected[key])
            for key, shape in shapes.items()
            if expected.get(key, shape) != shape
        ),
        dilated=config.model.backbone.type == "DilatedResNet",
        epochs=config.train_cfg.max_epochs,
    )


def _sizes(config: Config, fit: Fit, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Options]]:
    """Options to try, with sizes of the weights."""
    for part in ("encoder", "decoder"):
        below = f"transformer.{part}.layers."
        layers = {key.removeprefix(below).split(".")[0] for key in shapes if key.startswith(below)}
        if layers:
            yield below, {f"transformer.{part}.num_layers": len(layers)}
    point_head = "transformer.decoder.ref_point_head.0."
    if (weight := shapes.get(f"{point_head}weight")) is not None:
        yield point_head, {"transformer.decoder.reference_feats": weight[1] // 4}
    for option, below in _SIZES.items():
        own = fit.options.get(option, option_of(config, option))
        pairs = [
            pair
            for key, found, expected in fit.shapes
            if key.startswith(below) and len(found) == len(expected)
            for pair in zip(found, expected, strict=True)
        ]
        for size in sorted({found for found, expected in pairs if expected == own != found}):
            yield below, {option: size}


def option_of(config: Config, key: str) -> Any:
    """Value of a dotted key below ``model``; None if the config does not have it."""
    *parts, last = key.split(".")
    value = config.get("model")
    for name in parts:
        value = value.get(name) if isinstance(value, dict) else None
    return value.get(last, _DEFAULTS.get(key)) if isinstance(value, dict) else None


def config_of(fit: Fit) -> Config:
    """The model's config, with the changes."""
    return _changed(shipped_configs(fit.config.split("/")[1])[fit.config], fit.options)


def _changed(config: Config, options: Options) -> Config:
    changed = Config(dict(model=config.model.to_dict()))
    changed.merge_from_dict({f"model.{key}": value for key, value in options.items()})
    return changed


@lru_cache(maxsize=256)
def _shapes(model: str) -> dict[str, Shape] | None:
    """Shapes of the parameters and buffers of a config's model; None if it cannot be built."""
    try:
        with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"), HostLinspace():
            built = MODELS.build(Config(ast.literal_eval(model)))
    except (TypeError, ValueError):
        return None
    return {key: tuple(tensor.shape) for key, tensor in built.state_dict().items()}
