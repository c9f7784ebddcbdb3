"""Parameter names of other codes -> ours, one table per code.

Rules are (pattern, replacement) pairs; the first pattern that matches the beginning of a name
wins. In a pattern a dot is a dot, and groups are numbered from 1; in a layer's rules group 1 is the
layer's index.
"""

from __future__ import annotations

Renames = list[tuple[str, str]]

# Suffixes that ``state_dicts.tidy`` gives to the halves of one embedding of positions and contents
POSITIONS, CONTENTS = "#positions", "#contents"


def _layers(stack: str, rules: Renames, theirs: str = "transformer.") -> Renames:
    """The rules below each layer of the encoder or decoder."""
    pattern = rf"{theirs}{stack}.layers.(\d+)."
    return [(pattern + old, rf"transformer.{stack}.layers.\1.{new}") for old, new in rules]


def _kept(*names: str) -> Renames:
    """Rules of a layer for names without groups that are ours too."""
    return [(f"({name})", r"\2") for name in names]


def _mlp(theirs: str, ours: str, count: int) -> Renames:
    """The official MLP counts its linear layers, nn.Sequential the activations between them too."""
    return [(f"{theirs}layers.{index}.", f"{ours}{2 * index}.") for index in range(count)]


# --------------------------------------------------------------------------------------------------
# What the official codes have in common

_COMMON: Renames = [
    ("backbone.0.body.", "backbone."),  # torchvision's and mmdet's ResNet have the same names
    ("(transformer.(?:level_embed$|decoder.norm.))", r"\1"),
    *_layers("encoder", [("(linear[12]).", r"ffn.\2."), *_kept("norm[12].")]),
    *_layers("decoder", [("(linear[12]).", r"ffn.\2.")]),
]
_DENSE_ENCODER = _layers(
    "encoder",
    [
        ("self_attn.in_proj_(weight|bias)$", r"in_proj.proj.\2"),
        ("self_attn.out_proj.", "out_proj."),
    ],
)
_DEFORMABLE_ATTENTION: Renames = [
    ("((?:self|cross)_attn).output_proj.", r"\2.out_proj."),
    *_kept("(?:self|cross)_attn.(?:sampling_offsets|attention_weights|value_proj)."),
]
_DEFORMABLE_ENCODER = _layers("encoder", _DEFORMABLE_ATTENTION)
_PLAIN_SELF_ATTENTION: Renames = [
    ("self_attn.in_proj_(weight|bias)$", r"self_attn.in_proj.proj.\2"),
    *_kept("self_attn.out_proj."),
]
_CONDITIONAL_ATTENTION: Renames = [
    ("sa_([qk])(content|pos)_proj.", r"self_attn.\2_\3_proj."),
    ("sa_v_proj.", "self_attn.v_proj."),
    ("ca_([qk])content_proj.", r"cross_attn.\2_content_proj."),
    ("ca_v_proj.", "cross_attn.v_proj."),
    *_kept("norm[123].", "(?:self|cross)_attn.out_proj."),
]
# One branch for all layers, or one per layer
_SHARED_BRANCHES: Renames = [
    ("class_embed.(weight|bias)$", r"bbox_head.cls_branches.0.\1"),
    *_mlp("bbox_embed.", "bbox_head.reg_branches.0.", 3),
]
_LAYER_BRANCHES: Renames = [
    (r"class_embed.(\d+).", r"bbox_head.cls_branches.\1."),
    *_mlp(r"bbox_embed.(\d+).", r"bbox_head.reg_branches.\1.", 3),
]

# --------------------------------------------------------------------------------------------------
# The official codes

# Its layers hold the projections of the attentions, its decoder the reference head.
CONDITIONAL_DETR: Renames = [
    *_COMMON,
    ("input_proj.", "neck.convs.0.conv."),
    ("query_embed.", "transformer.queries.pos."),
    *_mlp("transformer.decoder.ref_point_head.", "transformer.queries.reference.", 2),
    *_mlp("transformer.decoder.query_scale.", "transformer.decoder.query_scale.", 2),
    *_DENSE_ENCODER,
    *_layers(
        "decoder",
        [
            ("ca_qpos_sine_proj.", "cross_attn.q_spatial_proj."),
            ("ca_([qk])pos_proj.", r"cross_attn.\2_pos_proj."),
            *_CONDITIONAL_ATTENTION,
        ],
    ),
    *_SHARED_BRANCHES,
]

