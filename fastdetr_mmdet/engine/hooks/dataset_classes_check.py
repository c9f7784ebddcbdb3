"""Stop a run whose model, datasets, evaluators and checkpoint do not match."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...datasets.wrappers import leaf_datasets, use_first_metainfo
from ...evaluation.evaluator_check import check_evaluator
from ...utils.cli import UserError
from .changes import unwrap


@HOOKS.register_module()
class DatasetClassesCheckHook(Hook):
    """Compares model, datasets, evaluators and checkpoint.

    - ``bbox_head.num_classes`` and ``metainfo.classes`` of every dataset: too many classes train
      silently, too few end in an index error. mmdet's ``NumClassCheckHook`` ignores wrappers and
      the test set, and checks validation only after an epoch. (``DatasetCheckHook`` compares
      ``metainfo.classes`` with the annotation file's categories.)
    - A checkpoint's classes and the classes of the test.
    - Images and objects of a dataset and of its ``CocoMetric``: otherwise the average precision is
      wrong. See ``check_evaluator``.

    If the datasets of a ``ConcatDataset`` have the same classes but other meta information differs,
    such as the palette, the first one's is used. mmdet would make a list, which its evaluators and
    visualizers cannot read.

    Raises:
        ValueError: before the first step of training, validation or test.
    """

    def __init__(self) -> None:
        self._checkpoint_classes: Sequence[str] | None = None
        self._checked: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Check the training set, and the validation set and its evaluator."""
        self._checkpoint_classes = None  # a test after training uses the model of this training
        self._check(runner, "train", runner.train_loop)
        if runner.val_loop is not None:
            self._check(runner, "val", runner.val_loop)

    def before_val(self, runner: Runner) -> None:
        """Check the validation set and its evaluator, unless that was done before training."""
        self._check(runner, "val", runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Check the test set, also against the checkpoint's classes."""
        self._check(runner, "test", runner.test_loop)
        trained = self._checkpoint_classes
        _, first = next(leaf_datasets(runner.test_loop.dataloader.dataset))
        classes = _classes(first)
        if trained is not None and classes is not None and list(trained) != list(classes):
            raise UserError(
                f"The checkpoint was trained on the classes {_shorten(trained)}, but "
                f"test_dataloader.dataset.metainfo.classes names {_shorten(classes)}; test it on "
                "its own classes, in their order."
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the classes; mmengine would load what fits and only log the rest."""
        meta = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
        first = meta[0] if isinstance(meta, list) else meta  # of a mixed ConcatDataset
        self._checkpoint_classes = first.get("classes")

    def _check(self, runner: Runner, phase: str, loop: Any) -> None:
        if any(loop is known for known in self._checked):
            return
        dataset = loop.dataloader.dataset
        model = unwrap(runner.model)
        num_classes = getattr(getattr(model, "bbox_head", None), "num_classes", None)
        evaluator = getattr(loop, "evaluator", None)
        if num_classes is not None:
            _check_classes(leaf_datasets(dataset, f"{phase}_dataloader.dataset"), num_classes)
            if isinstance(getattr(dataset, "metainfo", None), list):
                use_first_metainfo(dataset)
                runner.visualizer.dataset_meta = dataset.metainfo
                if evaluator is not None:
                    evaluator.dataset_meta = dataset.metainfo
        if evaluator is not None:
            config = runner.cfg.get(f"{phase}_evaluator")
            for warning in check_evaluator(evaluator, config, dataset, phase):
                runner.logger.warning(warning)
        self._checked.append(loop)


def _check_classes(leaves: Iterable[tuple[str, Any]], num_classes: int) -> None:
    """Check that all datasets of a wrapper have the model's number of classes, in one order."""
    first, expected = "", None
    for key, leaf in leaves:
        classes = _classes(leaf)
        if classes is None:
            continue
        key = f"{key}.metainfo.classes"
        if isinstance(classes, str):
            raise UserError(
                f"{key} is the string {classes!r}; it must be a tuple: classes=({classes!r},), or "
                f"classes={classes}, (with the comma) by --cfg-options."
            )
        if num_classes != len(classes):
            raise UserError(
                f"model.bbox_head.num_classes={num_classes}, but {key} names {len(classes)} "
                f"classes ({_shorten(classes)}); make them agree."
            )
        twice = [name for index, name in enumerate(classes) if name in classes[:index]]
        if twice:
            raise UserError(f"{key} names {_shorten(twice)} twice; name it once.")
        if expected is None:
            first, expected = key, classes
        if list(classes) != list(expected):
            raise UserError(
                f"{key} is {_shorten(classes)}, but {first} is {_shorten(expected)}; name the same "
                "classes in the same order."
            )


def _classes(dataset: Any) -> Sequence[str] | None:
    return getattr(dataset, "metainfo", {}).get("classes")


def _shorten(names: Any, most: int = 8) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
