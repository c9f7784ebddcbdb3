"""A data loader after take_over gives the same data at a position, however it got there."""

import pickle
import random
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset, pseudo_collate
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import ChainDataset, DataLoader

from fastdetr_mmdet.engine.hooks import ExactResumeHook
from fastdetr_mmdet.engine.hooks.data_order import (
    EndlessBatches,
    SeededDataset,
    can_take_over,
    seed_generators,
    take_over,
)

# ruff: noqa: NPY002 (the global state of numpy is the subject)

SEED = (0, 0, 0)


class Images:
    """Ten images, each with the random numbers of three transforms."""

    pipeline = "first"

    @property
    def metainfo(self) -> dict:
        return dict(classes=("a", "b"))

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple:
        return index, random.random(), np.random.rand(), torch.rand(1).item()

    def get_data_info(self, index: int) -> dict:
        return dict(width=1 + index % 3, height=2)


def make_loader(sampler="DefaultSampler", dataset=None, **config) -> tuple[DataLoader, dict]:
    """A data loader as a runner builds it, and its config."""
    sampler = dict(type=sampler, shuffle=True)
    config = dict(batch_size=4, collate_fn=pseudo_collate, sampler=sampler) | config
    return Runner.build_dataloader(dict(config, dataset=dataset or Images()), seed=3), config


def batches_of(loader) -> list:
    return [torch.tensor(batch, dtype=torch.float64).tolist() for batch in loader]


def passes(count: int, skip: int = 0, **options) -> list:
    """The data of a new loader after take_over."""
    loader, config = make_loader(**options)
    batches = take_over(loader, config, SEED, 3)
    batches.passes, batches.skip = divmod(skip, len(loader))
    found = []
    for epoch in range(batches.passes, count):
        batches.passes = epoch
        batches.sampler.set_epoch(epoch)
        found += batches_of(loader)
    return found


def test_generators_follow_from_the_position():
    def draw(*position, cpu_only=False):
        seed_generators(*position, cpu_only=cpu_only)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw(1, 2, 3)
    assert draw(1, 2, 3) == draw(1, 2, 3, cpu_only=True) == first
    for other in ((1, 2, 4), (2, 2, 3), (1, 3, 3), (3, 2, 1)):
        assert not set(draw(*other)) & set(first)


# --------------------------------------------------------------------------------------------------
# The data loader


