"""Stops a run on annotations that it would fail on, or learn something wrong from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...datasets.check import NotCocoError, check_files
from ...datasets.check.files import usable_cores
from ...datasets.check.kinds import check_kind_names
from ...datasets.check.loading import explain_failed_loading, name_unreadable_images
from ...datasets.check.sets import CheckedSet, check_set, sets_of_dataset


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Checks the annotation files of training and validation, or of test, before the first step.

    It reads the annotations again, lists the folders of the images (so that missing files are
    found), reads the headers and ends of the files, and writes one line to the log: what is wrong
    and how many boxes mmdet will skip. It stops where training would fail or learn wrong things in
    silence; ``docs/data_check.md`` lists when. Damage in the middle of a file is found only when
    the run comes to it; the image is then named. Data sets that do not load their file as mmdet's
    ``CocoDataset`` does are left alone.

    Args:
        enabled: False turns all of it off.
        allow: Kinds of problems to run with all the same, as ``('path-symlink',)``.
        find_images: Whether to look if the image files are there. That no folder lies outside of
            the data set is looked at in any case.
        read_images: Whether to look into them too, at some 10,000 a second for each core from a
            local disk; over a slow network it may take minutes.

    Raises:
        ValueError: before the first step; on all processes, though only the first one checks.
    """

    def __init__(
        self,
        enabled: bool = True,
        allow: Sequence[str] = (),
        find_images: bool = True,
        read_images: bool = True,
    ) -> None:
        if isinstance(allow, str):
            allow = (allow,)
        check_kind_names(tuple(allow))
        self.enabled = enabled
        self.allow = tuple(allow)
        self.find_images = find_images
        self.read_images = read_images
        self._checked: set[CheckedSet] = set()
        if enabled:
            explain_failed_loading()

    def before_train(self, runner: Runner) -> None:
        """Check the training set, and the validation set if there is one."""
        datasets = [(runner.train_dataloader.dataset, False)]
        if getattr(runner, "val_loop", None) is not None:
            datasets.append((runner.val_dataloader.dataset, True))
        self._check(runner, datasets)

    def before_val(self, runner: Runner) -> None:
        """Check the validation set, unless it was checked before training."""
        self._check(runner, [(runner.val_dataloader.dataset, True)])

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        # files of images to detect in, as COCO's test-dev, have no annotations
        self._check(runner, [(runner.test_dataloader.dataset, True)], needs_boxes=False)

    def _check(
        self, runner: Runner, datasets: list[tuple[Any, bool]], needs_boxes: bool = True
    ) -> None:
        if not self.enabled:
            return
        found: list[CheckedSet] = []
        for dataset, evaluated in datasets:
            for checked, leaf in sets_of_dataset(dataset, evaluated, needs_boxes):
                name_unreadable_images(leaf)
                if checked not in self._checked:
                    self._checked.add(checked)
                    found.append(checked)
        if not found:
            return
        # a problem that only one process knew of would leave the others waiting for it
        refusals = [self._refusal(runner, found) if is_main_process() else None]
        broadcast_object_list(refusals)
        if refusals[0]:
            raise ValueError(refusals[0])

    def _refusal(self, runner: Runner, found: list[CheckedSet]) -> str | None:
        """Log what is found; returns why the run must stop, or None."""
        refusals = []
        for checked in found:
            started = time.perf_counter()
            try:
                # mmdet has read this file: it is JSON
                report = check_set(checked, outlines=False)
                if checked.images is not None:
                    check_files(
                        report,
                        checked.images,
                        checked.root,
                        find=self.find_images,
                        look=self.find_images and self.read_images,
                        workers=usable_cores(),
                    )
            except NotCocoError as error:
                refusals.append(str(error))
                continue
            except Exception as error:
                # a file on which the check fails must not get past it
                refusals.append(
                    f"The data check of {checked.annotations} failed itself: {error!r}. Please "
                    "report that with the file; DatasetCheckHook(enabled=False) runs without it."
                )
                continue
            refusals.append(report.refusal(self.allow))
            if not refusals[-1]:
                lost = report.skipped or report.errors()
                log = runner.logger.warning if lost else runner.logger.info
                log(f"{report.paragraph()} ({time.perf_counter() - started:.1f} s)")
        return "\n".join(filter(None, refusals)) or None
