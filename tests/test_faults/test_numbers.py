"""A loss or gradient that is not finite stops the training, before it spoils anything."""

import errno
import hashlib
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.hooks import Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.structures import InstanceData
from support.models import make_batch
from support.runs import ITERS, ROOT, log_rows, make_runner
from torch.overrides import TorchFunctionMode

from fastdetr_mmdet import FastDETR
from fastdetr_mmdet.engine.hooks import NumbersCheckHook, numbers_check
from fastdetr_mmdet.engine.hooks.debug_bundle import as_plain_data, write_bundle
from fastdetr_mmdet.engine.hooks.numbers_check import NotFiniteError

PARAMETER = "transformer.decoder.layers.0.ffn.linear2.bias"


@pytest.fixture
def runner(tiny_config_file, shapes, tmp_path, monkeypatch):
    """Makes a runner of one epoch of four steps; `hook` are the arguments of the hook."""
    # mmengine's formatting of the config takes longer than an epoch here
    unchanged = lambda text, **_: (text, True)  # noqa: E731
    monkeypatch.setattr(config_module, "FormatCode", unchanged, raising=False)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", unchanged)

    def make(hook=None, epochs=1, **options):
        return make_runner(
            tiny_config_file,
            tmp_path / "work",
            shapes,
            train_cfg__max_epochs=epochs,
            train_cfg__val_interval=100,
            custom_hooks=[dict(type="NumbersCheckHook", **(hook or {}))],
            **options,
        )

    return make


@pytest.fixture
def at_steps(monkeypatch):
    """Changes the losses of training steps, counted from 1."""

    def install(change, *steps):
        loss = FastDETR.loss
        count = 0

        def changed(self, batch_inputs, batch_data_samples):
            nonlocal count
            count += 1
            losses = loss(self, batch_inputs, batch_data_samples)
            return change(losses) if count in steps else losses

        monkeypatch.setattr(FastDETR, "loss", changed)

    return install


def change_term(name, factor=math.nan):
    return lambda losses: losses | {name: losses[name] * factor}


class NoteWeights(Hook):
    """Keeps the weights before every step, and the ids of its images."""

    def __init__(self):
        self.before, self.images = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before.append({k: v.clone() for k, v in runner.model.state_dict().items()})
        self.images.append([sample.img_id for sample in data_batch["data_samples"]])


def note_weights(run):
    notes = NoteWeights()
    run.register_hook(notes)
    return notes


def stopped(run):
    """Train to the error; the sentence, the weights before each step, and the bundle."""
    notes = note_weights(run)
    with pytest.raises(NotFiniteError) as error:
        run.train()
    (path,) = (run_dir(run) / "debug").iterdir()
    return str(error.value), notes, torch.load(path, weights_only=True)


def run_dir(run):
    return Path(run.work_dir)


def check_unspoiled(run, notes, bundle, step):
    """The model and the bundle hold the weights from before the step."""
    assert len(notes.before) == step
    for state in (run.model.state_dict(), bundle["state_dict"]):
        assert state.keys() == notes.before[-1].keys()
        for name, tensor in notes.before[-1].items():
            if "num_batches_tracked" not in name:
                torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, msg=name)


# --------------------------------------------------------------------------------------------------
# Where it is seen


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "factor", "told"),
    [
        ("loss_bbox", math.nan, "loss_bbox of the last decoder layer is nan"),
        ("d0.loss_iou", math.nan, "loss_iou of decoder layer 0 is nan"),
        ("enc_loss_cls", math.inf, "loss_cls of the encoder proposals is inf"),
    ],
)
def test_loss(runner, at_steps, name, factor, told):
    at_steps(change_term(name, factor), 3)
    run = runner()
    sentence, notes, bundle = stopped(run)
    assert sentence.startswith(f"The loss is not finite in iteration 3 (epoch 1): {told}. Lower th")
    for image in notes.images[-1]:
        assert f"(id {image}, file " in sentence
    assert sentence.count("(id ") == len(notes.images[-1]) == 4
    assert sentence.endswith(f"{run_dir(run) / 'debug/iter_3.pth'}.")
    check_unspoiled(run, notes, bundle, step=3)
    assert len(log_rows(run_dir(run))) == 2