def test_numbers_differ_and_the_order_is_the_sampler_s():
    found = passes(3)
    drawn = torch.tensor([batch for batch in found if len(batch[0]) == 4])[:, 1:]
    assert len(drawn.flatten().unique()) == drawn.numel()
    loader, _ = make_loader()
    loader.sampler.set_epoch(2)
    assert [batch[0] for batch in found[6:]] == [batch[0] for batch in batches_of(loader)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_do_not_matter(workers, persistent):
    options = dict(num_workers=workers, persistent_workers=persistent)
    whole = passes(3)
    assert passes(3, **options) == whole
    assert passes(3, skip=4, **options) == whole[4:]


@pytest.mark.parametrize("skip", range(7))
@pytest.mark.parametrize("similar", [False, True], ids=["plain", "similar shape"])
def test_leading_batches_are_left_out(skip, similar):
    options = dict(batch_sampler=dict(type="AspectRatioBatchSampler")) if similar else {}
    whole = passes(3, **options)
    assert len(whole) == 9
    assert passes(3, skip=skip, **options) == whole[skip:]


def test_images_that_are_left_out_are_not_loaded():
    class Counting(Images):
        loaded = 0

        def __getitem__(self, index):
            Counting.loaded += 1
            return super().__getitem__(index)

    passes(1, skip=2, dataset=Counting())
    assert Counting.loaded == 2


@pytest.mark.parametrize(("known", "seed", "expected"), [(1, 3, 4), (0, 3, 4), (1, 9, 9)])
def test_seed_of_the_sampler(known, seed, expected):
    """mmengine builds the sampler before it reads the checkpoint's seed."""
    loader, config = make_loader()
    if seed != 3:
        config["sampler"]["seed"] = seed
    batches = take_over(loader, config if known else None, SEED, 4)
    assert batches.sampler.seed == loader.sampler.seed == expected


class Listed(BaseDataset):
    """The same images for mmengine's wrappers."""

    def __init__(self) -> None:
        draw = Images().__getitem__
        super().__init__(pipeline=[lambda info: draw(info["sample_idx"])])

    def load_data_list(self) -> list[dict]:
        return [{} for _ in range(10)]


@pytest.mark.parametrize(
    "make", [lambda: RepeatDataset(Listed(), 2), lambda: ConcatDataset([Listed(), Listed()])]
)
def test_wrapped_data_sets(make):
    """Wrappers compute another index from the sampler's."""
    whole = passes(2, dataset=make())
    assert len(whole) == 10
    assert passes(2, dataset=make()) == whole
    assert passes(2, skip=3, dataset=make()) == whole[3:]


def test_the_data_set_seems_to_be_the_one_it_wraps():
    loader, config = make_loader()
    inner = loader.dataset
    take_over(loader, config, SEED, 3)
    seeded = loader.dataset
    assert isinstance(seeded, SeededDataset)
    assert seeded.metainfo == inner.metainfo and len(seeded) == 10
    seeded.pipeline = "second"  # as in PipelineSwitchHook
    assert inner.pipeline == "second"
    with pytest.raises(AttributeError, match="nothing"):
        _ = seeded.nothing
    assert seeded[3][0] == 3
    assert pickle.loads(pickle.dumps(seeded)).metainfo == inner.metainfo  # for spawned workers


@pytest.mark.parametrize("similar, drop_last", [(False, True), (False, False), (True, False)])
def test_the_loader_seems_to_be_the_same(similar, drop_last):
    options = dict(batch_sampler=dict(type="AspectRatioBatchSampler")) if similar else {}
    loader, config = make_loader(drop_last=drop_last, **options)
    length = len(loader)
    batches = take_over(loader, config, SEED, 3)
    assert len(loader) == len(batches_of(loader)) == length == 3 - drop_last
    assert (loader.batch_sampler.batch_size, loader.batch_sampler.drop_last) == (4, drop_last)
    # DistSamplerSeedHook reads the sampler there
    place = loader.batch_sampler if similar else loader
    assert place.sampler is batches.sampler and hasattr(place.sampler, "set_epoch")


def test_processes_draw_different_numbers(monkeypatch):
    """With the same seed, each process draws its own part of the data and other numbers."""
    found = []
    for rank in (0, 1):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, 2))
        loader, config = make_loader()
        take_over(loader, config, (0, rank, 0), 3)
        found += map(torch.tensor, batches_of(loader))
    images = torch.cat(found, dim=1)
    assert sorted(images[0].tolist()) == list(range(10))
    assert len(images[1:].flatten().unique()) == 30


def test_what_cannot_be_taken_over():
    assert can_take_over(make_loader()[0])
    for loader in (DataLoader(ChainDataset([])), DataLoader(Images(), batch_size=None), [1, 2]):
        assert not can_take_over(loader)


# --------------------------------------------------------------------------------------------------
# Iteration-based loops


@pytest.mark.parametrize("sampler", ["DefaultSampler", "InfiniteSampler"])
@pytest.mark.parametrize("done", [0, 2, 3, 7])
def test_endless_batches_continue(sampler, done):
    def start(passes=0, skip=0, discard=0):
        loader, config = make_loader(sampler)
        # openmmlab's loop makes an iterator at once, which draws from the sampler
        next(iter(loader))
        batches = take_over(loader, config, SEED, 3)
        batches.passes, batches.skip = passes, skip
        return EndlessBatches(loader, batches, discard)

    whole = start()
    expected = list(islice(whole, 10))
    assert whole.position == ((0, 10) if sampler == "InfiniteSampler" else (3, 1))

    before = start()
    list(islice(before, done))
    resumed = start(*before.position, discard=done)
    assert [next(resumed) for _ in range(done)] == [None] * done
    assert list(islice(resumed, 10 - done)) == expected[done:]
    assert resumed.position == whole.position


