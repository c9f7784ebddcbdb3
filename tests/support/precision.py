"""Compare a model's outputs, loss and gradient of two computations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.models import make_batch
from support.small import small_detector

# Number of consecutive operators from the image to the loss.
DEPTH = 100
Results = tuple[Tensor, Tensor, Tensor]


def well_conditioned(name: str) -> nn.Module:
    """A small model in evaluation mode that is well conditioned.

    Its features have unit size, like trained models'. (Random weights make them 25; then softmaxes
    saturate, and one ulp rotates the gradient by up to 90 degrees.) It has as many queries as
    tokens, so that proposals with equal scores do not replace each other.
    """
    model = small_detector(name, num_queries=128)
    with torch.no_grad():
        sizes = [maps.square().mean().sqrt() for maps in model.extract_feat(make_batch()[0])]
        for parameter in model.neck.parameters():
            parameter.div_(max(sizes))
    return model


def run(model: nn.Module, batch: tuple, dtype: torch.dtype | None = None) -> Results:
    """Compute outputs, loss, and the gradient of a smooth function that needs no matching.

    Args:
        model: The model; its gradients are reset.
        batch: From ``make_batch``, on the model's device.
        dtype: Type of autocast; None: no autocast.
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
    # sorted along queries, because proposals with nearly equal scores may swap
    outputs = torch.cat([x.detach().float().sort(2).values.flatten() for x in (logits, boxes)])
    return outputs.cpu(), total.detach().cpu(), grads.cpu()


def assert_same(found: Results, expected: Results, share: float) -> None:
    """Check outputs and loss within a share of their size, and the gradient within its root.

    That share of ReLUs and sampled cells may differ, and each changes its part of the gradient
    completely.
    """
    bounds = dict(outputs=share, loss=share, gradient=share**0.5)
    for (what, bound), x, y in zip(bounds.items(), found, expected, strict=True):
        error = float((x - y).norm() / y.norm())
        assert error < bound, f"{what}: off by {error:.2e} of its size, allowed {bound:.2e}"