def test_image(runner, monkeypatch):
    """The outputs are not finite: the matcher names the image; its sentence comes first."""
    run = runner(model__backbone__norm_eval=True)
    prepare = type(run.model.data_preprocessor).forward
    spoilt = []

    def spoil(self, data, training=False):
        data = prepare(self, data, training)
        with_objects = [i for i, s in enumerate(data["data_samples"]) if len(s.gt_instances)]
        if training and run.iter == 1:
            data["inputs"][with_objects[-1], 0, 5, 5] = math.nan
            spoilt.append(data["data_samples"][with_objects[-1]])
        return data

    monkeypatch.setattr(type(run.model.data_preprocessor), "forward", spoil)
    sentence, notes, bundle = stopped(run)
    image = f"(id {spoilt[0].img_id}, file {spoilt[0].img_path})"
    assert sentence.startswith(f"Matching cost is not finite for image {image}, ")
    assert "This was iteration 2 (epoch 1). Images of the step: (id " in sentence
    check_unspoiled(run, notes, bundle, step=2)


def test_pixels(runner):
    """Batch norms spread them over the batch; named is the image that has them."""
    run = runner()
    hook, ids = Hook(), []

    def spoil(runner, batch_idx, data_batch):
        if batch_idx == 1:
            data_batch["inputs"][2] = data_batch["inputs"][2].float()
            data_batch["inputs"][2][0, 5, 5] = math.nan
            ids.append(data_batch["data_samples"][2].img_id)

    hook.before_train_iter = spoil
    run.register_hook(hook)
    sentence, _, _ = stopped(run)
    assert f" There are pixels that are not finite in (id {ids[0]}, file " in sentence


def test_running_statistics_of_batch_norms(runner, monkeypatch):
    """They change in the forward pass, before anything can be seen."""
    run = runner()  # whose backbone trains its batch norms
    prepare = type(run.model.data_preprocessor).forward

    def spoil(self, data, training=False):
        data = prepare(self, data, training)
        if run.iter == 1:
            data["inputs"][0] = math.inf
        return data

    monkeypatch.setattr(type(run.model.data_preprocessor), "forward", spoil)
    _, notes, bundle = stopped(run)
    check_unspoiled(run, notes, bundle, step=2)
    assert all(x.isfinite().all() for x in bundle["state_dict"].values())


def spoil_gradient(run, name, factor, first=1):
    """Of one parameter, from the given step on."""
    parameter = dict(run.model.named_parameters())[name]
    parameter.register_hook(lambda gradient: gradient * factor if run.iter + 1 >= first else None)
    return parameter


@pytest.mark.smoke
@pytest.mark.parametrize(
    "clip_grad",
    [dict(max_norm=0.1), None, dict(type="value", clip_value=0.1)],
    ids=["by norm", "no clipping", "by value"],
)
def test_gradient(runner, clip_grad):
    run = runner(optim_wrapper__clip_grad=dict(clip_grad, _delete_=True) if clip_grad else None)
    size = spoil_gradient(run, PARAMETER, math.nan, first=2).numel()
    sentence, notes, bundle = stopped(run)
    assert sentence.startswith(
        "The gradient is not finite in iteration 2 (epoch 1), although this process's loss is: "
        f"{PARAMETER} ({size} NaN and 0 infinite of {size}). Lower"
    )
    assert bundle["parameters"] == [f"{PARAMETER} ({size} NaN and 0 infinite of {size})"]
    check_unspoiled(run, notes, bundle, step=2)


def test_many_gradients(runner):
    run = runner()
    for name, parameter in run.model.named_parameters():
        if name.startswith("bbox_head."):
            parameter.register_hook(lambda gradient: gradient * math.inf)
    sentence, _, bundle = stopped(run)
    assert len(bundle["parameters"]) == 6
    assert "bbox_head.cls_branches.0.weight (" in bundle["parameters"][0]
    assert " more parameters. Lower" in sentence


def test_norm_that_no_float_holds(runner):
    """Every value is finite; clipping would make all of them zero."""
    run = runner()
    spoil_gradient(run, PARAMETER, 1e30)
    sentence, notes, bundle = stopped(run)
    assert "although this process's loss is: no float holds its norm. " in sentence
    check_unspoiled(run, notes, bundle, step=1)


