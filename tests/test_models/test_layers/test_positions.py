"""The sine embedding equals its formula, written as a loop."""

import math

import pytest
import torch
from mmdet.models.layers import LearnedPositionalEncoding, SinePositionalEncoding
from support.tolerances import assert_near

from fastdetr_mmdet.models.layers.positions import (
    SAMSinePositionalEncoding,
    encode_whole,
    sine_embedding,
)


def by_formula(point, num_feats, order, temperature):
    features = []
    for letter in order[: len(point)]:
        angle = 2 * math.pi * point["xywh".index(letter)]
        for i in range(num_feats // 2):
            wave_length = temperature ** (2 * i / num_feats)
            features += [math.sin(angle / wave_length), math.cos(angle / wave_length)]
    return features


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("order", ["yxwh", "xywh"])
@pytest.mark.parametrize("temperature", [20.0, 10000.0])
def test_equals_the_formula(coordinates, order, temperature):
    reference = torch.rand(2, 3, coordinates)
    embedded = sine_embedding(reference, 8, temperature, order)
    assert embedded.shape == (2, 3, 8 * coordinates)
    for image in range(2):
        for query in range(3):
            expected = by_formula(reference[image, query].tolist(), 8, order, temperature)
            assert_near(embedded[image, query], torch.tensor(expected))


def test_equals_the_encoding_of_the_image():
    """The dot product of both measures distance only with equal frequencies."""
    h, w = 4, 6
    encoding = SinePositionalEncoding(num_feats=16, normalize=True)(torch.zeros(1, h, w))
    y, x = torch.meshgrid(torch.arange(1, h + 1) / h, torch.arange(1, w + 1) / w, indexing="ij")
    embedded = sine_embedding(torch.stack([x, y], dim=-1), num_feats=16)
    assert_near(embedded.permute(2, 0, 1), encoding[0], rtol=0, atol=1e-4)


def test_is_computed_in_float32_and_differentiable():
    reference = torch.tensor([[0.0, 1.0]], dtype=torch.float16, requires_grad=True)
    embedded = sine_embedding(reference, 128)
    assert embedded.dtype == torch.float32
    embedded.sum().backward()
    assert torch.isfinite(reference.grad).all()
    assert reference.grad.abs().min() > 0


@pytest.mark.parametrize("size", [(7, 5), (1, 9), (40, 1), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "encoding",
    [SinePositionalEncoding(8, normalize=True, offset=-0.5), SAMSinePositionalEncoding(8)],
    ids=["sine", "sam"],
)
def test_halves_that_are_kept_are_the_encoding(encoding, size):
    """Bit-identical, in the same layout, also from the cache and with gradients."""
    whole = encoding(torch.zeros(1, *size, dtype=torch.bool))
    with torch.inference_mode():
        assert torch.equal(encode_whole(encoding, size, whole.device), whole)
    kept = encode_whole(encoding, size, whole.device)
    assert torch.equal(kept, whole)
    assert kept.stride() == whole.stride()
    (kept * torch.ones(1, requires_grad=True)).sum().backward()


def test_an_encoding_that_learns_is_not_kept():
    encoding = LearnedPositionalEncoding(4, 6, 6)
    size, cpu = (3, 5), torch.device("cpu")
    encode_whole(encoding, size, cpu)
    torch.nn.init.ones_(encoding.row_embed.weight)
    assert encode_whole(encoding, size, cpu)[:, 4:].eq(1).all()
