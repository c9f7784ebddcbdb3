"""The dense encoder against torch's own."""

from support.by_hand import as_torch
from support.memories import make_memory
from support.models import NUM_HEADS, build_part
from support.tolerances import assert_near


def test_equals_torch():
    """Positions are added to queries and keys, not to values; norms come after residuals."""
    options = dict(num_layers=2, num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
    encoder, memory = build_part("DetrEncoder", **options), make_memory(strides=(8, 16))
    tokens = memory.tokens
    for layer in encoder.layers:
        located, mask = tokens + memory.pos, memory.padding_mask
        attended, _ = as_torch(layer)(located, located, tokens, key_padding_mask=mask)
        tokens = layer.norm1(tokens + attended)
        tokens = layer.norm2(tokens + layer.ffn.linear2(layer.ffn.linear1(tokens).relu()))
    valid = ~memory.padding_mask
    assert_near(encoder(memory).tokens[valid], tokens[valid])