def test_loss_without_gradient(runner, at_steps):
    """A constant that is not finite leaves the gradient alone; it shows after the step."""
    at_steps(lambda losses: losses | {"loss_extra": torch.tensor(math.inf)}, 2)
    run = runner()
    sentence, notes, bundle = stopped(run)
    assert sentence.startswith(
        "The loss is not finite in iteration 2 (epoch 1): loss_extra is inf."
    )
    assert len(notes.before) == 2
    assert all(x.isfinite().all() for x in bundle["state_dict"].values())


@pytest.mark.parametrize("step", [3, 4], ids=["first", "second"])
def test_accumulated_gradients(runner, at_steps, step):
    """Named are the images of all the batches that are in the gradient."""
    at_steps(change_term("loss_cls"), step)
    run = runner(optim_wrapper__accumulative_counts=2)
    sentence, notes, bundle = stopped(run)
    start = f"The loss is not finite in iteration {step} (epoch 1): loss_cls of the"
    assert sentence.startswith(start)
    images = [image for batch in notes.images[2:step] for image in batch]
    for image in images:
        assert f"(id {image}, " in sentence
    assert sentence.count("(id ") == len(images) == 4 * (step - 2)
    assert len(bundle["batches"]) == step - 2
    for name, tensor in notes.before[2].items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(bundle["state_dict"][name], tensor, rtol=0, atol=0)


def spoil_images(run, monkeypatch, *steps):
    """Put a NaN into the images of training steps, counted from 1."""
    prepare = type(run.model.data_preprocessor).forward

    def spoil(self, data, training=False):
        data = prepare(self, data, training)
        if training and run.iter + 1 in steps:
            data["inputs"][:, 0, 5, 5] = math.nan
        return data

    monkeypatch.setattr(type(run.model.data_preprocessor), "forward", spoil)


EVERY_ITERATION = dict(
    default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=1
)


def saved(run):
    """All checkpoints, by name."""
    paths = sorted(run_dir(run).glob("*.pth"))
    return {path.stem: torch.load(path, weights_only=True) for path in paths}


def is_finite(tensors):
    return all(bool(x.isfinite().all()) for x in tensors.values())


def test_checkpoints_between_updates(runner, monkeypatch):
    """None is written after a batch that spoils the gradient, and batch norms, of the next one."""
    run = runner(optim_wrapper__accumulative_counts=3, **EVERY_ITERATION)
    spoil_images(run, monkeypatch, 2)
    sentence, _, _ = stopped(run)
    assert " in iteration 2 (epoch 1)" in sentence or "Matching cost" in sentence
    assert list(saved(run)) == ["iter_1"]
    assert is_finite(saved(run)["iter_1"]["state_dict"])


@pytest.mark.parametrize("steps", [(1,), (2,), (1, 2)], ids=["first", "second", "both"])
def test_skipped_batches_of_an_update(runner, monkeypatch, steps):
    """The update is left out as one, and nothing of it stays, in no checkpoint either."""
    options = dict(optim_wrapper__accumulative_counts=2, **EVERY_ITERATION)
    run = runner(hook=dict(max_skips=1), **options)
    spoil_images(run, monkeypatch, *steps)
    notes = note_weights(run)
    run.train()
    weight = dict(run.model.named_parameters())[PARAMETER]
    before = [state[PARAMETER] for state in notes.before]
    torch.testing.assert_close(before[2], before[0], rtol=0, atol=0)
    assert not torch.equal(before[2], weight)  # the second update is made
    for name, checkpoint in saved(run).items():
        assert is_finite(checkpoint["state_dict"]), name
        assert is_finite(checkpoint["exact_resume"].get("gradients", {})), name


def test_gradients_that_wait_are_finite_or_not_saved(runner, monkeypatch):
    """Of a loss that is finite; without them training can be resumed."""
    options = dict(optim_wrapper__accumulative_counts=2, **EVERY_ITERATION)
    run = runner(**options)
    warnings = []
    monkeypatch.setattr(run.logger, "warning", warnings.append)
    spoil_gradient(run, PARAMETER, math.nan, first=3)
    stopped(run)
    gradients = {name: "gradients" in found["exact_resume"] for name, found in saved(run).items()}
    assert gradients == {"iter_1": True, "iter_2": False, "iter_3": False}
    assert sum("wait for their update are not finite" in text for text in warnings) == 1

    path = str(run_dir(run) / "iter_3.pth")
    again = runner(load_from=path, resume=True, **options)
    again.train()
    assert again.iter == ITERS and is_finite(again.model.state_dict())


