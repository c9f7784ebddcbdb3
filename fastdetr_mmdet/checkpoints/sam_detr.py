"""Names of the official SAM-DETR code (ZhangGongjie/SAM-DETR) -> ours.

The official layers find the salient points themselves (point1, point2, gates attn1, attn2); here
that is the aligner. The decoder holds the box branches a second time.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rename import (
    BACKBONE,
    CONDITIONAL_SELF_ATTENTION,
    DECODER,
    DEFORMABLE_ENCODER,
    DENSE_ENCODER,
    FEEDFORWARD,
    LAYER_BRANCHES,
    LEVELS,
    OUR_DECODER,
    Renames,
    without_copies,
)

RENAMES: Renames = [
    *BACKBONE,
    (r"^input_proj\.(\d)\.0\.", r"neck.convs.\1.conv."),
    (r"^input_proj\.(\d)\.1\.", r"neck.convs.\1.gn."),
    *LEVELS,
    *DENSE_ENCODER,
    *DEFORMABLE_ENCODER,
    *FEEDFORWARD,
    (DECODER + r"(norm[123])\.", OUR_DECODER + r"\2."),
    *CONDITIONAL_SELF_ATTENTION,
    (DECODER + r"ca_([qk])content_proj\.", OUR_DECODER + r"cross_attn.\2_content_proj."),
    (DECODER + r"ca_([qk])pos_sine_proj\.layers\.0\.", OUR_DECODER + r"cross_attn.\2_pos_proj.0."),
    (DECODER + r"ca_([qk])pos_sine_proj\.layers\.1\.", OUR_DECODER + r"cross_attn.\2_pos_proj.2."),
    (DECODER + r"ca_v_proj\.", OUR_DECODER + "cross_attn.v_proj."),
    (DECODER + r"cross_attn\.out_proj\.", OUR_DECODER + "cross_attn.out_proj."),
    (DECODER + r"point1\.0\.", OUR_DECODER + "aligner.squeeze."),
    (DECODER + r"point2\.", OUR_DECODER + "aligner.point_branch."),
    (DECODER + r"attn1\.", OUR_DECODER + "aligner.content_gate."),
    (DECODER + r"attn2\.", OUR_DECODER + "aligner.pos_gate."),
    (r"^query_embed\.", "transformer.queries.reference."),
    *LAYER_BRANCHES,
]


def tidy(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Without the decoder's copy of the box branches.

    Returns:
        The dict, and a sentence for every copy that differs from its original.
    """
    return without_copies(state_dict, [(r"^transformer\.decoder\.bbox_embed\.", "bbox_embed.")])
