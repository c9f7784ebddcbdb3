"""Convert checkpoints of this package to official codes or to Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from ..utils.cli import UsageError, check_destination, refuse_to_overwrite
from ..utils.files import write_atomically
from .classes import OFFICIAL, TWO_STAGE, coco_meta, count_classes, names_of_rows, unmap_classes
from .embedded_config import EmbeddedConfigError, read_plain_config
from .files import dataset_meta, read_checkpoint, safetensors_torch, write_checkpoint
from .safe_loading import CheckpointError
from .shipped_configs import Fit, config_of, find_configs, option_of
from .state_dicts import count_unknown, restore_state_dict

# Methods that each target supports.
TARGETS = {
    "hf": ("deformable_detr", "conditional_detr"),
    "official": ("deformable_detr", "conditional_detr", "smca_detr", "sam_detr"),
}
# Config of a paper's model without published code.
_PAPER_ONLY = "smca_detr/smca-detr-ms_"
# Settings that a training config has and weights do not tell, by the keys below ``model``.
_TOLD = ("num_queries", "transformer.encoder.num_heads", "transformer.decoder.num_heads")


def export_checkpoint(src: str | Path, dst: str | Path, to: str) -> str:
    """Write weights in another code's form; converting them back gives equal bits.

    Args:
        src: A checkpoint of a shipped config's model, trained or converted.
        dst: The file to write; for Hugging Face a folder that does not exist yet.
        to: One of ``TARGETS``.

    Returns:
        A description of what was written.

    Raises:
        UsageError: if the folder exists.
        CheckpointError: if the target has no model for these weights.
    """
    src, dst = Path(src), Path(dst)
    check_destination(dst / "config.json" if dst.is_dir() else dst)
    refuse_to_overwrite([dst], [src])
    if to == "hf" and dst.exists():
        raise UsageError(f"{dst} exists. Name a new folder.")
    source = read_checkpoint(src)
    method, fit = _recognise(src, source.weights, source.meta, to)
    count = count_classes(source.weights) or 0
    coco = list(coco_meta()["classes"])
    names = list(dataset_meta(source.meta).get("classes") or ())
    weights = source.weights
    if count == len(coco) and names in ([], coco):
        logits = OFFICIAL[method]
        weights = unmap_classes(weights, logits)
        names = [name or "N/A" for name in names_of_rows({}, logits)]
    table = method if to == "official" else f"hf_{method}"
    restored = {k: v.contiguous() for k, v in restore_state_dict(weights, table).items()}
    kept = count_classes(weights)
    classes = f"{'' if kept == count else f'{count} -> '}{kept} classes"
    said = f"Wrote {dst}: {method}, {len(restored)} tensors, {classes}, of {fit.config}."
    if to == "official":
        write_checkpoint(dst, {"model": restored})
        return said
    names = names if len(names) == kept else [f"LABEL_{number}" for number in range(kept or 0)]
    config = _hub_config(weights, method, config_of(fit), names)
    own = {key: value.clone() for key, value in restored.items()}  # some share memory
    content = safetensors_torch(dst).save(own, {"format": "pt"})
    write_atomically(dst / "model.safetensors", content)
    write_atomically(dst / "config.json", json.dumps(config, indent=2).encode() + b"\n")
    return f"{said}\nNext:\n    {config['architectures'][0]}.from_pretrained({str(dst)!r})"


def _hub_config(
    weights: Mapping[str, Tensor], method: str, config: Config, names: Sequence[str]
) -> dict[str, Any]:
    """config.json of a model with transformers' own ResNet."""
    deformable = method == "deformable_detr"
    kind = "DeformableDetr" if deformable else "ConditionalDetr"
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    stages = [_blocks(shapes, f"backbone.layer{number}.") for number in range(1, 5)]
    last = "conv3" if "backbone.layer1.0.conv3.weight" in shapes else "conv2"
    backbone = dict(
        model_type="resnet",
        layer_type="bottleneck" if last == "conv3" else "basic",
        embedding_size=shapes["backbone.conv1.weight"][0],
        hidden_sizes=[shapes[f"backbone.layer{n}.0.{last}.weight"][0] for n in range(1, 5)],
        depths=stages,
        out_features=["stage2", "stage3", "stage4"],
    )
    hub = dict(
        architectures=[f"{kind}ForObjectDetection"],
        model_type=method,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        activation_function="relu",
        position_embedding_type="sine",
        d_model=shapes["transformer.encoder.layers.0.norm1.weight"][0],
        num_queries=option_of(config, "num_queries"),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    for stack in ("encoder", "decoder"):
        hub[f"{stack}_layers"] = _blocks(shapes, f"transformer.{stack}.layers.")
        hub[f"{stack}_ffn_dim"] = option_of(config, f"transformer.{stack}.feedforward_channels")
        hub[f"{stack}_attention_heads"] = option_of(config, f"transformer.{stack}.num_heads")
    if deformable:
        levels = sum(key.startswith("neck.") and key.endswith("conv.weight") for key in shapes)
        if levels == 1:
            backbone["out_features"] = ["stage4"]
        hub |= dict(
            num_feature_levels=levels,
            encoder_n_points=option_of(config, "transformer.encoder.num_points"),
            decoder_n_points=option_of(config, "transformer.decoder.cross_attn.num_points"),
            with_box_refine="bbox_head.reg_branches.1.0.weight" in shapes,
            two_stage=TWO_STAGE in shapes,
            two_stage_num_proposals=hub["num_queries"],
        )
    else:
        backbone["out_features"] = ["stage4"]
    return hub


def _blocks(shapes: Mapping[str, Any], below: str) -> int:
    return len({key.removeprefix(below).split(".")[0] for key in shapes if key.startswith(below)})


def _recognise(
    src: Path, weights: Mapping[str, Tensor], meta: Mapping[str, Any], to: str
) -> tuple[str, Fit]:
    """Find the method and the config that the weights fit."""
    text, told, configs = (meta.get(key) for key in ("cfg", "options", "configs"))
    try:
        trained = Config(read_plain_config(text if isinstance(text, str) else ""))
    except EmbeddedConfigError as error:
        raise CheckpointError(f"{src}: {error}") from error
    told = told if isinstance(told, dict) else {}
    known = {key: told.get(f"model.{key}", option_of(trained, key)) for key in _TOLD}
    known = {key: value for key, value in known.items() if isinstance(value, int)}
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    method = min(TARGETS[to], key=lambda method: count_unknown(shapes, method))
    fits = find_configs(shapes, method, (), known)
    if wrong := fits[0].differing:
        raise CheckpointError(
            f"{src} was not exported: {to} has no model of these weights. Compared with "
            f"{fits[0].config}, {len(wrong)} do not fit, such as {wrong[0]}."
        )
    if _PAPER_ONLY in fits[0].config:
        raise CheckpointError(
            f"{src} was not exported: it is the multi-scale SMCA of the paper, whose encoder the "
            "official code does not have. The official multi-scale model is "
            "configs/smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco.py."
        )
    first = configs[:1] if isinstance(configs, list) else []
    names = [option_of(trained, "backbone.type"), *first]
    dilated = [fit for fit in fits if fit.dilated]
    if dilated and any("Dilated" in str(name) or "-dc5" in str(name) for name in names):
        if to == "hf":
            raise CheckpointError(
                f"{src} was not exported: it is a DC5 model, whose dilated stage transformers' own "
                "ResNet does not have."
            )
        fits = dilated
    return method, fits[0]