# It numbers the norms in the order of their construction: cross-attention first.
DEFORMABLE_DETR: Renames = [
    *_COMMON,
    (r"input_proj.([0-2]).0.", r"neck.convs.\1.conv."),
    (r"input_proj.([0-2]).1.", r"neck.convs.\1.gn."),
    ("input_proj.3.0.", "neck.extra_convs.0.conv."),
    ("input_proj.3.1.", "neck.extra_convs.0.gn."),
    (f"query_embed.weight{POSITIONS}$", "transformer.queries.pos.weight"),
    (f"query_embed.weight{CONTENTS}$", "transformer.queries.content.weight"),
    ("transformer.reference_points.", "transformer.queries.reference."),
    ("transformer.enc_output.", "transformer.queries.memory_proj."),
    ("transformer.enc_output_norm.", "transformer.queries.memory_norm."),
    ("transformer.pos_trans.", "transformer.queries.box_proj."),
    ("transformer.pos_trans_norm.", "transformer.queries.box_norm."),
    *_DEFORMABLE_ENCODER,
    *_layers(
        "decoder",
        [
            ("norm2.", "norm1."),
            ("norm1.", "norm2."),
            *_kept("norm3."),
            *_PLAIN_SELF_ATTENTION,
            *_DEFORMABLE_ATTENTION,
        ],
    ),
    *_LAYER_BRANCHES,
]

# Its layers find the salient points themselves; here the aligner does.
SAM_DETR: Renames = [
    *_COMMON,
    (r"input_proj.(\d).0.", r"neck.convs.\1.conv."),
    (r"input_proj.(\d).1.", r"neck.convs.\1.gn."),
    ("query_embed.", "transformer.queries.reference."),
    *_DENSE_ENCODER,
    *_DEFORMABLE_ENCODER,
    *_layers(
        "decoder",
        [
            *_mlp("ca_([qk])pos_sine_proj.", r"cross_attn.\2_pos_proj.", 2),
            *_CONDITIONAL_ATTENTION,
            ("point1.0.", "aligner.squeeze."),
            ("point2.", "aligner.point_branch."),
            ("attn1.", "aligner.content_gate."),
            ("attn2.", "aligner.pos_gate."),
        ],
    ),
    *_LAYER_BRANCHES,
]

# Single scale and multi-scale. Its layers predict the Gaussian themselves, from norm4.
SMCA_DETR: Renames = [
    *_COMMON,
    ("input_proj(?:_512)?.", "neck.convs.0.conv."),
    ("input_proj_1024.", "neck.convs.1.conv."),
    ("input_proj_2048.", "neck.convs.2.conv."),
    ("input_proj_2048_3.", "neck.extra_convs.0.conv."),
    ("query_embed.", "transformer.queries.pos."),
    ("transformer.conv.", "transformer.encoder.reduce."),
    *_DENSE_ENCODER,
    *_layers(
        "encoder",
        [
            *((f"self_attn_{8 * 2**n}.", f"within.{n}.") for n in range(4)),
            *(
                (f"{theirs}{'(?:_1)?' if n == 0 else f'_{n + 1}'}.", f"{ours}.{n}.")
                for theirs, ours in (("high_to_low", "down"), ("low_to_high", "up"))
                for n in range(3)
            ),
            ("conv_1.", "in_proj."),
            ("conv_2.", "out_proj."),
        ],
    ),
    *_layers(
        "decoder",
        [
            ("norm4.", "input_norm."),
            *_kept("norm[123]."),
            *_PLAIN_SELF_ATTENTION,
            ("multihead_attn.in_proj_(weight|bias)$", r"cross_attn.in_proj.proj.\2"),
            ("multihead_attn.out_proj.", "cross_attn.out_proj."),
            *_mlp("point1.", "spatial_prior.reference_branch.", 3),
            ("point2.", "spatial_prior.offset_branch."),
            ("point3.", "spatial_prior.scale_branch."),
            ("point4.", "cross_attn.scale_selection."),
        ],
    ),
    *_SHARED_BRANCHES,
]

