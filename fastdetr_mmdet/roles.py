"""Which slot of a config a part belongs to: its folder."""

from __future__ import annotations

from torch import nn

ROLES = {
    "encoders": "an encoder",
    "queries": "a query initialiser",
    "decoders": "a decoder",
    "self_attention": "a self-attention",
    "cross_attention": "a cross-attention",
    "aligners": "an aligner",
    "spatial_priors": "a spatial prior",
}


def check_role(part: nn.Module, role: str, key: str) -> None:
    """Raise ValueError if a part of this package stands in another role's slot of the config.

    Parts from elsewhere may be anything.

    Args:
        part: What was built.
        role: Folder of the slot.
        key: Of the slot in the config.
    """
    module = type(part).__module__.split(".")
    folder = module[1] if module[0] == __package__ and len(module) > 1 else role
    if folder != role and folder in ROLES:
        raise ValueError(
            f"{key} is {type(part).__name__}, which is {ROLES[folder]}, not {ROLES[role]}; "
            "`python -m fastdetr_mmdet.parts` lists the parts of every role."
        )
