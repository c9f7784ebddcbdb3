"""One model's outputs, loss and gradient, computed in two ways, and how near they must be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.models import make_batch
from support.small import small_detector

# Operators that numbers go through, one after the other, from the image to the loss.
DEPTH = 100
Results = tuple[Tensor, Tensor, Tensor]


def well_conditioned(name: str) -> nn.Module:
    """The small model in evaluation mode, whose results follow small changes of its arithmetic.

    Its features have unit size, as those of trained models: random weights make them 25, then
    softmaxes are ones and zeros, and one ulp turns the gradient by up to 90 degrees. It has as many
    queries as tokens, so that no proposal drops out for another of the same score.
    """
    model = small_detector(name, num_queries=128)
    with torch.no_grad():
        sizes = [maps.square().mean().sqrt() for maps in model.extract_feat(make_batch()[0])]
        for parameter in model.neck.parameters():
            parameter.div_(max(sizes))
    return model


def run(model: nn.Module, batch: tuple, dtype: torch.dtype | None = None) -> Results:
    """Outputs, loss and gradient, the last of a smooth function: another matching, another loss.

    Args:
        model: Its gradients are emptied.
        batch: As of ``make_batch``, on the model's device.
        dtype: Of autocast; None without.
    """
    with torch.autocast(batch[0].device.type, dtype, enabled=dtype is not None):
        losses = model.loss(*batch)
        logits, boxes = model._forward(*batch)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total = sum(losses.values())
    total.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(torch.isfinite(p.grad).all() for p in trained)
    assert {p.grad.dtype for p in trained} == {boxes.dtype} == {torch.float32}
    model.zero_grad()
    (logits.float().square().mean() + boxes.square().mean()).backward()
    grads = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    model.zero_grad()
    # along the queries, because proposals of almost the same score may exchange places
    outputs = torch.cat([x.detach().float().sort(2).values.flatten() for x in (logits, boxes)])
    return outputs.cpu(), total.detach().cpu(), grads.cpu()


def assert_same(found: Results, expected: Results, share: float) -> None:
    """Outputs and loss within a share of their size, the gradient within the root of it.

    That share of the ReLUs, and of the cells that are sampled, is another one, each of which
    changes its part of the gradient altogether.
    """
    bounds = dict(outputs=share, loss=share, gradient=share**0.5)
    for (what, bound), x, y in zip(bounds.items(), found, expected, strict=True):
        error = float((x - y).norm() / y.norm())
        assert error < bound, f"{what}: off by {error:.2e} of its size, allowed {bound:.2e}"
