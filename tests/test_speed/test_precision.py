"""Every method trains and predicts in bfloat16 and float16, near its float32 results."""

import pytest
import torch
from support.models import make_batch
from support.precision import DEPTH, assert_same, run, well_conditioned
from support.small import small_detector
from torch.utils._python_dispatch import TorchDispatchMode

# With coordinate operators (see below) that the model also uses in low precision for other values:
# gates and attention weights of SAM-DETR, scale selection of SMCA.
MODELS = {
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco": set(),
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco": set(),
    "smca_detr/smca-detr-ms_r50_8xb1-50e_coco": {"_softmax"},
    "sam_detr/sam-detr_r50_4xb4-50e_coco": {"sigmoid", "_softmax"},
    "sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco": {"sigmoid"},
}
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@dtypes
@pytest.mark.parametrize("name", MODELS)
def test_near_float32(name, dtype):
    """Outputs, loss and gradient.

    Each operator rounds by up to half an eps, randomly up or down, so errors grow by sqrt(DEPTH).
    """
    model, batch = well_conditioned(name), make_batch()
    expected, found = (run(model, batch, autocast) for autocast in (None, dtype))
    share = DEPTH**0.5 * torch.finfo(dtype).eps / 2
    assert_same(found, expected, share)


class Watch(TorchDispatchMode):
    """Records coordinate operators with inputs of a type.

    Features use products, sums, norms and softmaxes of attention. Only coordinates, costs and
    losses use these operators, which need float32.
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
