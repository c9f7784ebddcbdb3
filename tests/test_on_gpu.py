"""Code that differs on a GPU: results against the CPU's, and waits of the host.

Each test has a dry run on the CPU, marked slow, to check the test's code.
"""

import copy
from contextlib import contextmanager

import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmengine.config import Config
from support.models import make_batch
from support.precision import DEPTH, assert_same, run, well_conditioned
from support.small import EVERY_PART, ROOT, small_detector
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks import batches, launches, work
from benchmarks.cases import Side
from fastdetr_mmdet.models.heads.class_loss import sum_class_loss
from fastdetr_mmdet.ops import deformable, roi
from fastdetr_mmdet.ops.deformable import sample_and_sum, sample_plain

DINO = "dino/dino-4scale_r50_8xb2-12e_coco"
SHAPES, SIDES = ((13, 17), (7, 9), (4, 5)), [13, 17, 7, 9, 4, 5]
EXACT, LOW = [torch.float32, torch.float64], [torch.bfloat16, torch.float16]
# In float32, devices sum in different orders: a hundred roundings of small numbers.
SHARES = {None: 100 * torch.finfo(torch.float32).eps}
SHARES |= {dtype: DEPTH**0.5 * torch.finfo(dtype).eps / 2 for dtype in LOW}
every_part = pytest.mark.parametrize("name", EVERY_PART)
low = pytest.mark.parametrize("dtype", LOW, ids=str)


@pytest.fixture(
    params=[
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
        pytest.param("cpu", marks=pytest.mark.slow),
    ]
)
def gpu(request, monkeypatch) -> torch.device:
    """A GPU without TF32, and the CPU for the dry run."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device(request.param)


def moved(batch, device):
    images, samples = batch
    return images.to(device), [sample.to(device) for sample in samples]


def sampling(dtype, points=torch.float32):
    """Inputs of three images, with many points outside of the maps."""
    tokens = sum(h * w for h, w in SHAPES)
    value = torch.randn(3, 4, tokens, 8).to(dtype).transpose(1, 2)
    locations = (torch.rand(3, 50, 4, 3, 2, 2) * 1.6 - 0.3).to(points)
    return value, locations, torch.rand(3, 50, 4, 3, 2).to(points)


def regions(dtype):
    maps = torch.randn(2, 8, 15, 21).to(dtype, memory_format=torch.channels_last)
    corner = torch.rand(2, 60, 2) * 22 - 4
    return maps, torch.cat([corner, corner + torch.rand(2, 60, 2) * 14], -1)


def with_gradients(function, tensors, device, dtype=None):
    """Output and gradients, copied to the CPU; in float64 without a type."""
    given = [x.detach().to(device, dtype or x.dtype).requires_grad_() for x in tensors]
    output = function(*given)
    direction = torch.linspace(-1, 1, output.numel(), device=device).view(output.shape)
    found = torch.autograd.grad((output * direction).sum(), given)
    return [x.detach().cpu() for x in (output, *found)]


def assert_rounded(found, exact, dtype):
    """Check differences of a few roundings of the largest value."""
    unit = torch.finfo(torch.promote_types(dtype, torch.float32) if dtype in EXACT else dtype).eps
    for x, y in zip(found, exact, strict=True):
        assert (x.double() - y).abs().max() < 32 * unit * y.abs().max()


@pytest.mark.parametrize("dtype", EXACT + LOW, ids=str)
def test_sampling(gpu, dtype):
    """mmcv's kernels, forward and backward, against grid_sample in float64."""

    def function(sample):
        return lambda value, *points: sample(value, SHAPES, *points)

    inputs = sampling(dtype, dtype)
    exact = with_gradients(function(sample_plain), inputs, "cpu", torch.float64)
    assert_rounded(with_gradients(function(sample_and_sum), inputs, gpu), exact, dtype)


