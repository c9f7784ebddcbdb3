"""A resumed training uses its config, and schedules that do not fit are named."""

import copy
import logging
from functools import partial

import pytest
import torch
from mmdet.registry import HOOKS, PARAM_SCHEDULERS
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from fastdetr_mmdet.utils.cli import UserError

LENGTH = 5  # iterations of an epoch
ADAMW = dict(type="AdamW", lr=1e-3, weight_decay=1e-4)


make_hook = partial(HOOKS.build, dict(type="ResumeCheckHook"))
cosine = partial(dict, type="CosineAnnealingLR", eta_min_ratio=0.01, convert_to_iter_based=True)
steps_at = partial(dict, type="MultiStepLR")
WARM_UP = dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=7)
SCHEDULES = {
    "cosine": [cosine()],
    "warm-up and cosine": [WARM_UP, cosine()],
    "milestones": [WARM_UP, steps_at(milestones=[3])],
    "poly by epoch": [dict(type="PolyLR", eta_min=1e-6)],
}


class Run:
    """A minimal runner whose two parameters have different learning rates."""

    def __init__(self, epochs, schedulers, optimizer=ADAMW, size=3, kind=EpochBasedTrainLoop):
        self.model = nn.Linear(size, 2)
        self.optim_wrapper = self.build_optimizer(dict(optimizer))
        self.train_loop = kind.__new__(kind)
        total = epochs if kind is IterBasedTrainLoop else epochs * LENGTH
        vars(self.train_loop).update(
            dataloader=range(LENGTH), _max_epochs=epochs, _max_iters=total, _iter=0, _epoch=0
        )
        self.epoch_length = LENGTH
        self.param_schedulers = [self.build(dict(config)) for config in schedulers]
        self.config = f"optim_wrapper = dict(optimizer=dict(lr=0.1, type='{optimizer['type']}'))"
        self.logger = logging.getLogger("resume")
        self._resume = True
        self.work_dir, self.cfg = "no_such_folder", {}

    iter = property(lambda self: self.train_loop._iter)

    def build_optimizer(self, config):
        rates = {self.model.weight: config["lr"], self.model.bias: config["lr"] / 10}
        groups = [dict(params=[parameter], lr=rate) for parameter, rate in rates.items()]
        return OptimWrapper(getattr(torch.optim, config.pop("type"))(groups, **config))

    def build(self, config):
        """Build as in Runner: schedules end with training by default."""
        loop = self.train_loop
        end = loop._max_epochs if config.get("by_epoch", True) else loop._max_iters
        config.setdefault("end", end)
        arguments = dict(optimizer=self.optim_wrapper, epoch_length=LENGTH)
        return PARAM_SCHEDULERS.build(config, default_args=arguments)

    def rates(self):
        return [group["lr"] for group in self.optim_wrapper.optimizer.param_groups]

    def train(self, iterations):
        """Return the learning rates of each iteration."""
        rates, hook = [], ParamSchedulerHook()
        for _ in range(iterations):
            rates.append(self.rates())
            loss = self.model(torch.ones(1, self.model.in_features)).sum()
            self.optim_wrapper.update_params(loss)
            hook.after_train_iter(self, 0)
            self.train_loop._iter += 1
            if self.iter % LENGTH == 0:
                hook.after_train_epoch(self)
                self.train_loop._epoch += 1
        return rates

    def save(self):
        return copy.deepcopy(
            dict(
                meta=dict(config=self.config),
                state_dict=self.model.state_dict(),
                optimizer=self.optim_wrapper.state_dict(),
                param_schedulers=[scheduler.state_dict() for scheduler in self.param_schedulers],
            )
        )

    def resume(self, checkpoint, iterations):
        """Resume like Runner, with the same calls of the hook."""
        hook = make_hook()
        hook.after_load_checkpoint(self, checkpoint)
        self.optim_wrapper.load_state_dict(checkpoint["optimizer"])
        states = checkpoint["param_schedulers"]
        for scheduler, state in zip(self.param_schedulers, states, strict=False):
            scheduler.load_state_dict(state)
        self.train_loop._iter, self.train_loop._epoch = iterations, iterations // LENGTH
        hook.before_train(self)
        return self


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "resume"]


