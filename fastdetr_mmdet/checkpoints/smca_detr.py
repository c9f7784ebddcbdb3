"""Names of the official SMCA code (gaopengcuhk/SMCA-DETR, single scale and multi-scale) -> ours.

The official layers predict the Gaussian themselves (point1 reference point, point2 offsets, point3
scales, point4 scale selection), from norm4; here the first three are the spatial prior's, the last
the cross-attention's.
"""

from .rename import (
    BACKBONE,
    DECODER,
    DENSE_ENCODER,
    ENCODER,
    FEEDFORWARD,
    LEVELS,
    OUR_DECODER,
    OUR_ENCODER,
    PLAIN_SELF_ATTENTION,
    SHARED_BRANCHES,
    Renames,
)

RENAMES: Renames = [
    *BACKBONE,
    (r"^input_proj\.", "neck.convs.0.conv."),
    (r"^input_proj_512\.", "neck.convs.0.conv."),
    (r"^input_proj_1024\.", "neck.convs.1.conv."),
    (r"^input_proj_2048\.", "neck.convs.2.conv."),
    (r"^input_proj_2048_3\.", "neck.extra_convs.0.conv."),
    *LEVELS,
    *DENSE_ENCODER,
    *FEEDFORWARD,
    (ENCODER + r"self_attn_8\.", OUR_ENCODER + "within.0."),
    (ENCODER + r"self_attn_16\.", OUR_ENCODER + "within.1."),
    (ENCODER + r"self_attn_32\.", OUR_ENCODER + "within.2."),
    (ENCODER + r"self_attn_64\.", OUR_ENCODER + "within.3."),
    (ENCODER + r"high_to_low(?:_1)?\.", OUR_ENCODER + "down.0."),
    (ENCODER + r"high_to_low_2\.", OUR_ENCODER + "down.1."),
    (ENCODER + r"high_to_low_3\.", OUR_ENCODER + "down.2."),
    (ENCODER + r"low_to_high(?:_1)?\.", OUR_ENCODER + "up.0."),
    (ENCODER + r"low_to_high_2\.", OUR_ENCODER + "up.1."),
    (ENCODER + r"low_to_high_3\.", OUR_ENCODER + "up.2."),
    (ENCODER + r"conv_1\.", OUR_ENCODER + "in_proj."),
    (ENCODER + r"conv_2\.", OUR_ENCODER + "out_proj."),
    (r"^transformer\.conv\.", "transformer.encoder.reduce."),
    (DECODER + r"(norm[123])\.", OUR_DECODER + r"\2."),
    (DECODER + r"norm4\.", OUR_DECODER + "input_norm."),
    *PLAIN_SELF_ATTENTION,
    (
        DECODER + r"multihead_attn\.in_proj_(weight|bias)$",
        OUR_DECODER + r"cross_attn.in_proj.proj.\2",
    ),
    (DECODER + r"multihead_attn\.out_proj\.", OUR_DECODER + "cross_attn.out_proj."),
    (DECODER + r"point1\.layers\.0\.", OUR_DECODER + "spatial_prior.reference_branch.0."),
    (DECODER + r"point1\.layers\.1\.", OUR_DECODER + "spatial_prior.reference_branch.2."),
    (DECODER + r"point1\.layers\.2\.", OUR_DECODER + "spatial_prior.reference_branch.4."),
    (DECODER + r"point2\.", OUR_DECODER + "spatial_prior.offset_branch."),
    (DECODER + r"point3\.", OUR_DECODER + "spatial_prior.scale_branch."),
    (DECODER + r"point4\.", OUR_DECODER + "cross_attn.scale_selection."),
    (r"^transformer\.decoder\.norm\.", "transformer.decoder.norm."),
    (r"^query_embed\.", "transformer.queries.pos."),
    *SHARED_BRANCHES,
]
