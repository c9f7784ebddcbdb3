"""Names of the official Conditional DETR code (Atten4Vis/ConditionalDETR) -> ours.

The official decoder keeps the attentions' projections in its layers, and the reference head in the
decoder; here they belong to the attention and to the query initialiser.
"""

from .rename import (
    BACKBONE,
    CONDITIONAL_SELF_ATTENTION,
    DECODER,
    DENSE_ENCODER,
    FEEDFORWARD,
    OUR_DECODER,
    SHARED_BRANCHES,
    Renames,
)

RENAMES: Renames = [
    *BACKBONE,
    (r"^input_proj\.", "neck.convs.0.conv."),
    *DENSE_ENCODER,
    *FEEDFORWARD,
    (DECODER + r"(norm[123])\.", OUR_DECODER + r"\2."),
    (r"^query_embed\.", "transformer.queries.pos."),
    (r"^transformer\.decoder\.ref_point_head\.layers\.0\.", "transformer.queries.reference.0."),
    (r"^transformer\.decoder\.ref_point_head\.layers\.1\.", "transformer.queries.reference.2."),
    (r"^transformer\.decoder\.query_scale\.layers\.0\.", "transformer.decoder.query_scale.0."),
    (r"^transformer\.decoder\.query_scale\.layers\.1\.", "transformer.decoder.query_scale.2."),
    (r"^transformer\.decoder\.norm\.", "transformer.decoder.norm."),
    *CONDITIONAL_SELF_ATTENTION,
    (DECODER + r"ca_qpos_sine_proj\.", OUR_DECODER + "cross_attn.q_spatial_proj."),
    (DECODER + r"ca_([qk])(content|pos)_proj\.", OUR_DECODER + r"cross_attn.\2_\3_proj."),
    (DECODER + r"ca_v_proj\.", OUR_DECODER + "cross_attn.v_proj."),
    (DECODER + r"cross_attn\.out_proj\.", OUR_DECODER + "cross_attn.out_proj."),
    *SHARED_BRANCHES,
]