def test_skips_before_a_checkpoint_count(runner, at_steps):
    at_steps(change_term("loss_cls"), 1, 4, 5)  # the fifth is the fourth again
    run = runner(hook=dict(max_skips=1), **EVERY_ITERATION)
    stop = pytest.raises(NotFiniteError, match="in iteration 4 ")
    with stop:
        run.train()
    path = str(run_dir(run) / "iter_3.pth")
    with stop:
        runner(hook=dict(max_skips=1), load_from=path, resume=True, **EVERY_ITERATION).train()


def test_checkpoints_stay_as_they_are(runner, at_steps):
    at_steps(change_term("loss_bbox"), ITERS + 2)
    run = runner(epochs=2)

    def digest():
        paths = sorted(run_dir(run).glob("*.pth"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    seen = []
    hook = Hook()
    hook.before_train_iter = lambda *args, **kwargs: seen.append(digest())
    run.register_hook(hook)
    with pytest.raises(NotFiniteError):
        run.train()
    assert list(seen[-1]) == ["epoch_1.pth"]
    assert digest() == seen[-1]
    assert (run_dir(run) / "last_checkpoint").read_text().endswith("epoch_1.pth")
    assert torch.load(run_dir(run) / "epoch_1.pth", weights_only=True)["meta"]["epoch"] == 1


def test_other_errors_come_through(runner, monkeypatch):
    """The matcher also knows of wrong class indices."""
    run = runner()
    prepare = type(run.model.data_preprocessor).forward

    def spoil(self, data, training=False):
        data = prepare(self, data, training)
        for sample in data["data_samples"]:
            sample.gt_instances.labels[:] = 6
        return data

    monkeypatch.setattr(type(run.model.data_preprocessor), "forward", spoil)
    with pytest.raises(ValueError, match=r"^Class index 6 of image .* is out of range") as error:
        run.train()
    assert not isinstance(error.value, NotFiniteError)


# --------------------------------------------------------------------------------------------------
# Steps left out


def test_skips(runner, at_steps, monkeypatch):
    """Two bad steps of two allowed: the weights stay for those, and change with the others."""
    at_steps(change_term("loss_cls"), 2, 3)
    run = runner(hook=dict(max_skips=2))
    warnings = []
    monkeypatch.setattr(run.logger, "warning", warnings.append)
    notes = note_weights(run)
    run.train()
    after = [*notes.before[1:], run.model.state_dict()]
    for step, (before, now) in enumerate(zip(notes.before, after, strict=True), start=1):
        moved = [
            name
            for name, tensor in before.items()
            if "num_batches" not in name and not torch.equal(tensor, now[name])
        ]
        assert bool(moved) == (step not in (2, 3)), (step, moved[:3])
    bundles = sorted(path.name for path in (run_dir(run) / "debug").iterdir())
    assert bundles == ["iter_2.pth", "iter_3.pth"]
    bundle = torch.load(run_dir(run) / "debug/iter_2.pth", weights_only=True)
    assert "state_dict" not in bundle
    first, second = [text for text in warnings if "not finite" in text]
    assert first.endswith("debug/iter_2.pth. The step is left out (1 of at most 2).")
    assert second.endswith("debug/iter_3.pth. The step is left out (2 of at most 2).")


def test_one_too_many(runner, at_steps):
    at_steps(change_term("loss_cls"), 1, 3, 4)
    run = runner(hook=dict(max_skips=2))
    with pytest.raises(NotFiniteError, match="in iteration 4 "):
        run.train()
    assert "state_dict" in torch.load(run_dir(run) / "debug/iter_4.pth", weights_only=True)


def test_skipped_image(runner, monkeypatch):
    """Training goes on after an image that made the outputs NaN."""
    run = runner(hook=dict(max_skips=1))
    spoil_images(run, monkeypatch, 2)
    run.train()
    assert all(x.isfinite().all() for x in run.model.state_dict().values())
    losses = [row["loss"] for row in log_rows(run_dir(run))]
    assert len(losses) == ITERS
    assert all(map(math.isfinite, losses))  # means over the steps that were not left out


def test_max_skips_is_checked():
    with pytest.raises(ValueError, match="max_skips=-1 must not be negative"):
        NumbersCheckHook(max_skips=-1)


# --------------------------------------------------------------------------------------------------
# Loss scaling


@pytest.fixture
def amp(monkeypatch):
    """AmpOptimWrapper with a working scaler, on the CPU; autocast is in bfloat16."""
    scaler = partial(torch.amp.GradScaler, device="cpu")
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", scaler)

    def options(scale, clip=True, **optimizer):
        wrapper = dict(type="AmpOptimWrapper", _delete_=True)
        wrapper["loss_scale"] = dict(init_scale=scale)
        wrapper["optimizer"] = dict(type="AdamW", lr=1e-4, **optimizer)
        if clip:
            wrapper["clip_grad"] = dict(max_norm=0.1)
        return dict(optim_wrapper=wrapper)

    return options


clipping = pytest.mark.parametrize("clip", [True, False], ids=["clipped", "not clipped"])


@clipping
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
def test_overflow_is_the_scalers(runner, amp, clip, fused):
    """It leaves steps out until the scale fits, and training goes on."""
    first = 2.0**20
    run = runner(**amp(first, clip, fused=fused))
    parameter = dict(run.model.named_parameters())[PARAMETER]
    parameter.register_hook(lambda gradient: gradient.half().float())  # infinite from 65520 on
    notes = note_weights(run)
    run.train()
    scale = run.optim_wrapper.loss_scaler.get_scale()
    left_out = round(math.log2(first / scale))
    assert 1 <= left_out < ITERS
    after = [*notes.before[1:], run.model.state_dict()]
    pairs = zip(notes.before, after, strict=True)
    moved = [not torch.equal(before[PARAMETER], now[PARAMETER]) for before, now in pairs]
    assert moved == [False] * left_out + [True] * (ITERS - left_out)
    assert not (run_dir(run) / "debug").exists()


@clipping
def test_loss_with_a_scaler(runner, at_steps, amp, clip):
    at_steps(change_term("d0.loss_bbox"), 3)
    run = runner(**amp(2.0**10, clip))
    sentence, notes, bundle = stopped(run)
    assert sentence.startswith("The loss is not finite in iteration 3 (epoch 1): loss_bbox of deco")
    check_unspoiled(run, notes, bundle, step=3)


def test_gradient_that_no_scale_helps(runner, amp):
    run = runner(hook=dict(min_loss_scale=2.0**9), **amp(2.0**10))
    spoil_gradient(run, PARAMETER, math.inf)
    sentence, notes, bundle = stopped(run)
    assert sentence.startswith("The gradient is not finite in iteration 2 (epoch 1), although this")
    assert f"is: {PARAMETER} (0 NaN and 32 infinite of 32); a loss scale of 256 does no" in sentence
    check_unspoiled(run, notes, bundle, step=2)


def test_bfloat16_without_a_scaler(runner, at_steps, amp):
    """What mmengine does on a CPU: its scaler is there but idle."""
    at_steps(change_term("loss_iou"), 2)
    options = amp(1.0)
    options["optim_wrapper"]["loss_scale"]["enabled"] = False
    run = runner(**options)
    sentence, notes, bundle = stopped(run)
    assert "loss_iou of the last decoder layer is nan" in sentence
    check_unspoiled(run, notes, bundle, step=2)


# --------------------------------------------------------------------------------------------------
# The bundle


def test_bundle_repeats_the_step(runner, at_steps):
    """What it holds suffices to compute the same losses again."""
    at_steps(change_term("loss_bbox"), 2)
    run = runner()
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
    samples = [
        DetDataSample(
            metainfo=sample["metainfo"],
            gt_instances=InstanceData(
                bboxes=sample["gt_instances"]["bboxes"], labels=sample["gt_instances"]["labels"]
            ),
        )
        for sample in batch["data_samples"]
    ]
    data = model.data_preprocessor(dict(inputs=batch["inputs"], data_samples=samples), True)
    losses = model(**data, mode="loss")
    (recorded,) = bundle["losses"]
    for name, value in losses.items():
        if name == "loss_bbox":
            assert recorded[name].isnan()
        else:
            torch.testing.assert_close(value.detach(), recorded[name], rtol=1e-5, atol=1e-6)


def test_bundle_is_not_larger_than_the_batch(runner, at_steps):
    """Without the weights; views of larger tensors are cut out."""
    at_steps(change_term("loss_bbox"), 1)
    run = runner(hook=dict(max_skips=1))
    notes = note_weights(run)
    run.train()
    size = (run_dir(run) / "debug/iter_1.pth").stat().st_size
    assert size < 4 * 3 * 64 * 64 + 60_000  # images of bytes, and the config
    assert notes.images


def test_plain_data(tmp_path):
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
    )
    write_bundle(tmp_path / "new" / "bundle.pth", content)
    assert os.path.getsize(tmp_path / "new" / "bundle.pth") < 20_000
    read = torch.load(tmp_path / "new" / "bundle.pth", weights_only=True)
    assert read["numbers"] == (1.5, 2, True, None, "x")
    assert read["array"].tolist() == [0, 1, 2]
    assert read["function"] == "<built-in function len>"
    assert read["samples"][1]["metainfo"]["img_id"] == 1
    boxes = read["samples"][1]["gt_instances"]["bboxes"]
    torch.testing.assert_close(boxes, samples[1].gt_instances.bboxes)
    assert as_plain_data({1: {2: [3]}}) == {"1": {"2": [3]}}


def test_full_disk(runner, at_steps, monkeypatch):
    """The reason for the stop is told all the same."""

    def fail(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(numbers_check, "write_bundle", fail)
    at_steps(change_term("loss_bbox"), 1)
    with pytest.raises(NotFiniteError) as error:
        runner().train()
    assert "The loss is not finite in iteration 1" in str(error.value)
    assert "The batch could not be saved: [Errno 28] No space left on device" in str(error.value)


# --------------------------------------------------------------------------------------------------
# What it costs, and that it goes


class CountWaits(TorchFunctionMode):
    """Counts the calls for which Python would wait for a GPU.

    Values brought to the host, results whose size depends on values, copies of host data.
    """

    NAMES = frozenset(
        """item tolist numpy cpu __array__ __bool__ __int__ __float__ __index__ __contains__ equal
        allclose nonzero argwhere masked_select unique bincount tensor as_tensor new_tensor
        """.split()
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        self.count += name in self.NAMES or (
            name == "__getitem__" and getattr(args[1], "dtype", None) == torch.bool
        )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: bool(x[0]),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)
def test_each_kind_of_wait_is_counted(wait):
    x = torch.ones(3)
    with CountWaits() as waits:
        wait(x)
    assert waits.count == 1


@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "not clipped"])
def test_waits_for_the_device(runner, clip):
    """None more than without it, where gradients are clipped by norm; else one per step."""
    counts = []
    for hooks in ([], [dict(type="NumbersCheckHook")]):
        run = runner(optim_wrapper__clip_grad=dict(max_norm=0.1) if clip else None)
        run._hooks = [hook for hook in run.hooks if not isinstance(hook, NumbersCheckHook)]
        run.register_custom_hooks(hooks)
        with CountWaits() as waits:
            run.train()
        counts.append(waits.count)
    assert counts[0] > 0
    assert counts[1] - counts[0] == (0 if clip else ITERS)


def test_same_training_with_and_without(runner):
    """Also the norm that is logged."""
    states, norms = [], []
    for hooks in ([], [dict(type="NumbersCheckHook")]):
        run = runner()
        run._hooks = [hook for hook in run.hooks if not isinstance(hook, NumbersCheckHook)]
        run.register_custom_hooks(hooks)
        run.train()
        states.append(run.model.state_dict())
        norms.append(run.message_hub.get_scalar("train/grad_norm").data[0].tolist())
    assert norms[0] == norms[1]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=0, msg=name)


def test_leaves_nothing_behind(runner):
    run = runner()
    head = run.model.bbox_head
    run.train()
    assert "_match" not in vars(head)
    assert not run.model._forward_hooks
    assert "step" not in vars(run.optim_wrapper.optimizer)
    assert run.optim_wrapper.clip_func is torch.nn.utils.clip_grad_norm_


@pytest.mark.smoke
def test_shipped_configs_have_it():
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if "_base_" not in path.parts:
            hooks = Config.fromfile(path, import_custom_modules=False).custom_hooks
            assert dict(type="NumbersCheckHook") in [dict(hook) for hook in hooks], path
