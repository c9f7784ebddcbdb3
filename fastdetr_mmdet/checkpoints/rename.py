"""Pieces of rename tables that the official codes have in common, and how a table is applied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Renames = list[tuple[str, str]]

ENCODER = r"^transformer\.encoder\.layers\.(\d+)\."
DECODER = r"^transformer\.decoder\.layers\.(\d+)\."
OUR_ENCODER = r"transformer.encoder.layers.\1."
OUR_DECODER = r"transformer.decoder.layers.\1."

# torchvision's and mmdet's ResNet have the same names
BACKBONE: Renames = [(r"^backbone\.0\.body\.", "backbone.")]
# nn.MultiheadAttention of a layer of DETR's encoder
DENSE_ENCODER: Renames = [
    (ENCODER + r"self_attn\.in_proj_(weight|bias)$", OUR_ENCODER + r"in_proj.proj.\2"),
    (ENCODER + r"self_attn\.out_proj\.", OUR_ENCODER + "out_proj."),
]
FEEDFORWARD: Renames = [
    (ENCODER + r"(linear[12])\.", OUR_ENCODER + r"ffn.\2."),
    (ENCODER + r"(norm[12])\.", OUR_ENCODER + r"\2."),
    (DECODER + r"(linear[12])\.", OUR_DECODER + r"ffn.\2."),
]
# MSDeformAttn
DEFORMABLE_ENCODER: Renames = [
    (ENCODER + r"self_attn\.output_proj\.", OUR_ENCODER + "self_attn.out_proj."),
    (
        ENCODER + r"self_attn\.(sampling_offsets|attention_weights|value_proj)\.",
        OUR_ENCODER + r"self_attn.\2.",
    ),
]
PLAIN_SELF_ATTENTION: Renames = [
    (DECODER + r"self_attn\.in_proj_(weight|bias)$", OUR_DECODER + r"self_attn.in_proj.proj.\2"),
    (DECODER + r"self_attn\.out_proj\.", OUR_DECODER + "self_attn.out_proj."),
]
CONDITIONAL_SELF_ATTENTION: Renames = [
    (DECODER + r"sa_([qk])(content|pos)_proj\.", OUR_DECODER + r"self_attn.\2_\3_proj."),
    (DECODER + r"sa_v_proj\.", OUR_DECODER + "self_attn.v_proj."),
    (DECODER + r"self_attn\.out_proj\.", OUR_DECODER + "self_attn.out_proj."),
]
LEVELS: Renames = [(r"^transformer\.level_embed$", "transformer.level_embed")]
# One branch for all layers, or one per layer
SHARED_BRANCHES: Renames = [
    (r"^class_embed\.(weight|bias)$", r"bbox_head.cls_branches.0.\1"),
    (r"^bbox_embed\.layers\.0\.", "bbox_head.reg_branches.0.0."),
    (r"^bbox_embed\.layers\.1\.", "bbox_head.reg_branches.0.2."),
    (r"^bbox_embed\.layers\.2\.", "bbox_head.reg_branches.0.4."),
]
LAYER_BRANCHES: Renames = [
    (r"^class_embed\.(\d+)\.", r"bbox_head.cls_branches.\1."),
    (r"^bbox_embed\.(\d+)\.layers\.0\.", r"bbox_head.reg_branches.\1.0."),
    (r"^bbox_embed\.(\d+)\.layers\.1\.", r"bbox_head.reg_branches.\1.2."),
    (r"^bbox_embed\.(\d+)\.layers\.2\.", r"bbox_head.reg_branches.\1.4."),
]


@dataclass(frozen=True)
class Renamed:
    """A state dict by our names.

    Args:
        weights: The tensors by our names.
        sources: Our names -> those that the table was applied to.
        unknown: Keys that no entry of the table knows, or that another one took the place of.
    """

    weights: dict[str, Tensor]
    sources: dict[str, str]
    unknown: list[str]


def rename(state_dict: Mapping[str, Tensor], renames: Renames) -> Renamed:
    """Apply a table; the first pattern that matches a key wins."""
    renamed = Renamed({}, {}, [])
    for key, tensor in state_dict.items():
        ours, hits = key, 0
        for pattern, replacement in renames:
            ours, hits = re.subn(pattern, replacement, key)
            if hits:
                break
        if not hits or ours in renamed.weights:
            renamed.unknown.append(key)
            continue
        renamed.weights[ours] = tensor
        renamed.sources[ours] = key
    return renamed


def without_copies(
    state_dict: Mapping[str, Tensor], copies: Iterable[tuple[str, str]]
) -> tuple[dict[str, Tensor], list[str]]:
    """The dict without entries that only repeat another one.

    Args:
        state_dict: Official names.
        copies: (pattern, replacement) pairs that turn a copy's name into the original's.

    Returns:
        The dict, and a sentence for every copy that differs from its original.
    """
    kept, problems = dict(state_dict), []
    for pattern, replacement in copies:
        for key in [key for key in kept if re.search(pattern, key)]:
            name = re.sub(pattern, replacement, key)
            original = kept.get(name)
            if original is None:
                continue
            if not same(kept.pop(key), original):
                problems.append(
                    f"{key} should be the same tensor as {name}, as in the official code, but "
                    "differs; the checkpoint was not written by it."
                )
    return kept, problems


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same shape and values."""
    return first.shape == second.shape and bool((first == second).all())


# One embedding of queries that holds positions and contents side by side; here they are two
POSITIONS, CONTENTS = " (first half)", " (second half)"


def split_queries(state_dict: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    """The dict with such an embedding in two."""
    halves = dict(state_dict)
    if key in halves and halves[key].dim() == 2:
        pos, content = halves.pop(key).tensor_split(2, dim=1)
        halves |= {key + POSITIONS: pos, key + CONTENTS: content}
    return halves
