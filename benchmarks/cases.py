"""Models to compare: this package's, and mmdet's with the same weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
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

    ``config``: its config, below ``configs``; mmdet's has the same name. ``mmdet``: whether mmdet
    has the model; else the counterpart is this package's ``BESIDE``. ``options``: changes of this
    package's config.
    """

    config: str
    mmdet: bool = False
    options: dict[str, Any] = field(default_factory=dict)


# Counterpart of models that mmdet does not have.
BESIDE = "conditional-detr"

CASES = {
    "conditional-detr": Case("conditional_detr/conditional-detr_r50_8xb2-50e_coco.py", True),
    "deformable-detr": Case("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", True),
    "deformable-detr-refine": Case(
        "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py", True
    ),
    "deformable-detr-refine-twostage": Case(
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py", True
    ),
    "dino": Case(
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        True,
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
    folder = CONFIGS if whose == "ours" else Path(mmdet.__file__).parent / ".mim/configs"
    config = Config.fromfile(folder / case.config)
    config.merge_from_dict(case.options if whose == "ours" else {})
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
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # reports of init_weights
    model = MODELS.build(config.model)
    model.init_weights()
    logging.disable(before)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not key.startswith("backbone."):
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return Side(model, config)


def build_pair(name: str, seed: int = 0) -> tuple[Side, Side]:
    """Build a model and its counterpart; mmdet's gets the same weights."""
    if not CASES[name].mmdet:
        return build(name, "ours", seed), build(BESIDE, "ours", seed)
    theirs = build(name, "mmdet", seed)
    ours = build(name, "ours", seed)
    ours.model.load_state_dict(convert_state_dict(theirs.model.state_dict(), "mmdet"))
    return ours, theirs