@pytest.mark.parametrize("dtype", EXACT + LOW, ids=str)
def test_regions(gpu, dtype):
    """mmcv's RoIAlign against matrix products in float64."""
    maps, boxes = regions(dtype)
    image = torch.arange(2.0)[:, None, None].expand(-1, 60, 1)
    rois = torch.cat([image, boxes], -1).flatten(0, 1)
    found = with_gradients(lambda x: roi._align(x, rois.to(gpu), 7), [maps], gpu)
    exact = with_gradients(
        lambda x: roi._align_by_products(x, boxes.double(), 7), [maps], "cpu", torch.float64
    )
    assert_rounded(found, exact, dtype)


@pytest.mark.parametrize("of", ["sampling", "regions"])
def test_opcheck(gpu, of):
    if of == "sampling":
        inputs = [x.to(gpu) for x in sampling(torch.float16)]
        op, rest = deformable._sample, [SIDES]
    else:
        maps, boxes = (x.to(gpu) for x in regions(torch.float16))
        rois = torch.nn.functional.pad(boxes[1], (1, 0), value=1.0)
        op, inputs, rest = roi._align, [maps], [rois, 7]
    torch.library.opcheck(op, (*(x.detach().requires_grad_() for x in inputs), *rest))


def test_focal_loss(gpu):
    """On a GPU mmdet has a fused kernel for it."""
    query_index, classes = torch.tensor([3, 25, 71]), torch.tensor([0, 4, 2])

    def loss(logits):
        index = query_index.to(logits.device), classes.to(logits.device)
        return sum_class_loss(FocalLoss(), logits, *index, None)

    logits = [torch.randn(2, 2, 20, 5) * 3]
    exact = with_gradients(loss, logits, "cpu", torch.float64)
    assert_rounded(with_gradients(loss, logits, gpu), exact, torch.float32)


@pytest.mark.parametrize("dtype", [None, *LOW], ids=str)
@every_part
def test_model(gpu, name, dtype):
    """Outputs, loss and gradient against the CPU's float32, with padding, also in autocast."""
    model, batch = well_conditioned(name), make_batch()
    expected = run(model, batch)
    assert_same(run(model.to(gpu), moved(batch, gpu), dtype), expected, SHARES[dtype])


@low
@every_part
@torch.no_grad()
def test_weights_of_low_precision_predict(gpu, name, dtype):
    model, batch = well_conditioned(name), make_batch()

    def boxes():
        images, samples = moved(batch, gpu)
        found = [sample.pred_instances for sample in model.predict(images, samples)]
        assert all(x.scores.dtype == x.bboxes.dtype == torch.float32 for x in found)
        outputs = model._forward(images, samples)
        return torch.cat([x[-1].float().sort(1).values.flatten() for x in outputs])

    model.to(gpu)
    expected = boxes()
    model.to(dtype)
    assert (boxes() - expected).norm() < SHARES[dtype] * expected.norm()


def training_step(name, device, dtype="fp32"):
    """The model and a function for a training step with the config's optimizer."""
    model = small_detector(name).to(device)
    config = Config.fromfile(ROOT / "configs" / f"{name}.py")
    batch = batches.make_batch(2, (96, 128), device=str(device), num_classes=5)
    return model, work.training_step(Side(model, config), batch, device.type, dtype), batch


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", [EVERY_PART[1], EVERY_PART[4], DINO])
def test_training_lowers_the_loss(gpu, name, dtype):
    model, step, batch = training_step(name, gpu, dtype)

    @torch.no_grad()
    def loss():
        return float(sum(model.eval().loss(batch.images, batch.samples).values()))

    before = loss()
    for _ in range(8):
        step()
    assert loss() < before
    assert all(p.isfinite().all() for p in model.parameters())


@contextmanager
def no_waits(device, monkeypatch):
    """Make waits for the device errors, except in ``Tensor.cpu``, whose calls are returned."""
    calls, to_host = [], torch.Tensor.cpu

    def on_waits(mode):
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)

    def copy_to_host(x, *args, **kwargs):
        calls.append(x)
        on_waits("default")
        result = to_host(x, *args, **kwargs)
        on_waits("error")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", copy_to_host)
        try:
            on_waits("error")
            yield calls
        finally:
            on_waits("default")