# --------------------------------------------------------------------------------------------------
# The hook


def make_runner(loop=EpochBasedTrainLoop, iter: int = 0, **config):
    """A minimal runner for the hook."""
    warnings: list[str] = []
    loader, config = make_loader(**config)
    epoch = iter // len(loader)
    train_loop = loop.__new__(loop)
    vars(train_loop).update(dataloader=loader, _iter=iter, _epoch=epoch)
    if loop is SimpleNamespace:  # by iterations
        vars(train_loop).update(iter=iter, epoch=0, dataloader_iterator=None)
    return SimpleNamespace(
        train_loop=train_loop,
        train_dataloader=loader,
        iter=iter,
        epoch=epoch,
        seed=3,
        rank=0,
        world_size=1,
        cfg=dict(train_dataloader=config),
        logger=SimpleNamespace(warnings=warnings, warning=warnings.append),
        model=torch.nn.Linear(1, 1),
        optim_wrapper=None,
    )


def stored(**changes) -> dict:
    saved = dict(passes=1, batches=2, batch_size=4, world_size=1, images=10, sampler_seed=3)
    return dict(exact_resume=saved | changes)


def resumed_position(runner, checkpoint: dict) -> tuple[int, int]:
    hook = ExactResumeHook()
    hook.after_load_checkpoint(runner, checkpoint)
    hook.before_train(runner)
    return hook._batches.passes, hook._batches.skip


BY_ITERATIONS = dict(iter=7, loop=SimpleNamespace)
POSITIONS = {
    "stored": (dict(iter=5), stored(), (1, 2)),
    "load_from": (dict(iter=0), stored(), (0, 0)),
    # without a position in the checkpoint, from the iterations
    "full epochs": (dict(iter=6), {}, (2, 0)),
    "in an epoch": (dict(iter=7), {}, (2, 1)),
    "by iterations": (BY_ITERATIONS, {}, (2, 1)),
    "endless": (dict(sampler="InfiniteSampler", **BY_ITERATIONS), {}, (0, 7)),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_position_after_a_resume(name):
    run, checkpoint, position = POSITIONS[name]
    runner = make_runner(**run)
    assert resumed_position(runner, checkpoint) == position
    assert runner.logger.warnings == []


def test_every_epoch_and_iteration_draws_its_own_numbers():
    """And the same numbers when repeated."""
    runner, hook = make_runner(), ExactResumeHook()
    hook.before_train(runner)

    drawn = []
    for runner.iter, runner.epoch in ((0, 0), (1, 1), (0, 0)):
        for seed in (hook.before_train_epoch, lambda run: hook.before_train_iter(run, 0)):
            seed(runner)
            drawn.append(torch.rand(1).item())
    assert len(set(drawn[:4])) == 4 and drawn[4:] == drawn[:2]


def test_another_set_up():
    """A change of settings is logged; training resumes at the same share of images.

    mmengine would resume at the former iteration: a wrong ETA, or "nothing is left to train".
    """
    runner = make_runner(iter=9)
    checkpoint = stored(batch_size=1, world_size=2, batches=4)
    assert resumed_position(runner, checkpoint) == (1, 2)
    (warning,) = runner.logger.warnings
    assert "batch_size was 1 and is 4, world_size was 2 and is 1" in warning
    assert runner.train_loop.iter == 5
    runner = make_runner(iter=7)  # trained without the hook
    runner.train_loop._epoch = 1
    assert resumed_position(runner, {}) == (1, 0) and runner.train_loop.iter == 3


def test_a_loader_that_cannot_be_taken_over():
    runner = make_runner()
    runner.train_loop.dataloader = [1, 2]
    hook = ExactResumeHook()
    hook.before_train(runner)
    (warning,) = runner.logger.warnings
    assert "a resumed training will see other data" in warning
    checkpoint: dict = {}
    hook.before_train_epoch(runner)
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0)
    hook.after_train_epoch(runner)
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint == {}
