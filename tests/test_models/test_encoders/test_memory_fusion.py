"""Memory fusion against the sum of one product per layer."""

import pytest
import torch
from mmdet.registry import MODELS
from support.memories import in_double, make_memory
from support.models import EMBED_DIMS, NUM_HEADS, randomise
from support.tolerances import assert_near
from torch.nn import functional as F


def build(kind, **kwargs):
    torch.manual_seed(0)
    config = dict(type=kind, embed_dims=EMBED_DIMS, num_layers=2, num_heads=NUM_HEADS, dropout=0.0)
    return MODELS.build(config | kwargs).double().eval()


@pytest.mark.parametrize(
    "kind, options", [("DetrEncoder", {}), ("DeformableDetrEncoder", dict(num_levels=2))]
)
@torch.no_grad()
def test_every_state_counts(kind, options):
    """The input and each layer's output; earlier outputs come from encoders with fewer layers."""
    fused = randomise(build(kind, memory_fusion=True, **options))
    memory, states = in_double(make_memory(strides=(8, 16))), []
    for num_layers in range(3):
        plain = build(kind, **options | dict(num_layers=num_layers))
        plain.load_state_dict(fused.state_dict(), strict=False)
        states.append(plain(memory).tokens)
    assert torch.equal(states[0], memory.tokens)
    proj, norm = fused.fusion.proj, fused.fusion.norm
    weights = proj.weight.split(EMBED_DIMS, dim=1)
    total = sum(state @ weight.T for state, weight in zip(states, weights, strict=True))
    expected = F.layer_norm(total + proj.bias, (EMBED_DIMS,), norm.weight, norm.bias)
    assert_near(fused(memory).tokens, expected, torch.float64)


@pytest.mark.parametrize("kind", ["DetrEncoder", "DeformableDetrEncoder"])
def test_without_it_an_encoder_is_what_it_was(kind):
    """Names and random numbers of the layers stay the same."""
    plain, fused = build(kind).state_dict(), build(kind, memory_fusion=True).state_dict()
    assert {name.split(".")[0] for name in plain} == {"layers"}
    for name, weight in plain.items():
        assert torch.equal(weight, fused[name])
    assert {name for name in fused if name not in plain} == {
        f"fusion.{layer}.{kind}" for layer in ("proj", "norm") for kind in ("weight", "bias")
    }
