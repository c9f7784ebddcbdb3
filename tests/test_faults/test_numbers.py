"""A non-finite loss or gradient stops training before any weight changes."""

import errno
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import check_equal
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.structures import InstanceData
from support.bad_numbers import (
    IMAGES,
    INFINITE_IMAGE,
    LABELS,
    ONE_IMAGE,
    in_gradient,
    in_loss,
    in_pixels,
)
from support.models import make_batch
from support.runs import ITERS, log_rows, make_runner
from torch.overrides import TorchFunctionMode
from torch.utils.data import BatchSampler

from fastdetr_mmdet.engine.hooks import NumbersCheckHook, numbers_check
from fastdetr_mmdet.engine.hooks.numbers_check import NotFiniteError
from fastdetr_mmdet.ops.deformable import _known
from fastdetr_mmdet.utils.plain_data import save_plain_data

PARAMETER = "transformer.decoder.layers.0.ffn.linear2.bias"


@pytest.fixture
def runner(tiny_config_file, shapes, tmp_path):
    """Makes a runner of one epoch of four steps; `hook` are the arguments of the hook."""

    def make(hook=None, epochs=1, **options):
        hooks = [] if hook is False else [dict(type="NumbersCheckHook", **(hook or {}))]
        options |= dict(custom_hooks=hooks, train_cfg__max_epochs=epochs)
        options |= dict.fromkeys(["val_dataloader", "val_cfg", "val_evaluator"])
        return make_runner(tiny_config_file, tmp_path / "work", shapes, **options)

    return make


NO_CLIPPING = dict(optim_wrapper__clip_grad=None)
BY_VALUE = dict(optim_wrapper__clip_grad=dict(type="value", clip_value=0.1, _delete_=True))
EVERY_ITERATION = dict(
    default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=1
)


@pytest.fixture(autouse=True)
def scaler(monkeypatch):
    """Lets AmpOptimWrapper have a working loss scaler on the CPU; autocast is in bfloat16."""
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    scaler = partial(torch.amp.GradScaler, device="cpu")
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", scaler)


def amp(scale, clip=True, enabled=True, **optimizer):
    """Options of a loss scaler."""
    wrapper = dict(type="AmpOptimWrapper", _delete_=True)
    wrapper["loss_scale"] = dict(init_scale=scale, enabled=enabled)
    wrapper["optimizer"] = dict(type="AdamW", lr=1e-4, **optimizer)
    if clip:
        wrapper["clip_grad"] = dict(max_norm=0.1)
    return dict(optim_wrapper=wrapper)


class NoteWeights(Hook):
    """Records the weights before every step, and the ids of its images."""

    def __init__(self):
        self.before, self.images = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before.append({k: v.clone() for k, v in runner.model.state_dict().items()})
        self.images.append([sample.img_id for sample in data_batch["data_samples"]])

    def moved(self, run, name=PARAMETER):
        """Whether each step changed a parameter."""
        after = [*self.before[1:], run.model.state_dict()]
        pairs = zip(self.before, after, strict=True)
        return [not torch.equal(before[name], now[name]) for before, now in pairs]


def stopped(run):
    """Train to the error; return its message, the records of each step, and the bundle."""
    notes = NoteWeights()
    run.register_hook(notes)
    with pytest.raises(NotFiniteError) as error:
        run.train()
    (path,) = (run_dir(run) / "debug").iterdir()
    assert str(path) in str(error.value)
    return str(error.value), notes, torch.load(path, weights_only=True)


def run_dir(run):
    return Path(run.work_dir)


def without(state, *words):
    return {name: x for name, x in state.items() if not any(word in name for word in words)}


def check_unspoiled(run, before, bundle):
    """The model and the bundle hold the weights from before the step."""
    for state in (run.model.state_dict(), bundle["state_dict"]):
        check_equal(without(state, "num_batches"), without(before, "num_batches"), "weights")