def trained(epochs, schedulers, **options):
    """A checkpoint of a finished training."""
    run = Run(epochs, schedulers, **options)
    run.train(epochs * LENGTH)
    return run.save()


@pytest.mark.parametrize("done", [1, 7, 10, 13])
@pytest.mark.parametrize("name", SCHEDULES)
def test_same_config(name, done, caplog):
    """Learning rates equal an uninterrupted training's, without warnings."""
    run = Run(4, SCHEDULES[name])
    run.train(done)
    checkpoint = run.save()
    rest = run.train(4 * LENGTH - done)
    assert Run(4, SCHEDULES[name]).resume(checkpoint, done).train(4 * LENGTH - done) == rest
    assert not warnings_of(caplog)


@pytest.mark.parametrize("name", SCHEDULES)
def test_more_epochs(name, caplog):
    """Resuming 2 epochs with 6 equals 6 from the start. Before, the last rate was kept."""
    expected = Run(6, SCHEDULES[name]).train(6 * LENGTH)[2 * LENGTH :]
    resumed = Run(6, SCHEDULES[name]).resume(trained(2, SCHEDULES[name]), 2 * LENGTH)
    assert resumed.train(4 * LENGTH) == expected
    (warning,) = warnings_of(caplog)
    assert " end: " in warning
    for scheduler in resumed.param_schedulers:
        assert scheduler.optimizer is resumed.optim_wrapper


def test_other_milestones_rate_and_weight_decay(caplog):
    """mmengine silently resumes with the former settings."""
    changed = dict(ADAMW, lr=2e-3, weight_decay=0.1)
    run = Run(4, [steps_at(milestones=[3])], optimizer=changed)
    run.resume(trained(2, [steps_at(milestones=[1])]), 2 * LENGTH)
    expected = [[2e-3, 2e-4]] * LENGTH + [[2e-4, 2e-5]] * LENGTH
    assert run.train(2 * LENGTH) == list(map(pytest.approx, expected))
    assert [g["weight_decay"] for g in run.optim_wrapper.optimizer.param_groups] == [0.1, 0.1]
    for text in ("milestones", "lr: 0.0001 -> 0.002", "weight_decay: 0.0001 -> 0.1"):
        assert text in warnings_of(caplog)[0]


def test_schedulers_added_and_removed(caplog):
    run = Run(4, [WARM_UP]).resume(trained(2, SCHEDULES["warm-up and cosine"]), 2 * LENGTH)
    assert run.train(1) == [pytest.approx([1e-3, 1e-4])]
    expected = Run(4, SCHEDULES["warm-up and cosine"]).train(11)[-1]
    run = Run(4, SCHEDULES["warm-up and cosine"]).resume(trained(2, [WARM_UP]), 2 * LENGTH)
    assert run.train(1) == [expected]
    assert "1 -> 2" in warnings_of(caplog)[-1]


def test_another_number_of_iterations_in_an_epoch(caplog):
    """With half the batch size the schedule continues at the same epoch."""
    expected = Run(4, [cosine()]).train(2 * LENGTH + 1)[-1]
    checkpoint = trained(2, [cosine(end=4 * 2)])
    run = Run(4, [cosine()]).resume(checkpoint, 2 * LENGTH)
    assert run.train(1) == [expected]
    run = Run(4, [cosine()])
    run.train_loop._epoch = 2
    hook = make_hook()
    hook.after_load_checkpoint(run, checkpoint)
    run.train_loop._iter = 4 * LENGTH  # position in epochs of twice the length
    hook.before_train(run)
    assert run.rates() == expected


