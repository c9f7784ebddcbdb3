"""Names of the official Conditional DETR code (Atten4Vis/ConditionalDETR) -> ours.

First match wins. The official decoder keeps the attentions' projections in its layers, and the
reference head in the decoder; here they belong to the attention and to the query initialiser.
"""

ENCODER = r"^transformer\.encoder\.layers\.(\d+)\."
DECODER = r"^transformer\.decoder\.layers\.(\d+)\."
OUR_ENCODER = r"transformer.encoder.layers.\1."
OUR_DECODER = r"transformer.decoder.layers.\1."

RENAMES = [
    # torchvision's and mmdet's ResNet have the same names
    (r"^backbone\.0\.body\.", "backbone."),
    (r"^input_proj\.", "neck.convs.0.conv."),
    (ENCODER + r"self_attn\.in_proj_(weight|bias)$", OUR_ENCODER + r"in_proj.proj.\2"),
    (ENCODER + r"self_attn\.out_proj\.", OUR_ENCODER + "out_proj."),
    (ENCODER + r"(linear[12])\.", OUR_ENCODER + r"ffn.\2."),
    (ENCODER + r"(norm[12])\.", OUR_ENCODER + r"\2."),
    (r"^query_embed\.", "transformer.queries.pos."),
    (r"^transformer\.decoder\.ref_point_head\.layers\.0\.", "transformer.queries.reference.0."),
    (r"^transformer\.decoder\.ref_point_head\.layers\.1\.", "transformer.queries.reference.2."),
    (r"^transformer\.decoder\.query_scale\.layers\.0\.", "transformer.decoder.query_scale.0."),
    (r"^transformer\.decoder\.query_scale\.layers\.1\.", "transformer.decoder.query_scale.2."),
    (r"^transformer\.decoder\.norm\.", "transformer.decoder.norm."),
    (DECODER + r"sa_([qk])(content|pos)_proj\.", OUR_DECODER + r"self_attn.\2_\3_proj."),
    (DECODER + r"sa_v_proj\.", OUR_DECODER + "self_attn.v_proj."),
    (DECODER + r"self_attn\.out_proj\.", OUR_DECODER + "self_attn.out_proj."),
    (DECODER + r"ca_qpos_sine_proj\.", OUR_DECODER + "cross_attn.q_spatial_proj."),
    (DECODER + r"ca_([qk])(content|pos)_proj\.", OUR_DECODER + r"cross_attn.\2_\3_proj."),
    (DECODER + r"ca_v_proj\.", OUR_DECODER + "cross_attn.v_proj."),
    (DECODER + r"cross_attn\.out_proj\.", OUR_DECODER + "cross_attn.out_proj."),
    (DECODER + r"(linear[12])\.", OUR_DECODER + r"ffn.\2."),
    (DECODER + r"(norm[123])\.", OUR_DECODER + r"\2."),
    (r"^class_embed\.", "bbox_head.cls_branches.0."),
    (r"^bbox_embed\.layers\.0\.", "bbox_head.reg_branches.0.0."),
    (r"^bbox_embed\.layers\.1\.", "bbox_head.reg_branches.0.2."),
    (r"^bbox_embed\.layers\.2\.", "bbox_head.reg_branches.0.4."),
]