def saved(run):
    """All checkpoints, by name."""
    paths = sorted(run_dir(run).glob("*.pth"))
    return {path.stem: torch.load(path, weights_only=True) for path in paths}


def is_finite(tensors):
    return all(bool(x.isfinite().all()) for x in tensors.values())


# --------------------------------------------------------------------------------------------------
# Detection

EVAL = dict(model__backbone__norm_eval=True)
LAYER, LAYER_0 = in_loss("loss_bbox"), in_loss("d0.loss_iou")
PROPOSALS = in_loss("enc_loss_cls", math.inf)
GRADIENT, INFINITE = in_gradient(PARAMETER), in_gradient(PARAMETER, math.inf)
# Fault, options, words of the error.
STOPS = {
    "last layer's loss": (LAYER, {}, ["loss_bbox of the last decoder layer", "nan"]),
    "a layer's loss": (LAYER_0, {}, ["loss_iou of decoder layer 0"]),
    "proposals' loss": (PROPOSALS, {}, ["loss_cls of the encoder proposals", "inf"]),
    "outputs": (ONE_IMAGE, EVAL, ["Matching cost is not finite for image (id "]),
    # trained batch norms spread NaN over the batch and change their statistics at once
    "an image": (INFINITE_IMAGE, {}, []),
    "pixels": (in_pixels, {}, ["non-finite pixels: (id "]),
    "gradient": (GRADIENT, {}, [f"{PARAMETER} (32 NaN and 0 infinite of 32)"]),
    "gradient, not clipped": (GRADIENT, NO_CLIPPING, [PARAMETER]),
    "gradient, clipped by value": (GRADIENT, BY_VALUE, [PARAMETER]),
    "many gradients": (in_gradient("bbox_head.", math.inf), {}, ["bbox_head.", "more parameters"]),
    # every value is finite; clipping would make all of them zero
    "norm too large": (in_gradient(PARAMETER, 1e30), {}, ["norm overflows"]),
    "scaled loss": (LAYER_0, amp(2.0**10), ["loss_iou of decoder layer 0"]),
    "scaled loss, not clipped": (LAYER_0, amp(2.0**10, clip=False), ["loss_iou of decoder layer"]),
    "idle scaler, as mmengine's on a CPU": (LAYER_0, amp(2.0**10, enabled=False), ["loss_iou of"]),
    "no scale helps": (
        INFINITE,
        dict(hook=dict(min_loss_scale=2.0**10), **amp(2.0**10)),
        [f"{PARAMETER} (0 NaN and 32 infinite of 32)", "512"],
    ),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", STOPS)
def test_stops(runner, name):
    """Before the weights change; the message names the place and the step's images."""
    fault, options, words = STOPS[name]
    run = runner(**options)
    fault(run, 2)
    message, notes, bundle = stopped(run)
    assert len(notes.before) == 2 and len(log_rows(run_dir(run))) == 1
    for word in ("iteration 2 (epoch 1)", *words):
        assert word in message
    images = message.rpartition("Images of the step:")[2]
    assert [f"(id {image}, file " in images for image in notes.images[1]] == [True] * 4
    check_unspoiled(run, notes.before[1], bundle)
    assert is_finite(bundle["state_dict"])


def test_loss_without_gradient(runner):
    """A non-finite constant does not change the gradient; it is found after the step."""
    run = runner()
    in_loss("loss_extra", math.inf)(run, 2)
    message, _, bundle = stopped(run)
    assert "iteration 2 (epoch 1): loss_extra is inf" in message
    assert is_finite(bundle["state_dict"])


@pytest.mark.parametrize("step", [3, 4], ids=["first", "second"])
def test_accumulated_gradients(runner, step):
    """The message names images of all accumulated batches."""
    run = runner(optim_wrapper__accumulative_counts=2)
    in_loss("loss_cls")(run, step)
    message, notes, bundle = stopped(run)
    assert f"iteration {step} (epoch 1): loss_cls of the" in message
    images = [image for batch in notes.images[2:step] for image in batch]
    assert all(f"(id {image}, " in message for image in images)
    assert message.count("(id ") == len(images) == 4 * (step - 2)
    assert len(bundle["batches"]) == step - 2
    states = bundle["state_dict"], notes.before[2]
    check_equal(*(without(state, "running", "num_batches") for state in states), "weights")


def test_checkpoints_between_updates(runner):
    """No checkpoint is written between a batch with NaN and its update."""
    run = runner(optim_wrapper__accumulative_counts=3, **EVERY_ITERATION)
    IMAGES(run, 2)
    assert "iteration 2 (epoch 1)" in stopped(run)[0]
    assert list(saved(run)) == ["iter_1"]
    assert is_finite(saved(run)["iter_1"]["state_dict"])


@pytest.mark.parametrize("steps", [(1,), (2,), (1, 2)], ids=["first", "second", "both"])
def test_skipped_batches_of_an_update(runner, steps):
    """The update is skipped as a whole, also in checkpoints."""
    options = dict(optim_wrapper__accumulative_counts=2, **EVERY_ITERATION)
    run = runner(hook=dict(max_skips=1), **options)
    IMAGES(run, *steps)
    notes = NoteWeights()
    run.register_hook(notes)
    run.train()
    assert notes.moved(run) == [False, False, False, True]  # the second update is made
    for name, checkpoint in saved(run).items():
        assert is_finite(checkpoint["state_dict"]), name
        assert is_finite(checkpoint["exact_resume"].get("gradients", {})), name


def test_gradients_that_wait_are_finite_or_not_saved(runner, monkeypatch):
    """With a finite loss; training can resume without them."""
    options = dict(optim_wrapper__accumulative_counts=2, **EVERY_ITERATION)
    run = runner(**options)
    warnings = []
    monkeypatch.setattr(run.logger, "warning", warnings.append)
    in_gradient(PARAMETER)(run, 3, 4)
    stopped(run)
    gradients = {name: "gradients" in found["exact_resume"] for name, found in saved(run).items()}
    assert gradients == {"iter_1": True, "iter_2": False, "iter_3": False}
    assert sum("accumulated gradients" in text for text in warnings) == 1

    path = str(run_dir(run) / "iter_3.pth")
    again = runner(load_from=path, resume=True, **options)
    again.train()
    assert again.iter == ITERS and is_finite(again.model.state_dict())


def test_skips_before_a_checkpoint_count(runner):
    resume = {}
    for steps in ((1, 4), (4,)):
        run = runner(hook=dict(max_skips=1), **resume, **EVERY_ITERATION)
        in_loss("loss_cls")(run, *steps)
        with pytest.raises(NotFiniteError, match="iteration 4 "):
            run.train()
        assert "state_dict" in torch.load(run_dir(run) / "debug/iter_4.pth", weights_only=True)
        resume = dict(load_from=str(run_dir(run) / "iter_3.pth"), resume=True)


def test_checkpoints_stay_as_they_are(runner):
    """The stopped run writes no checkpoint, and patches are reverted."""
    run = runner(epochs=2)
    in_loss("loss_bbox")(run, ITERS + 2)
    _, notes, _ = stopped(run)
    assert list(saved(run)) == ["epoch_1"]
    check_equal(dict(saved(run)["epoch_1"]["state_dict"]), notes.before[ITERS], "weights")
    assert (run_dir(run) / "last_checkpoint").read_text().endswith("epoch_1.pth")
    check_nothing_is_left(run)


def check_nothing_is_left(run):
    assert "match_all" not in vars(run.model.bbox_head.assigner)
    assert not run.model._forward_hooks
    assert "step" not in vars(run.optim_wrapper.optimizer)
    clip = vars(run.optim_wrapper).get("clip_func", torch.nn.utils.clip_grad_norm_)
    assert clip is torch.nn.utils.clip_grad_norm_
    assert "run" not in vars(run.train_loop)
    assert type(run.train_dataloader.batch_sampler) is BatchSampler
    assert type(run.train_dataloader.dataset) is CocoDataset
    assert type(run.train_dataloader.dataset.pipeline) is Compose


def test_other_errors_come_through(runner):
    """For example the matcher's error for class indices."""
    run = runner()
    LABELS(run, 1)
    with pytest.raises(ValueError, match="Class index 6 of image") as error:
        run.train()
    assert not isinstance(error.value, NotFiniteError)


# --------------------------------------------------------------------------------------------------
# Skipped steps


@pytest.mark.parametrize("fault", [in_loss("loss_cls"), IMAGES], ids=["loss", "image"])
def test_skips(runner, monkeypatch, fault):
    """With two allowed skips, weights do not change in the two bad steps, but in others."""
    run = runner(hook=dict(max_skips=2))
    fault(run, 2, 3)
    warnings = []
    monkeypatch.setattr(run.logger, "warning", warnings.append)
    notes = NoteWeights()
    run.register_hook(notes)
    run.train()
    assert notes.moved(run) == [True, False, False, True]
    first, *_, last = (without(state, "num_batches") for state in notes.before[1:])
    check_equal(last, first, "weights and statistics")
    paths = sorted((run_dir(run) / "debug").iterdir())
    assert [path.name for path in paths] == ["iter_2.pth", "iter_3.pth"]
    first, second = [text for text in warnings if "not finite" in text]
    assert str(paths[0]) in first and "1 of at most 2" in first
    assert str(paths[1]) in second and "2 of at most 2" in second
    # without weights; views are copied without their storage
    assert "state_dict" not in torch.load(paths[0], weights_only=True)
    assert paths[0].stat().st_size < 4 * 3 * 64 * 64 + 60_000
    losses = [row["loss"] for row in log_rows(run_dir(run))]
    assert len(losses) == ITERS
    assert all(map(math.isfinite, losses))  # means over the steps that were not skipped


def test_max_skips_is_checked():
    with pytest.raises(ValueError, match="max_skips=-1"):
        NumbersCheckHook(max_skips=-1)


# --------------------------------------------------------------------------------------------------
# Loss scaling


clipping = pytest.mark.parametrize("clip", [True, False], ids=["clipped", "not clipped"])


@clipping
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
def test_overflow_is_the_scalers(runner, clip, fused):
    """The scaler skips steps until the scale fits, and training continues."""
    first = 2.0**20
    run = runner(**amp(first, clip, fused=fused))
    parameter = dict(run.model.named_parameters())[PARAMETER]
    parameter.register_hook(lambda gradient: gradient.half().float())  # infinite from 65520 on
    notes = NoteWeights()
    run.register_hook(notes)
    run.train()
    scale = run.optim_wrapper.loss_scaler.get_scale()
    skipped = round(math.log2(first / scale))
    assert 1 <= skipped < ITERS
    assert notes.moved(run) == [False] * skipped + [True] * (ITERS - skipped)
    assert not (run_dir(run) / "debug").exists()


# --------------------------------------------------------------------------------------------------
# The bundle


def test_bundle_repeats_the_step(runner):
    """The bundle is enough to recompute the losses."""
    run = runner()
    in_loss("loss_bbox")(run, 2)
    _, _, bundle = stopped(run)
    assert set(bundle) == {
        "problem", "iteration", "epoch", "rank", "losses", "parameters", "batches", "config",
        "state_dict",
    }  # fmt: skip
    assert (bundle["iteration"], bundle["epoch"], bundle["rank"]) == (2, 1, 0)
    config = Config.fromstring(bundle["config"], ".py")
    model = MODELS.build(config.model).train()
    model.load_state_dict(bundle["state_dict"])
    (batch,) = bundle["batches"]
    samples = []
    for sample in batch["data_samples"]:
        objects = {name: sample["gt_instances"][name] for name in ("bboxes", "labels")}
        samples.append(
            DetDataSample(metainfo=sample["metainfo"], gt_instances=InstanceData(**objects))
        )
    data = model.data_preprocessor(dict(inputs=batch["inputs"], data_samples=samples), True)
    losses = model(**data, mode="loss")
    (recorded,) = bundle["losses"]
    assert recorded.pop("loss_bbox").isnan()
    for name, value in recorded.items():
        torch.testing.assert_close(losses[name].detach(), value, rtol=1e-5, atol=1e-6)


def test_plain_data(tmp_path):
    path = tmp_path / "new" / "bundle.pth"
    _, samples = make_batch()
    whole = torch.zeros(1000, 1000)
    content = dict(
        samples=samples,
        view=whole[0],
        array=np.arange(3),
        names=np.array(["a"]),
        numbers=(np.float32(1.5), np.int64(2), True, None, "x"),
        other=Config(dict(a=1)),
        function=len,
        shape=torch.Size([2]),
    ) | {1: {2: [3]}}
    save_plain_data(path, content)
    assert path.stat().st_size < 20_000
    read = torch.load(path, weights_only=True)
    assert read["numbers"] == (1.5, 2, True, None, "x")
    assert read["array"].tolist() == [0, 1, 2]
    assert read["function"] == "<built-in function len>"
    assert read["samples"][1]["metainfo"]["img_id"] == 1
    boxes = read["samples"][1]["gt_instances"]["bboxes"]
    torch.testing.assert_close(boxes, samples[1].gt_instances.bboxes)
    assert read["1"] == {"2": [3]}


def test_full_disk(runner, monkeypatch):
    """The error still names the reason of the stop."""

    def fail(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(numbers_check, "save_plain_data", fail)
    run = runner()
    in_loss("loss_bbox")(run, 1)
    with pytest.raises(NotFiniteError, match=r"iteration 1 .*\[Errno 28\]"):
        run.train()


# --------------------------------------------------------------------------------------------------
# Costs and clean-up


class CountWaits(TorchFunctionMode):
    """Counts calls that would wait for a GPU, and norms.

    Waits are reads by the host, results of data-dependent size, and copies of host data.
    """

    NAMES = frozenset(
        """item tolist numpy cpu __array__ __bool__ __int__ __float__ __index__ __contains__ equal
        allclose nonzero argwhere masked_select unique bincount tensor as_tensor new_tensor
        """.split()
    )

    def __init__(self):
        super().__init__()
        self.count = self.norms = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        self.norms += name == "_foreach_norm"
        self.count += name in self.NAMES or (
            name == "__getitem__" and getattr(args[1], "dtype", None) == torch.bool
        )
        return function(*args, **(kwargs or {}))


def test_each_kind_of_wait_is_counted():
    x = torch.ones(1)
    with CountWaits() as waits:
        x.item(), float(x), bool(x), x.cpu(), x.tolist(), x.numpy(), x.nonzero(), x[x > 0]
        x.new_tensor([1.0]), torch.tensor([1.0])
    assert waits.count == 10


@clipping
def test_same_training_at_no_cost(runner, clip):
    """Same weights and log; no additional waits with clipping by norm, else one per step."""
    found = []
    for hook in (False, None):
        run = runner(hook, optim_wrapper__clip_grad=dict(max_norm=0.1) if clip else None)
        _known.cache_clear()  # the first run would fill it
        with CountWaits() as waits:
            run.train()
        found.append((run, waits))
    (plain, without), (checked, waits) = found
    assert without.count > 0
    assert waits.count - without.count == (0 if clip else ITERS)
    assert waits.norms == ITERS  # once per step, also if clipping needs it
    check_equal(dict(checked.model.state_dict()), dict(plain.model.state_dict()), "weights")
    if clip:
        norms = [run.message_hub.get_scalar("train/grad_norm").data[0] for run, _ in found]
        assert norms[0].tolist() == norms[1].tolist()
    check_nothing_is_left(checked)
