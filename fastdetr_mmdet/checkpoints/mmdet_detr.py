"""Names of mmdet 3's own Deformable DETR and Conditional DETR -> ours.

Both compute what the official codes compute. mmdet builds necks without the convolutions' biases
where a norm follows; here they are zero. It stores a branch that all layers share once per layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .rename import CONTENTS, OUR_DECODER, OUR_ENCODER, POSITIONS, Renames, same, split_queries

ENCODER = r"^encoder\.layers\.(\d+)\."
DECODER = r"^decoder\.layers\.(\d+)\."
QUERIES = "query_embedding.weight"
_CONV = r"^(neck\.(?:extra_)?convs\.\d+)\."
_LATER_BRANCH = r"^bbox_head\.(cls|reg)_branches\.[1-9]\d*\."


def _layer(theirs: str, ours: str) -> Renames:
    """What encoder and decoder layers have in common."""
    return [
        (theirs + r"ffn\.layers\.0\.0\.", ours + "ffn.linear1."),
        (theirs + r"ffn\.layers\.1\.", ours + "ffn.linear2."),
        (theirs + r"norms\.0\.", ours + "norm1."),
        (theirs + r"norms\.1\.", ours + "norm2."),
        (theirs + r"norms\.2\.", ours + "norm3."),
    ]


RENAMES: Renames = [
    (r"^backbone\.", "backbone."),
    (r"^neck\.", "neck."),
    (r"^level_embed$", "transformer.level_embed"),
    *_layer(ENCODER, OUR_ENCODER),
    (ENCODER + r"self_attn\.attn\.in_proj_(weight|bias)$", OUR_ENCODER + r"in_proj.proj.\2"),
    (ENCODER + r"self_attn\.attn\.out_proj\.", OUR_ENCODER + "out_proj."),
    (ENCODER + r"self_attn\.output_proj\.", OUR_ENCODER + "self_attn.out_proj."),
    (ENCODER + r"self_attn\.", OUR_ENCODER + "self_attn."),
    *_layer(DECODER, OUR_DECODER),
    (
        DECODER + r"self_attn\.attn\.in_proj_(weight|bias)$",
        OUR_DECODER + r"self_attn.in_proj.proj.\2",
    ),
    (DECODER + r"self_attn\.attn\.out_proj\.", OUR_DECODER + "self_attn.out_proj."),
    (DECODER + r"cross_attn\.output_proj\.", OUR_DECODER + "cross_attn.out_proj."),
    (DECODER + r"cross_attn\.qpos_sine_proj\.", OUR_DECODER + "cross_attn.q_spatial_proj."),
    (
        DECODER + r"(self|cross)_attn\.([qk])(content|pos)_proj\.",
        OUR_DECODER + r"\2_attn.\3_\4_proj.",
    ),
    (DECODER + r"(self|cross)_attn\.", OUR_DECODER + r"\2_attn."),
    (r"^decoder\.post_norm\.", "transformer.decoder.norm."),
    (r"^decoder\.query_scale\.layers\.0\.", "transformer.decoder.query_scale.0."),
    (r"^decoder\.query_scale\.layers\.1\.", "transformer.decoder.query_scale.2."),
    (r"^decoder\.ref_point_head\.layers\.0\.", "transformer.queries.reference.0."),
    (r"^decoder\.ref_point_head\.layers\.1\.", "transformer.queries.reference.2."),
    (rf"^{re.escape(QUERIES + POSITIONS)}$", "transformer.queries.pos.weight"),
    (rf"^{re.escape(QUERIES + CONTENTS)}$", "transformer.queries.content.weight"),
    (rf"^{re.escape(QUERIES)}$", "transformer.queries.pos.weight"),
    (r"^reference_points_fc\.", "transformer.queries.reference."),
    (r"^memory_trans_fc\.", "transformer.queries.memory_proj."),
    (r"^memory_trans_norm\.", "transformer.queries.memory_norm."),
    (r"^pos_trans_fc\.", "transformer.queries.box_proj."),
    (r"^pos_trans_norm\.", "transformer.queries.box_norm."),
    (r"^bbox_head\.(cls|reg)_branches\.", r"bbox_head.\1_branches."),
    (r"^bbox_head\.fc_cls\.", "bbox_head.cls_branches.0."),
    (r"^bbox_head\.reg_ffn\.layers\.0\.0\.", "bbox_head.reg_branches.0.0."),
    (r"^bbox_head\.reg_ffn\.layers\.1\.", "bbox_head.reg_branches.0.2."),
    (r"^bbox_head\.fc_reg\.", "bbox_head.reg_branches.0.4."),
]


def tidy(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """One of each shared branch, the query embedding in two, and the biases that mmdet left out.

    Returns:
        The dict, and no sentences: nothing is checked here.
    """
    tidied = dict(state_dict)
    later = [key for key in tidied if re.search(_LATER_BRANCH, key)]
    # Without refinement they are one module. (With it they differ as soon as they are trained.)
    if all(_repeats_the_first(tidied, key) for key in later):
        for key in later:
            del tidied[key]
    if "reference_points_fc.weight" in tidied:  # Deformable DETR
        tidied = split_queries(tidied, QUERIES)
    for key in list(tidied):
        norm = re.search(_CONV + r"gn\.weight$", key)
        if norm:
            tidied.setdefault(f"{norm[1]}.conv.bias", torch.zeros_like(tidied[key]))
    return tidied, []


def _repeats_the_first(state_dict: Mapping[str, Tensor], key: str) -> bool:
    first = re.sub(r"(_branches\.)\d+", r"\g<1>0", key)
    return first in state_dict and same(state_dict[key], state_dict[first])
