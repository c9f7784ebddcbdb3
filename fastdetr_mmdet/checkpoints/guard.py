"""Guard the checkpoints that mmengine and mmdet load, by replacing loading functions of both."""

from __future__ import annotations

import functools
import os
from typing import Any

from mmdet.apis import det_inferencer, inference
from mmengine.infer import infer
from mmengine.runner import checkpoint as loaders
from torch import nn

from ..models import FastDETR
from .loading import load_whole
from .safe_loading import load_from_local, load_url, read_data

# Set to 1 before the import to keep all functions of mmengine and mmdet.
UNGUARDED = "FASTDETR_MMDET_UNGUARDED_LOADING"


def guard_checkpoints() -> None:
    """Read every checkpoint without running its code, and predict only with complete ones.

    - load_from, --resume, `mim test`, init_detector, DetInferencer and `Pretrained` weights all use
      mmengine's loaders. onedl-mmengine retries a refused file without the guard, and both
      mmengines load URLs without it. The replacements pass weights_only=True, without state shared
      between threads. Loaders that others register stay unchanged. torch below 2.6 has no safe
      loading (CVE-2025-32434), so loading warns.
    - mmengine only logs weights that are missing or have another shape, and leaves them random:
      with another ``num_queries`` than in training, a model would predict noise. init_detector and
      DetInferencer therefore refuse a checkpoint that lacks weights of a FastDETR.
    """
    if os.environ.get(UNGUARDED, "0") not in ("", "0"):
        return
    loaders.CheckpointLoader.register_scheme("", load_from_local, force=True)
    loaders.load_url = load_url  # of http(s)://, torchvision://, openmmlab://, mmcls://
    if hasattr(loaders, "_safe_torch_load"):  # of onedl's other schemes
        loaders._safe_torch_load = read_data
    _refuse_incomplete()


def _refuse_incomplete() -> None:
    load, load_to_model = inference.load_checkpoint, det_inferencer._load_checkpoint_to_model
    read = infer._load_checkpoint
    files: dict[int, str] = {}  # of the last content; DetInferencer does not pass it on

    @functools.wraps(load)
    def load_checkpoint(model: nn.Module, filename: str, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(model, FastDETR):
            return load(model, filename, *args, **kwargs)
        content = loaders.CheckpointLoader.load_checkpoint(filename, *args, **kwargs)
        load_whole(model, content, str(filename))
        return content

    @functools.wraps(read)
    def read_checkpoint(filename: str, *args: Any, **kwargs: Any) -> Any:
        content = read(filename, *args, **kwargs)
        files.clear()
        files[id(content)] = str(filename)
        return content

    @functools.wraps(load_to_model)
    def load_checkpoint_to_model(model: nn.Module, content: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, FastDETR):
            content = load_whole(model, content, files.get(id(content)))
        return load_to_model(model, content, *args, **kwargs)

    inference.load_checkpoint, infer._load_checkpoint = load_checkpoint, read_checkpoint
    det_inferencer._load_checkpoint_to_model = load_checkpoint_to_model
