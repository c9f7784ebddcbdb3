"""Every method trains and predicts in bfloat16 and float16, near its float32 results."""

import pytest
import torch
from support.models import make_batch
from support.small import small_detector
from torch.utils._python_dispatch import TorchDispatchMode

# With the coordinate operators (see below) whose low-precision use in the model is no coordinate:
# the gates and the attention weights of SAM-DETR, the scale selection of SMCA.
MODELS = {
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco": set(),
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco": set(),
    "smca_detr/smca-detr-ms_r50_8xb1-50e_coco": {"_softmax"},
    "sam_detr/sam-detr_r50_4xb4-50e_coco": {"sigmoid", "_softmax"},
    "sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco": {"sigmoid"},
}
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
# Operators that numbers go through, one after the other, from the image to the loss.
DEPTH = 100


def well_conditioned(name):
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


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@dtypes
@pytest.mark.parametrize("name", MODELS)
def test_near_float32(name, dtype):
    """Outputs, loss and gradient.

    Each operator rounds by up to half an eps, up or down by chance: after DEPTH of them numbers are
    off by sqrt(DEPTH) as much. That share of the ReLUs, and of the cells that are sampled, is then
    another one, each of which changes its part of the gradient altogether: so the gradient is off
    by the root of the share. It is of a smooth function: another matching is another loss.
    """
    model, results = well_conditioned(name), []
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            losses = model.loss(*make_batch())
            logits, boxes = model._forward(*make_batch())
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        sum(losses.values()).backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(torch.isfinite(p.grad).all() for p in trained)
        assert {p.grad.dtype for p in trained} == {boxes.dtype} == {torch.float32}
        model.zero_grad()
        (logits.float().square().mean() + boxes.square().mean()).backward()
        grads = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
        model.zero_grad()
        # along the queries, because proposals of almost the same score may exchange places
        outputs = torch.cat([x.detach().float().sort(2).values.flatten() for x in (logits, boxes)])
        results.append((outputs, sum(losses.values()).detach(), grads))
    share = DEPTH**0.5 * torch.finfo(dtype).eps / 2
    outputs, loss, gradient = map(relative_error, *reversed(results))
    assert outputs < share
    assert loss < share
    assert gradient < share**0.5


class Watch(TorchDispatchMode):
    """Notes the coordinate operators that are given numbers of a type.

    Features go through products, sums, norms and softmaxes of attention. Coordinates, costs and
    losses also go through these, on which float32 depends.
    """

    COORDINATE = frozenset(
        """sub rsub div pow sqrt rsqrt exp log log1p sin cos tanh sigmoid logit softplus _softmax
        floor ceil round clamp clamp_min clamp_max abs maximum minimum cumsum sum mean addcmul
        addcdiv grid_sampler_2d _embedding_bag _embedding_bag_forward_only index_add scatter_add
        """.split()
    )

    def __init__(self, dtype):
        super().__init__()
        self.dtype, self.seen = dtype, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::").rstrip("_")
        if name in self.COORDINATE and any(getattr(x, "dtype", None) == self.dtype for x in args):
            self.seen.add(name)
        return function(*args, **(kwargs or {}))


@dtypes
@pytest.mark.parametrize("name", MODELS)
def test_coordinates_scores_and_losses_are_computed_in_float32(name, dtype):
    model = small_detector(name)
    with torch.no_grad(), torch.autocast("cpu", dtype), Watch(dtype) as watch:
        model.loss(*make_batch())
        model.predict(*make_batch())
    assert watch.seen == MODELS[name]