# --------------------------------------------------------------------------------------------------
# mmdet 3's own Deformable DETR and Conditional DETR

_MMDET_LAYER: Renames = [
    ("ffn.layers.0.0.", "ffn.linear1."),
    ("ffn.layers.1.", "ffn.linear2."),
    *((f"norms.{n}.", f"norm{n + 1}.") for n in range(3)),
    ("((?:self|cross)_attn).output_proj.", r"\2.out_proj."),
]
MMDET: Renames = [
    ("((?:backbone|neck|bbox_head.(?:cls|reg)_branches).)", r"\1"),
    ("level_embed$", "transformer.level_embed"),
    *_layers(
        "encoder",
        [
            *_MMDET_LAYER,
            ("self_attn.attn.in_proj_(weight|bias)$", r"in_proj.proj.\2"),
            ("self_attn.attn.out_proj.", "out_proj."),
            *_kept("self_attn."),
        ],
        theirs="",
    ),
    *_layers(
        "decoder",
        [
            *_MMDET_LAYER,
            ("self_attn.attn.in_proj_(weight|bias)$", r"self_attn.in_proj.proj.\2"),
            ("self_attn.attn.out_proj.", "self_attn.out_proj."),
            ("cross_attn.qpos_sine_proj.", "cross_attn.q_spatial_proj."),
            ("(self|cross)_attn.([qk])(content|pos)_proj.", r"\2_attn.\3_\4_proj."),
            *_kept("(?:self|cross)_attn."),
        ],
        theirs="",
    ),
    ("decoder.post_norm.", "transformer.decoder.norm."),
    *_mlp("decoder.query_scale.", "transformer.decoder.query_scale.", 2),
    *_mlp("decoder.ref_point_head.", "transformer.queries.reference.", 2),
    (f"query_embedding.weight{POSITIONS}$", "transformer.queries.pos.weight"),
    (f"query_embedding.weight{CONTENTS}$", "transformer.queries.content.weight"),
    ("query_embedding.weight$", "transformer.queries.pos.weight"),
    ("reference_points_fc.", "transformer.queries.reference."),
    ("memory_trans_fc.", "transformer.queries.memory_proj."),
    ("memory_trans_norm.", "transformer.queries.memory_norm."),
    ("pos_trans_fc.", "transformer.queries.box_proj."),
    ("pos_trans_norm.", "transformer.queries.box_norm."),
    ("bbox_head.fc_cls.", "bbox_head.cls_branches.0."),
    ("bbox_head.reg_ffn.layers.0.0.", "bbox_head.reg_branches.0.0."),
    ("bbox_head.reg_ffn.layers.1.", "bbox_head.reg_branches.0.2."),
    ("bbox_head.fc_reg.", "bbox_head.reg_branches.0.4."),
]

# In the mmdet table's place for what DINO names alike and means otherwise
MMDET_DINO: Renames = [
    ("decoder.norm.", "transformer.decoder.norm."),
    *_mlp("decoder.ref_point_head.", "transformer.decoder.ref_point_head.", 2),
    ("query_embedding.weight$", "transformer.queries.queries.query_embedding.weight"),
    ("memory_trans_fc.", "transformer.queries.queries.memory_proj."),
    ("memory_trans_norm.", "transformer.queries.queries.memory_norm."),
    ("dn_query_generator.label_embedding.", "transformer.queries.label_embedding."),
    *MMDET,
]

METHODS = {
    "conditional_detr": CONDITIONAL_DETR,
    "deformable_detr": DEFORMABLE_DETR,
    "mmdet": MMDET,
    "sam_detr": SAM_DETR,
    "smca_detr": SMCA_DETR,
}
