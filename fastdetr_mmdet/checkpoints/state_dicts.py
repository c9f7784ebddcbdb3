"""Other codes' state dicts -> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .rename_tables import CONTENTS, METHODS, POSITIONS, rules


@dataclass(frozen=True)
class Renamed:
    """A state dict by our names.

    Args:
        weights: The tensors by our names.
        sources: Our names -> the names in the file.
        unknown: Keys of the file that the table does not know, or that collide with another key.
        contradictions: Keys of the file that differ from the tensor that they should repeat, which
            follows in brackets.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)


def convert_state_dict(state_dict: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Rename another code's parameters to those of the matching config's model.

    Args:
        state_dict: The other model's ``state_dict()`` (an official checkpoint's ``['model']``, the
            ``['state_dict']`` of mmdet's).
        method: One of ``METHODS``.

    Returns:
        A dict that loads with ``strict=True``. It holds the given tensors, views of them, and the
        zero biases that mmdet leaves out. Class branches keep their classes.

    Raises:
        ValueError: for an unknown method, for keys that the method's model does not have, and for
            copies of a parameter that differ.
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
    """Whose model it is, for messages.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    if method == "mmdet":
        return "mmdet's own Deformable DETR, Conditional DETR or DINO"
    return f"an official {method} model"


def method_of(state_dict: Mapping[str, Tensor]) -> str | None:
    """The method whose table knows every key, if there is one."""
    return next((name for name in METHODS if not translate(state_dict, name).unknown), None)


def translate(state_dict: Mapping[str, Tensor], method: str) -> Renamed:
    """Rename what the method's table knows, and list the rest."""
    model_of(method)
    renamed = Renamed()
    # a pattern's dots are literal
    is_dino = method == "mmdet" and "dn_query_generator.label_embedding.weight" in state_dict
    table = rules("mmdet_dino" if is_dino else method)
    patterns = [(re.compile(old.replace(".", r"\.")), new) for old, new in table]
    for key, tensor in _tidy(state_dict, renamed.contradictions).items():
        rule = next(((old, new) for old, new in patterns if old.match(key)), None)
        ours = rule[0].sub(rule[1], key, count=1) if rule else ""
        if not ours or ours in renamed.weights:
            renamed.unknown.append(key)
        else:
            renamed.weights[ours] = tensor
            renamed.sources[ours] = key
    return renamed


def _tidy(state_dict: Mapping[str, Tensor], contradictions: list[str]) -> dict[str, Tensor]:
    """Drop repeated branches, split embeddings of positions and contents, add mmdet's zero biases.

    Every step applies to names of one code only.
    """
    tidied = dict(state_dict)
    # Official: with refinement the decoder holds the branches a second time; without it all layers
    # of Deformable DETR share one, stored once per layer.
    copies = [(r"transformer\.decoder\.(class|bbox)_embed\.", r"\1_embed.")]
    if not any(key.startswith("transformer.decoder.bbox_embed.") for key in tidied):
        copies.append((r"(class|bbox)_embed\.[1-9]\d*\.", r"\1_embed.0."))
    for pattern, original in copies:
        for key in [key for key in tidied if re.match(pattern, key)]:
            name = re.sub(pattern, original, key)
            if name in tidied and not _same(tidied.pop(key), tidied[name]):
                contradictions.append(f"{key} (differs from {name})")
    # mmdet: one module for all layers is stored once per layer. With refinement layers differ as
    # soon as they are trained.
    branch = r"bbox_head\.(cls|reg)_branches\.[1-9]\d*\."
    firsts = {
        key: re.sub(r"(_branches\.)\d+", r"\g<1>0", key) for key in tidied if re.match(branch, key)
    }
    if all(name in tidied and _same(tidied[key], tidied[name]) for key, name in firsts.items()):
        for key in firsts:
            del tidied[key]
    for reference, queries in (
        ("transformer.reference_points.weight", "query_embed.weight"),
        ("reference_points_fc.weight", "query_embedding.weight"),
    ):
        if reference in tidied and queries in tidied and tidied[queries].dim() == 2:
            halves = tidied.pop(queries).tensor_split(2, dim=1)
            tidied |= dict(zip((queries + POSITIONS, queries + CONTENTS), halves, strict=True))
    for key in list(tidied):
        if norm := re.fullmatch(r"(neck\.(?:extra_)?convs\.\d+)\.gn\.weight", key):
            tidied.setdefault(f"{norm[1]}.conv.bias", torch.zeros_like(tidied[key]))
    return tidied


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())