def test_schedulers_that_go_by_metrics(caplog):
    """They resume as in mmengine, because their values cannot be recomputed."""
    plateau = [dict(type="ReduceOnPlateauLR", monitor="loss")]
    checkpoint = trained(1, plateau)
    checkpoint["optimizer"]["param_groups"][0]["lr"] = 5e-5
    run = Run(2, plateau).resume(checkpoint, LENGTH)
    assert run.optim_wrapper.param_groups[0]["lr"] == 5e-5


def test_load_from_follows_the_config_alone(caplog):
    """No optimizer state is loaded, so nothing is compared."""
    run = Run(4, [cosine()])
    hook = make_hook()
    run._resume = False
    hook.after_load_checkpoint(run, trained(2, [cosine()], optimizer=dict(type="SGD", lr=0.1)))
    hook.before_train(run)
    assert run.train(4 * LENGTH) == Run(4, [cosine()]).train(4 * LENGTH)
    assert not warnings_of(caplog)


def test_several_optimizers():
    """Each has its own schedulers, or a copy."""

    def build(epochs):
        run = Run(epochs, [])
        both = {"a": run.optim_wrapper, "b": run.build_optimizer(dict(ADAMW))}
        run.param_schedulers = {}
        for name, run.optim_wrapper in both.items():
            run.param_schedulers[name] = [run.build(cosine())]
        run.optim_wrapper = OptimWrapperDict(**both)
        return run

    short, long = build(2), build(6)
    saved = {n: [s.state_dict() for s in v] for n, v in short.param_schedulers.items()}
    checkpoint = dict(
        state_dict={}, optimizer=short.optim_wrapper.state_dict(), param_schedulers=saved
    )
    long.train_loop._iter = 1
    hook = make_hook()
    hook.after_load_checkpoint(long, checkpoint)
    for name, (scheduler,) in long.param_schedulers.items():
        scheduler.load_state_dict(copy.deepcopy(saved[name][0]))
    hook.before_train(long)
    for (scheduler,) in long.param_schedulers.values():
        assert (scheduler.T_max, scheduler.last_step) == (6 * LENGTH, 1)
    for name in "ab":
        groups = long.optim_wrapper[name].optimizer.param_groups
        assert [group["lr"] for group in groups] == Run(6, [cosine()]).train(2)[1]


# --------------------------------------------------------------------------------------------------
# Optimizers and weights


OPTIMIZERS = {
    "AdamW": ADAMW,
    "Adam": dict(ADAMW, type="Adam"),
    "SGD": dict(type="SGD", lr=1e-3, momentum=0.9),
    "Adamax": dict(type="Adamax", lr=1e-3),
    "RMSprop": dict(type="RMSprop", lr=1e-3),
}


@pytest.mark.parametrize("present", OPTIMIZERS)
@pytest.mark.parametrize("saved", OPTIMIZERS)
def test_another_optimizer(saved, present):
    """Before, KeyError: 'momentum' at the first step, or a silently wrong state."""
    checkpoint = trained(1, [], optimizer=OPTIMIZERS[saved])
    run = Run(2, [], optimizer=OPTIMIZERS[present])
    if saved == present or {saved, present} == {"Adam", "AdamW"}:
        run.resume(checkpoint, LENGTH).train(1)
    else:
        with pytest.raises(UserError, match=rf"{saved}\b.*{present}.*optimizer\.type='{saved}'"):
            run.resume(checkpoint, LENGTH)


@pytest.mark.parametrize("config", [None, "import os", "model = dict()"])
def test_checkpoint_that_does_not_name_its_optimizer(config):
    checkpoint = trained(1, [])
    checkpoint["meta"] = dict(config=config)
    Run(2, []).resume(checkpoint, LENGTH).train(1)


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_parameters_of_another_shape(kind):
    checkpoint = trained(1, [], optimizer=OPTIMIZERS[kind])
    with pytest.raises(UserError, match=r"weight \(2, 3\) -> \(2, 4\)"):
        Run(2, [], optimizer=OPTIMIZERS[kind], size=4).resume(checkpoint, LENGTH)


