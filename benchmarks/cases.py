"""Models to compare: this package's, and mmdet's with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from fastdetr_mmdet.checkpoints import convert_state_dict

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Case:
    """A model of this package and its counterpart.

    ``mmdet``: mmdet's config of the same model; None if mmdet has none, then the counterpart is
    this package's ``BESIDE``. ``options``: changes of this package's config.
    """

    ours: str
    mmdet: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


# Counterpart of models that mmdet does not have.
BESIDE = "conditional-detr"

CASES = {
    "conditional-detr": Case(
        "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
        "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    ),
    "deformable-detr": Case(
        "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
        "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    ),
    "deformable-detr-refine": Case(
        "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
        "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
    ),
    "deformable-detr-refine-twostage": Case(
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
    ),
    "dino": Case(
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        # as in mmdet >= 3.4
        {} if mmdet.__version__ < "3.4" else {"model.transformer.decoder.reference_feats": 256},
    ),
    "smca-detr": Case("smca_detr/smca-detr_r50_8xb2-50e_coco.py"),
    "sam-detr": Case("sam_detr/sam-detr_r50_4xb4-50e_coco.py"),
    "sam-detr-smca": Case("sam_detr/sam-detr-smca_r50_4xb4-50e_coco.py"),
}


@dataclass
class Side:
    """A model and the config that it was built from."""

    model: nn.Module
    config: Config


def load_config(name: str, whose: str) -> Config:
    """Config of a case; ``whose`` is ``ours`` or ``mmdet``."""
    case = CASES[name]
    if whose == "ours":
        config = Config.fromfile(CONFIGS / case.ours)
        config.merge_from_dict(case.options)
    else:
        assert case.mmdet is not None
        config = Config.fromfile(str(files("mmdet") / ".mim" / "configs" / case.mmdet))
    config.model.backbone.init_cfg = None  # measuring needs no weights
    return config


def build(name: str, whose: str, seed: int = 0, num_queries: int | None = None) -> Side:
    """Build a model with random weights, also where initial weights are zero.

    Zeros would hide differences and make all queries predict the same.
    """
    register_all_modules(init_default_scope=True)
    config = load_config(name, whose)
    if num_queries is not None:
        config.model.num_queries = num_queries
    torch.manual_seed(seed)
    with _silent():
        model = MODELS.build(config.model)
        model.init_weights()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not key.startswith("backbone."):
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return Side(model, config)


def build_pair(name: str, seed: int = 0) -> tuple[Side, Side]:
    """Build a model and its counterpart; mmdet's gets the same weights."""
    if CASES[name].mmdet is None:
        return build(name, "ours", seed), build(BESIDE, "ours", seed)
    theirs = build(name, "mmdet", seed)
    ours = build(name, "ours", seed)
    ours.model.load_state_dict(convert_state_dict(theirs.model.state_dict(), "mmdet"))
    return ours, theirs


@contextmanager
def _silent() -> Iterator[None]:
    """Context without the reports of ``init_weights``."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
