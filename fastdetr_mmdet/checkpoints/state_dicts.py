"""Convert state dicts of other codes to this package's names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .rename_tables import CONTENTS, METHODS, POSITIONS, rename, reversed_rules, rules

# Keys that tell a model whose other names have different meanings in its source.
_TOLD_BY = {
    "dn_query_generator.label_embedding.weight": "mmdet_dino",
    "label_enc.weight": "detrex_dino",
    "transformer.decoder.layers.0.attentions.1.query_content_proj.weight": (
        "detrex_conditional_detr"
    ),
    "input_proj.4.0.weight": "dino_5scale",
    "model.decoder.layers.0.encoder_attn.q_proj.weight": "hf_detr",
}


@dataclass(frozen=True)
class Renamed:
    """A state dict with this package's names."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # name -> the file's name
    unknown: list[str] = field(default_factory=list)  # keys not in the table, or colliding
    contradictions: list[str] = field(default_factory=list)  # keys with unequal copies
    left_out: list[str] = field(default_factory=list)  # in DETR, all keys after the encoder


def convert_state_dict(state_dict: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Rename another code's parameters to those of the matching config's model.

    Args:
        state_dict: The other model's ``state_dict()`` (an official checkpoint's ``['model']``, the
            ``['state_dict']`` of mmdet's).
        method: One of ``METHODS``.

    Returns:
        A dict that loads with ``strict=True``. It holds the given tensors, views of them, and zero
        biases that mmdet leaves out. Class branches keep their classes.

    Raises:
        ValueError: for an unknown method, for unknown keys, and for copies of a parameter that
            differ.
    """
    renamed = translate(state_dict, method)
    wrong = renamed.unknown + renamed.contradictions
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(state_dict)} keys do not fit {model_of(method)}: "
            f"{', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''}. Check the method, and "
            "pass the checkpoint's 'model' entry, not the whole checkpoint."
        )
    return renamed.weights


def model_of(method: str) -> str:
    """Name of the code, for messages.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    models = {
        "mmdet": "mmdet's own Deformable DETR, Conditional DETR or DINO",
        "detrex": "detrex's Deformable DETR, Conditional DETR or DINO",
        "hf": "Hugging Face's Deformable DETR, Conditional DETR or DETR",
    }
    return models.get(method, f"an official {method} model")


def method_of(state_dict: Mapping[str, Tensor]) -> str | None:
    """The method whose table has every key, if any."""
    return next((name for name in METHODS if not translate(state_dict, name).unknown), None)


def translate(state_dict: Mapping[str, Tensor], method: str) -> Renamed:
    """Rename keys of the method's table, and list the rest."""
    model_of(method)
    renamed = Renamed()
    told = (name for key, name in _TOLD_BY.items() if key in state_dict)
    table = rules(next((name for name in told if name.startswith(method)), method))
    for key, tensor in _tidy(state_dict, renamed.contradictions).items():
        name = rename(key, table)
        if name.startswith("-"):
            renamed.left_out.append(key)
        elif not name or name in renamed.weights:
            renamed.unknown.append(key)
        else:
            renamed.weights[name] = tensor
            renamed.sources[name] = key
    return renamed


def restore_state_dict(weights: Mapping[str, Tensor], table: str) -> dict[str, Tensor]:
    """Rename to the names of a table, and add the copies of tensors that its code's files have.

    The table is a list of ``rename_tables.yaml``: a method, or ``hf_`` and a method.

    Raises:
        ValueError: for names that are not in the table.
    """
    # these codes' frozen batch norms have no counters
    kept = {k: v for k, v in weights.items() if not k.endswith(".num_batches_tracked")}
    renamed = _restored_names(kept, table)
    if unknown := [key for key, name in renamed.items() if not name]:
        raise ValueError(f"{table} has no name for {len(unknown)} keys, such as {unknown[0]}")
    restored = {renamed[key]: value for key, value in kept.items()}
    for key in [key for key in restored if key.endswith(POSITIONS)]:
        name = key.removesuffix(POSITIONS)
        halves = [restored.pop(name + half) for half in (POSITIONS, CONTENTS)]
        restored[name] = torch.cat(halves, dim=1)
    layers = {m[1] for key in kept if (m := re.match(r"transformer\.decoder\.layers\.(\d+)", key))}
    below = "model" if table.startswith("hf_") else "transformer"
    refined = "bbox_embed.1.layers.0.weight" in restored
    for key in [key for key in restored if re.match(r"(class|bbox)_embed\.\d", key)]:
        kind, _, rest = key.split(".", 2)
        if not refined:
            restored |= {f"{kind}.{layer}.{rest}": restored[key] for layer in layers}
        elif kind == "bbox_embed" or f"{below}.enc_output.weight" in restored:
            restored[f"{below}.decoder.{key}"] = restored[key]
    for key in [key for key in restored if below == "model" and "_attn.in_proj_" in key]:
        parts = zip("qkv", restored.pop(key).chunk(3), strict=True)
        restored |= {key.replace("in_proj_", f"{letter}_proj."): part for letter, part in parts}
    return restored


def count_unknown(weights: Iterable[str], table: str) -> int:
    """Count the names that another code does not have."""
    return sum(not name for name in _restored_names(weights, table).values())


def _restored_names(weights: Iterable[str], table: str) -> dict[str, str]:
    if table == "smca_detr" and "neck.convs.1.conv.weight" in weights:
        later = "transformer.encoder.layers.0.down.1.weight" in weights
        table = "smca_detr_ms_later" if later else "smca_detr_ms"
    return {key: rename(key, reversed_rules(table)) for key in weights}


def _tidy(state_dict: Mapping[str, Tensor], contradictions: list[str]) -> dict[str, Tensor]:
    """Drop repeated branches, split embeddings of positions and contents, add mmdet's zero biases.

    Each step changes names of one code only.
    """
    tidied = dict(state_dict)
    _join_projections(tidied)
    _reorder_swin(tidied)
    # The official DINO names the proposals' branches separately; others count them after the
    # layers'.
    layers = sum(bool(re.fullmatch(r"class_embed\.\d+\.weight", key)) for key in tidied)
    for key in [key for key in tidied if key.startswith("transformer.enc_out_")]:
        kind, rest = key.removeprefix("transformer.enc_out_").split(".", 1)
        tidied[f"{kind}.{layers}.{rest}"] = tidied.pop(key)
    if "label_enc.weight" in tidied and "class_embed.0.bias" in tidied:  # the last row is unused
        count = tidied["class_embed.0.bias"].numel()
        tidied["label_enc.weight"] = tidied["label_enc.weight"][:count]
    # Official codes with refinement store the branches twice; without it Deformable DETR's layers
    # share one branch, stored once per layer. Safetensors files have only one of two names for a
    # tensor.
    copies = [(r"(?:transformer|model)\.decoder\.(class|bbox)_embed\.", r"\1_embed.")]
    hub = any(key.startswith("model.") for key in tidied)
    if not hub and not any(key.startswith("transformer.decoder.bbox_embed.") for key in tidied):
        copies.append((r"(class|bbox)_embed\.[1-9]\d*\.", r"\1_embed.0."))
    for pattern, original in copies:
        for key in [key for key in tidied if re.match(pattern, key)]:
            name = re.sub(pattern, original, key)
            tensor = tidied.pop(key)
            if not _same(tensor, tidied.setdefault(name, tensor)):
                contradictions.append(f"{key} (differs from {name})")
    # mmdet and Hugging Face store a module that all layers share once per layer. With refinement,
    # trained layers differ.
    branches = "(?:class|bbox)_embed" if hub else r"bbox_head\.(?:cls|reg)_branches"
    branch = rf"({branches}\.)[1-9]\d*\."
    firsts = {key: re.sub(branch, r"\g<1>0.", key) for key in tidied if re.match(branch, key)}
    if all(name in tidied and _same(tidied[key], tidied[name]) for key, name in firsts.items()):
        for key in firsts:
            del tidied[key]
    elif hub:  # class branches may be shared and stored once
        for key in [key for key in tidied if re.match(r"bbox_embed\.\d+\.layers\.0\.", key)]:
            for kind in ("weight", "bias"):
                first, name = f"class_embed.0.{kind}", f"class_embed.{key.split('.')[1]}.{kind}"
                if first in tidied:
                    tidied.setdefault(name, tidied[first])
    for reference, queries in (
        ("transformer.reference_points.weight", "query_embed.weight"),
        ("reference_points_fc.weight", "query_embedding.weight"),
        ("transformer.reference_points.weight", "query_embedding.weight"),
        ("model.reference_points.weight", "model.query_position_embeddings.weight"),
    ):
        if reference in tidied and queries in tidied and tidied[queries].dim() == 2:
            halves = tidied.pop(queries).tensor_split(2, dim=1)
            tidied |= dict(zip((queries + POSITIONS, queries + CONTENTS), halves, strict=True))
    for key in list(tidied):
        if norm := re.fullmatch(r"(neck\.(?:extra_)?convs\.\d+)\.gn\.weight", key):
            tidied.setdefault(f"{norm[1]}.conv.bias", torch.zeros_like(tidied[key]))
    return tidied


def _reorder_swin(tidied: dict[str, Tensor]) -> None:
    """Convert the official DINO's Swin, which has the original code's names and patch order."""
    below = "backbone.0."
    swin = {key.removeprefix(below): key for key in tidied if key.startswith(below)}
    if "patch_embed.proj.weight" in swin:
        from mmdet.models.backbones.swin import swin_converter  # late, because it imports much

        with contextlib.suppress(RuntimeError, ValueError):  # not a Swin's shapes
            tidied |= swin_converter({name: tidied[key] for name, key in swin.items()})
            for key in swin.values():
                del tidied[key]


def _join_projections(tidied: dict[str, Tensor]) -> None:
    """Join query, key and value projections, which Hugging Face stores separately."""
    for key in list(tidied):
        if match := re.fullmatch(r"(.*_attn\.)q_proj\.(weight|bias)", key):
            names = [f"{match[1]}{letter}_proj.{match[2]}" for letter in "qkv"]
            parts = [tidied.get(name, torch.zeros(0)) for name in names]
            if parts[0].dim() and len({part.shape for part in parts}) == 1:
                tidied[f"{match[1]}in_proj_{match[2]}"] = torch.cat(parts)
                for name in names:
                    del tidied[name]


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())
