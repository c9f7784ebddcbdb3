"""Layers that parts share: attention, MLPs, positional encodings, initialisers."""

from .attention import (
    InProjection,
    OutProjection,
    attend,
    attention_bias,
    attention_weights,
    biased,
    check_heads,
    project,
)
from .initializers import TorchDefaultInit
from .mlp import MLP, FeedForward, by_tokens, call_layer, init_xavier
from .positions import SAMSinePositionalEncoding, sine_embedding

__all__ = [
    "MLP",
    "FeedForward",
    "InProjection",
    "OutProjection",
    "SAMSinePositionalEncoding",
    "TorchDefaultInit",
    "attend",
    "attention_bias",
    "attention_weights",
    "biased",
    "by_tokens",
    "call_layer",
    "check_heads",
    "init_xavier",
    "project",
    "sine_embedding",
]