@pytest.mark.parametrize("name", [*EVERY_PART, DINO])
def test_host_waits_once_in_a_training_step(gpu, name, monkeypatch):
    """For the costs of the matches."""
    _, step, _ = training_step(name, gpu)
    step()
    with no_waits(gpu, monkeypatch) as calls:
        step()
    assert len(calls) == 1
    if gpu.type == "cuda":
        assert launches.count(step, "cuda")["waits"] == 1


@every_part
@torch.no_grad()
def test_host_never_waits_in_inference(gpu, name, monkeypatch):
    model, batch = small_detector(name).to(gpu), moved(make_batch(), gpu)
    model.predict(*batch)
    with no_waits(gpu, monkeypatch) as calls:
        model.predict(*batch)
    assert not calls


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
def test_maps_are_channels_last_in_low_precision(gpu, dtype):
    """On a GPU; on a CPU in every precision."""
    model, seen = small_detector(EVERY_PART[0]).to(gpu), []
    layer = model.backbone.layer1[0]
    layer.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    with torch.no_grad(), torch.autocast(gpu.type, dtype, enabled=dtype is not None):
        model.backbone(make_batch()[0].to(gpu))
    assert seen in ([], [dtype is not None or gpu.type == "cpu"])


@pytest.mark.parametrize("name", [EVERY_PART[1], EVERY_PART[4]])
def test_compiled_equals_eager(gpu, name):
    """Transformer and head in one graph."""
    model, batch = well_conditioned(name).to(gpu), moved(make_batch(), gpu)
    with torch.no_grad():
        memory = model.make_memory(model.extract_feat(batch[0]), *batch)

    def function(memory):
        head = model.bbox_head
        return head(model.transformer(memory, head.box_branches, head.proposal_branches))

    torch._dynamo.reset()
    backend = "inductor" if gpu.type == "cuda" else "aot_eager"
    results = []
    for call in (torch.compile(function, fullgraph=True, backend=backend), function):
        model.zero_grad()
        outputs = call(memory)
        sum(x.square().mean() for x in outputs).backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        flat = torch.cat([x.detach().sort(2).values.flatten() for x in outputs])
        results.append((flat, flat, torch.cat(grads)))
    assert_same(*results, SHARES[None])


@every_part
def test_checkpointing(gpu, name):
    """Recomputed layers have the same dropout and gradient."""
    parts = ("transformer__encoder__with_cp", "transformer__decoder__with_cp")
    grads = []
    for with_cp in (False, True):
        model = small_detector(name, **dict.fromkeys(parts, with_cp)).to(gpu).train()
        torch.manual_seed(1)
        sum(model.loss(*moved(make_batch(), gpu)).values()).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    # there, kernels add to memory in any order
    assert (grads[1] - grads[0]).norm() < 1e-3 * grads[0].norm()


@pytest.mark.parametrize("name", [EVERY_PART[1], DINO])
def test_one_process_of_many(gpu, name):
    """DDP's gradient, by NCCL on a GPU."""
    backend = "nccl" if gpu.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model = small_detector(name).to(gpu).train()
        alone = copy.deepcopy(model)
        ddp = DistributedDataParallel(model, [0] if gpu.type == "cuda" else None)
        grads = []
        for call in (alone, ddp):
            torch.manual_seed(1)
            images, samples = moved(make_batch(), gpu)
            sum(call(images, samples, mode="loss").values()).backward()
            trained = [p for p in call.parameters() if p.requires_grad]
            grads.append(torch.cat([p.grad.flatten() for p in trained]))
        assert (grads[1] - grads[0]).norm() < 1e-3 * grads[0].norm()
    finally:
        distributed.destroy_process_group()