@pytest.mark.parametrize("resume", [True, False])
def test_weights_that_do_not_fit_are_in_the_log(resume, caplog):
    """mmengine only prints them."""
    run = Run(2, [], size=4)
    run._resume = resume
    checkpoint = trained(1, [])
    checkpoint["state_dict"]["module.extra"] = torch.ones(2)
    del checkpoint["state_dict"]["bias"]
    make_hook().after_load_checkpoint(run, checkpoint)
    (warning,) = warnings_of(caplog)
    for text in ("weight", "[2, 3]", "[2, 4]", "extra", "bias"):
        assert text in warning


# --------------------------------------------------------------------------------------------------
# Schedules and the length of the training


# Epochs and schedules, and words of the warning on the last one; none if they fit.
LENGTHS = {
    "nothing": ((4,), ()),
    "warm-up alone": ((4, WARM_UP), ()),
    "cosine to the end": ((4, WARM_UP, cosine()), ()),
    "the second half": ((4, cosine(begin=2)), ()),
    "milestone": ((4, steps_at(milestones=[3])), ()),
    "constant to the end": ((4, cosine(end=3), dict(type="ConstantLR", begin=3, factor=1)), ()),
    "steps": ((4, dict(type="StepLR", step_size=2)), ()),
    "milestone at the end": ((4, steps_at(milestones=[4])), ("milestones", "4 ep")),
    "end after it": ((4, cosine(end=6)), ("end", "20 iterations")),
    "T_max after it": ((4, cosine(T_max=6)), ("T_max", "20 iterations")),
    "warm-up after it": ((1, WARM_UP), ("7 iterations", "5 iterations")),
    "step after it": ((4, dict(type="StepLR", step_size=9)), ("step_size", "9 ep")),
    "end before it": ((6, cosine(end=4)), ("20 iterations", "30 iterations")),
    "T_max before it": ((6, cosine(T_max=4)), ("20 iterations", "30 iterations")),
    "milestones long before it": ((9, steps_at(milestones=[2])), ("milestones", "9 epochs")),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_schedules_and_the_length_of_training(name, caplog):
    (epochs, *schedulers), words = LENGTHS[name]
    make_hook().before_train(Run(epochs, schedulers))
    assert len(warnings_of(caplog)) == bool(words)
    if words:
        last = f"param_scheduler.{len(schedulers) - 1} ({schedulers[-1]['type']})"
        assert [word for word in (last, *words) if word not in caplog.text] == []


@pytest.mark.parametrize("by_epoch", [True, False])
def test_epochs_in_a_training_by_iterations(by_epoch, caplog):
    schedule = steps_at(milestones=[60], by_epoch=by_epoch)
    make_hook().before_train(Run(100, [schedule], kind=IterBasedTrainLoop))
    assert ["by_epoch=False" in text for text in warnings_of(caplog)] == [True] * by_epoch


@pytest.mark.parametrize(
    ("done", "used", "said"),
    [(0, True, "another training"), (0, False, ""), (5, True, "Nothing is left")],
)
def test_where_a_training_starts(done, used, said, tmp_path, caplog):  # fmt: skip
    run = Run(5, [])
    run.train_loop._iter = done * LENGTH
    run.work_dir = tmp_path
    if used:
        (tmp_path / "last_checkpoint").touch()
    make_hook().before_train(run)
    assert said in caplog.text and bool(said) == bool(caplog.text)


def _tests_at(scale) -> dict:
    pipeline = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=scale)]
    return dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))


@pytest.mark.parametrize(
    ("now", "said"), [((64, 48), "image_scale=32,24"), ([32, 24], ""), (None, "")]
)
def test_a_test_with_images_of_another_size_says_so(now, said, caplog):
    run, hook = Run(2, []), make_hook()
    run._resume, run.cfg = False, _tests_at(now) if now else {}
    meta = dict(cfg=f"test_dataloader = {_tests_at((32, 24))['test_dataloader']}")
    hook.after_load_checkpoint(run, dict(state_dict=run.model.state_dict(), meta=meta))
    hook.before_test(run)
    assert said in caplog.text and bool(said) == ("resizes" in caplog.text)
