"""Names of the official Deformable DETR code (fundamentalvision/Deformable-DETR) -> ours.

The official layers number their norms by the order in which they are made (cross-attention first);
here norm1 follows the self-attention. One query embedding holds positions and contents; here they
are two. Without refinement the branches of all layers are one module, stored once per layer; with
it the decoder holds them a second time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .rename import (
    BACKBONE,
    CONTENTS,
    DECODER,
    DEFORMABLE_ENCODER,
    FEEDFORWARD,
    LAYER_BRANCHES,
    LEVELS,
    OUR_DECODER,
    PLAIN_SELF_ATTENTION,
    POSITIONS,
    Renames,
    split_queries,
    without_copies,
)

QUERIES = "query_embed.weight"
RENAMES: Renames = [
    *BACKBONE,
    (r"^input_proj\.([0-2])\.0\.", r"neck.convs.\1.conv."),
    (r"^input_proj\.([0-2])\.1\.", r"neck.convs.\1.gn."),
    (r"^input_proj\.3\.0\.", "neck.extra_convs.0.conv."),
    (r"^input_proj\.3\.1\.", "neck.extra_convs.0.gn."),
    *LEVELS,
    *DEFORMABLE_ENCODER,
    *FEEDFORWARD,
    (DECODER + r"norm2\.", OUR_DECODER + "norm1."),
    (DECODER + r"norm1\.", OUR_DECODER + "norm2."),
    (DECODER + r"norm3\.", OUR_DECODER + "norm3."),
    *PLAIN_SELF_ATTENTION,
    (DECODER + r"cross_attn\.output_proj\.", OUR_DECODER + "cross_attn.out_proj."),
    (
        DECODER + r"cross_attn\.(sampling_offsets|attention_weights|value_proj)\.",
        OUR_DECODER + r"cross_attn.\2.",
    ),
    (f"^{re.escape(QUERIES + POSITIONS)}$", "transformer.queries.pos.weight"),
    (f"^{re.escape(QUERIES + CONTENTS)}$", "transformer.queries.content.weight"),
    (r"^transformer\.reference_points\.", "transformer.queries.reference."),
    (r"^transformer\.enc_output\.", "transformer.queries.memory_proj."),
    (r"^transformer\.enc_output_norm\.", "transformer.queries.memory_norm."),
    (r"^transformer\.pos_trans\.", "transformer.queries.box_proj."),
    (r"^transformer\.pos_trans_norm\.", "transformer.queries.box_norm."),
    *LAYER_BRANCHES,
]


def tidy(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Without copies of shared branches, and with the query embedding in two.

    Returns:
        The dict, and a sentence for every copy that differs from its original.
    """
    copies = [(r"^transformer\.decoder\.(class|bbox)_embed\.", r"\1_embed.")]
    if not any(key.startswith("transformer.decoder.bbox_embed.") for key in state_dict):
        copies.append((r"^(class|bbox)_embed\.[1-9]\d*\.", r"\1_embed.0."))
    tidied, problems = without_copies(state_dict, copies)
    return split_queries(tidied, QUERIES), problems
