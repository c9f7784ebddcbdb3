"""Stops a run whose model and data set do not speak of the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mmengine
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


@HOOKS.register_module()
class DatasetClassesCheckHook(Hook):
    """Compares ``bbox_head.num_classes``, the data set's ``metainfo.classes`` and its annotations.

    Paper: none.

    Without it a wrong number of classes trains silently (too many) or ends in an index error (too
    few), and a misspelt class name silently loses its objects.

    Raises:
        ValueError: before the first step of training, validation or test.
    """

    def __init__(self) -> None:
        self._checkpoint_classes: Sequence[str] | None = None

    def before_train(self, runner: Runner) -> None:
        """Check the training set."""
        self._check(runner.model, runner.train_dataloader.dataset, "train_dataloader")

    def before_val(self, runner: Runner) -> None:
        """Check the validation set."""
        self._check(runner.model, runner.val_dataloader.dataset, "val_dataloader")

    def before_test(self, runner: Runner) -> None:
        """Check the test set, also against the classes that the checkpoint was trained on."""
        dataset = runner.test_dataloader.dataset
        self._check(runner.model, dataset, "test_dataloader")
        trained, classes = self._checkpoint_classes, dataset.metainfo.get("classes")
        if trained is not None and classes is not None and list(trained) != list(classes):
            raise ValueError(
                f"The checkpoint was trained on the classes {_shorten(trained)}, but "
                f"test_dataloader.dataset.metainfo.classes names {_shorten(classes)}; test it on "
                "its own classes, in their order."
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the classes; mmengine loads what fits of a checkpoint and only logs the rest."""
        meta = checkpoint.get("meta") or {}
        self._checkpoint_classes = (meta.get("dataset_meta") or {}).get("classes")

    def _check(self, model: Any, dataset: Any, where: str) -> None:
        model = model.module if is_model_wrapper(model) else model
        classes = dataset.metainfo.get("classes")
        num_classes = getattr(getattr(model, "bbox_head", None), "num_classes", None)
        if classes is None or num_classes is None:
            return
        if isinstance(classes, str):
            raise ValueError(
                f"{where}.dataset.metainfo.classes is the string {classes!r}; it must be a tuple: "
                f"classes=({classes!r},), or classes={classes}, (with the comma) by --cfg-options."
            )
        if num_classes != len(classes):
            raise ValueError(
                f"model.bbox_head.num_classes={num_classes}, but {where}.dataset.metainfo.classes "
                f"names {len(classes)} classes ({_shorten(classes)}); make them agree."
            )
        twice = [name for index, name in enumerate(classes) if name in classes[:index]]
        if twice:
            raise ValueError(
                f"{where}.dataset.metainfo.classes names {_shorten(twice)} twice; name it once."
            )
        self._check_names(dataset, classes, where)

    def _check_names(self, dataset: Any, classes: Any, where: str) -> None:
        for part in getattr(dataset, "datasets", ()):  # ConcatDataset
            self._check_names(part, classes, where)
        while hasattr(dataset, "dataset"):  # RepeatDataset, ClassBalancedDataset, ...
            dataset = dataset.dataset
        found = getattr(dataset, "cat_ids", None)  # only COCO-style data sets have it
        if found is None or len(found) == len(classes):
            return
        # mmdet's data set drops its annotations after loading; read the names again for the message
        known = [category.get("name") for category in mmengine.load(dataset.ann_file)["categories"]]
        missing = [name for name in classes if name not in known]
        if not known or not missing or not all(isinstance(name, str) for name in known):
            return  # the fault is in the file, of which DatasetCheckHook tells
        raise ValueError(
            f"{where}.dataset.metainfo.classes names {_shorten(missing)}, which {dataset.ann_file} "
            f"does not have; its categories are {_shorten(known)}."
        )


def _shorten(names: Any, most: int = 8) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
