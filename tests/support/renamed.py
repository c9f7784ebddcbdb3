"""Rename weights to the names of codes that cannot be installed, from their source code."""

from __future__ import annotations

import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def _rename(weights: Weights, rules: list[tuple[str, str]]) -> Weights:
    renamed = {}
    for key, value in weights.items():
        new = key
        for old, replacement in rules:
            new = re.sub(old, replacement, new)
        assert new not in renamed, new
        renamed[new] = value
    return renamed


def official_dino(mmdet: Weights) -> Weights:
    """IDEA-Research/DINO's names for a model of mmdet's.

    There, convolutions before norms have biases, denoising has one more label, the decoder repeats
    the branches, and layers count the norm of cross-attention first.
    """
    levels = sum(bool(re.match(r"neck\.convs\.\d\.conv\.weight", key)) for key in mmdet)
    last = max(int(key.split(".")[2]) for key in mmdet if "cls_branches" in key)
    names = _rename(
        mmdet,
        [
            (r"^backbone\.(?=(conv|bn|layer)\d)", "backbone.0.body."),
            # Swin: constant tensors only, because its merged patches have another order
            (r"^backbone\.(?!0)", "backbone.0."),
            (r"^(backbone\.0\.)stages\.", r"\1layers."),
            (r"^(backbone\..*)\.w_msa\.", r"\1."),
            (r"^(backbone\..*)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
            (r"^(backbone\..*)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
            (r"^(backbone\..*)\.projection\.", r"\1.proj."),
            (r"^neck\.convs\.(\d)", r"input_proj.\1"),
            (r"^neck\.extra_convs\.0", f"input_proj.{levels}"),
            (r"^(input_proj\.\d)\.conv\.", r"\1.0."),
            (r"^(input_proj\.\d)\.gn\.", r"\1.1."),
            (r"^(level_embed|encoder\.|decoder\.)", r"transformer.\1"),
            (r"\.ffn\.layers\.0\.0\.", ".linear1."),
            (r"\.ffn\.layers\.1\.", ".linear2."),
            (r"(encoder\.layers\.\d+)\.norms\.0\.", r"\1.norm1."),
            (r"(encoder\.layers\.\d+)\.norms\.1\.", r"\1.norm2."),
            (r"(decoder\.layers\.\d+)\.norms\.0\.", r"\1.norm2."),
            (r"(decoder\.layers\.\d+)\.norms\.1\.", r"\1.norm1."),
            (r"(decoder\.layers\.\d+)\.norms\.2\.", r"\1.norm3."),
            (r"\.self_attn\.attn\.", ".self_attn."),
            (r"^query_embedding\.", "transformer.tgt_embed."),
            (r"^memory_trans_fc\.", "transformer.enc_output."),
            (r"^memory_trans_norm\.", "transformer.enc_output_norm."),
            (r"^dn_query_generator\.label_embedding\.", "label_enc."),
            (rf"^bbox_head\.cls_branches\.{last}\.", "transformer.enc_out_class_embed."),
            (rf"^bbox_head\.reg_branches\.{last}\.", "transformer.enc_out_bbox_embed."),
            (r"^bbox_head\.cls_branches\.", "class_embed."),
            (r"^bbox_head\.reg_branches\.", "bbox_embed."),
            (r"(bbox_embed\.(?:\d\.)?)0\.(\w+)$", r"\1layers.0.\2"),
            (r"(bbox_embed\.(?:\d\.)?)2\.(\w+)$", r"\1layers.1.\2"),
            (r"(bbox_embed\.(?:\d\.)?)4\.(\w+)$", r"\1layers.2.\2"),
        ],
    )
    names = {k: v for k, v in names.items() if not k.endswith("num_batches_tracked")}
    for level in range(levels + 1):
        norm = names[f"input_proj.{level}.1.bias"]
        names[f"input_proj.{level}.0.bias"] = torch.linspace(0, 1, len(norm)) + level
    names["label_enc.weight"] = torch.cat(
        [names["label_enc.weight"], torch.ones(1, 1).expand(1, len(norm))]
    )
    point_head = "transformer.decoder.ref_point_head.layers.0.weight"
    names[point_head] = names[point_head][:, :512]  # as in mmdet before 3.4
    again = {k: v for k, v in names.items() if re.match("(class|bbox)_embed", k)}
    return names | {f"transformer.decoder.{key}": value for key, value in again.items()}


def detrex(official: Weights) -> Weights:
    """detrex's names for a model of an official code (Deformable DETR, Conditional DETR, DINO).

    Layers hold lists of attentions and norms in the order of application.
    """
    layers = sum(bool(re.fullmatch(r"class_embed\.\d\.bias", key)) for key in official)
    levels = sum(bool(re.fullmatch(r"input_proj\.\d\.0\.bias", key)) for key in official)
    conditional = "class_embed.bias" in official
    order = {1: 0, 2: 1, 3: 2} if conditional else {2: 0, 1: 1, 3: 2}
    deformable = "(sampling_offsets|attention_weights|value_proj|output_proj)"
    names = _rename(
        official,
        [
            (r"^backbone\.0\.body\.(conv|bn)1\.", r"backbone.stem.\g<1>1."),
            *((rf"^backbone\.0\.body\.layer{n}\.", f"backbone.res{n + 1}.") for n in range(1, 5)),
            (r"^(backbone\..*)bn(\d)\.", r"\1conv\2.norm."),
            (r"^(backbone\..*)downsample\.0\.", r"\1shortcut."),
            (r"^(backbone\..*)downsample\.1\.", r"\1shortcut.norm."),
            (rf"^input_proj\.{levels - 1}\.", "neck.extra_convs.0.") if levels > 1 else ("$^", ""),
            (r"^input_proj\.(\d)\.", r"neck.convs.\1."),
            (r"^(neck\..*convs\.\d\.)0\.", r"\1conv."),
            (r"^(neck\..*convs\.\d\.)1\.", r"\1norm."),
            ("level_embed$", "level_embeds"),
            (r"\.linear1\.", ".ffns.0.layers.0.0."),
            (r"\.linear2\.", ".ffns.0.layers.1."),
            *((rf"(encoder\.layers\.\d+)\.norm{n}\.", rf"\1.norms.{n - 1}.") for n in (1, 2)),
            *((rf"(decoder\.layers\.\d+)\.norm{n}\.", rf"\1.norms.{m}.") for n, m in order.items()),
            (r"\.self_attn\.in_proj_", ".attentions.0.attn.in_proj_"),
            (r"(encoder\.layers\.\d+)\.self_attn\.out_proj", r"\1.attentions.0.attn.out_proj"),
            (
                r"\.self_attn\.out_proj",
                ".attentions.0.out_proj" if conditional else ".attentions.0.attn.out_proj",
            ),
            (rf"\.self_attn\.{deformable}", r".attentions.0.\1"),
            (rf"\.cross_attn\.{deformable}", r".attentions.1.\1"),
            (r"\.cross_attn\.out_proj", ".attentions.1.out_proj"),
            (r"\.ca_qpos_sine_proj", ".attentions.1.query_pos_sine_proj"),
            *(
                (rf"\.{a}a_{x}(content|pos)_proj", rf".attentions.{n}.{word}_\1_proj")
                for n, a in enumerate("sc")
                for x, word in (("q", "query"), ("k", "key"))
            ),
            (r"\.sa_v_proj", ".attentions.0.value_proj"),
            (r"\.ca_v_proj", ".attentions.1.value_proj"),
            (r"^query_embed\.", "query_embed." if conditional else "query_embedding."),
            (r"^transformer\.enc_out_(class|bbox)_embed\.", rf"\1_embed.{layers}."),
            *(
                [(r"^transformer\.decoder\.norm\.", "transformer.decoder.post_norm_layer.")]
                * conditional
            ),
        ],
    )
    if "label_enc.weight" in names:
        names["label_enc.weight"] = names["label_enc.weight"][:-1]
        for kind in ("class", "bbox"):
            added = {k: v for k, v in names.items() if k.startswith(f"{kind}_embed.{layers}.")}
            names |= {f"transformer.decoder.{key}": value for key, value in added.items()}
    return names
