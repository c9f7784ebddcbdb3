"""The focal loss that makes no one-hot table, against mmdet's."""

import pytest
import torch
from mmdet.models.losses import FocalLoss
from support.tolerances import assert_near

from fastdetr_mmdet.ops.focal import focal_loss_sum


@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
@pytest.mark.parametrize("num_objects", [0, 9])
@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["usual logits", "large logits"])
def test_equals_mmdets(gamma, num_objects, scale):
    """Value and gradient, each layer by its own weight."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20, 4, generator=generator, dtype=torch.float64) * scale
    logits.requires_grad_()
    objects = torch.randperm(60, generator=generator)[:num_objects]
    classes = torch.randint(4, (num_objects,), generator=generator)
    labels = torch.full((60,), 4)
    labels[objects] = classes
    weight = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)

    loss = FocalLoss(use_sigmoid=True, gamma=gamma, alpha=0.25)
    theirs = loss(logits.flatten(0, 1), labels, reduction_override="none").view(3, -1).sum(1)
    ours = focal_loss_sum(logits, objects, classes, 0.25, gamma)
    assert_near(ours, theirs, torch.float64, rtol=1e-7)
    gradients = [torch.autograd.grad((x * weight).sum(), logits)[0] for x in (ours, theirs)]
    assert_near(*gradients, torch.float64, rtol=1e-6)


def test_a_bad_logit_shows():
    logits = torch.zeros(2, 4, 3)
    logits[1, 2, 0] = float("nan")
    none = torch.zeros(0, dtype=torch.long)
    assert torch.isfinite(focal_loss_sum(logits, none, none, 0.25, 2.0)).tolist() == [True, False]
