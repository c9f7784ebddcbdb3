"""Stop a run whose annotations would make it fail or learn wrong labels."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import Any

from mmdet.datasets import XMLDataset
from mmdet.registry import HOOKS
from mmengine.dataset import Compose
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...datasets.check.files import check_files
from ...datasets.check.read import NotCocoError
from ...datasets.check.report import KINDS, Report
from ...datasets.check.sets import (
    CheckedSet,
    NamedPipeline,
    check_set,
    check_voc,
    is_coco,
    watch_loading,
)
from ...datasets.wrappers import leaf_datasets
from ...utils.cli import UserError
from .changes import Changes, run_within

# Number of images that a custom dataset is asked to load before the first step.
_MOST_LOADED = 1000


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Checks the annotation files of training and validation, or of test, before the first step.

    It checks the annotations as mmdet read them, looks for missing image files, reads the headers
    and ends of image files, and logs one line: problems, and how many boxes mmdet will skip. It
    stops where training would fail or silently learn wrong labels; ``docs/data_check.md`` lists
    these cases. Damage in the middle of an image file is found only when the image is loaded; the
    error then names the image. For ``VOCDataset`` and other XML datasets, only class names are
    checked. Datasets that do not load their file like mmdet's ``CocoDataset`` are not checked.

    Args:
        enabled: False turns the check off.
        allow: Names of problems to ignore, such as ``('path-symlink',)``.
        find_images: Whether to check that image files exist. Folders outside of the dataset are
            always reported.
        read_images: Whether to read the image files, about 5,000 per second from a local disk; over
            a slow network it may take minutes. None: only with a single process, because other
            processes would wait.

    Raises:
        ValueError: before the first step, on all processes; only rank 0 checks.
    """

    def __init__(
        self,
        enabled: bool = True,
        allow: Sequence[str] = (),
        find_images: bool = True,
        read_images: bool | None = None,
    ) -> None:
        self.enabled = enabled
        self.allow = (allow,) if isinstance(allow, str) else tuple(allow)
        unknown = [name for name in self.allow if name not in KINDS]
        if unknown:
            raise UserError(f"Unknown kind {', '.join(unknown)}; known: {', '.join(KINDS)}.")
        self.find_images = find_images
        self.read_images = read_images
        self._checked: set[CheckedSet] = set()
        self._changes = Changes()
        stop = watch_loading(is_main_process()) if enabled else lambda: None
        self._stop_watching = weakref.finalize(self, stop)  # also if no run calls the hook

    def before_run(self, runner: Runner) -> None:
        """Prepare the loaded datasets; their pipelines are restored at the end."""
        self._stop_watching()
        run_within(runner, self._changes)

    def before_train(self, runner: Runner) -> None:
        """Check the training set, and the validation set if there is one."""
        datasets = [(runner.train_dataloader.dataset, False)]
        if runner.val_loop is not None:
            datasets.append((runner.val_dataloader.dataset, True))
        self._check(runner, datasets)

    def before_val(self, runner: Runner) -> None:
        """Check the validation set, unless it was checked before training."""
        self._check(runner, [(runner.val_dataloader.dataset, True)])

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        # test files without annotations are allowed, such as COCO's test-dev
        self._check(runner, [(runner.test_dataloader.dataset, True)], needs_boxes=False)

    def _check(
        self, runner: Runner, datasets: list[tuple[Any, bool]], needs_boxes: bool = True
    ) -> None:
        found = []
        for dataset, evaluated in datasets if self.enabled else ():
            for _, leaf in leaf_datasets(dataset):
                pipeline = getattr(leaf, "pipeline", None)
                if isinstance(pipeline, Compose) and not isinstance(pipeline, NamedPipeline):
                    named = NamedPipeline(pipeline)
                    leaf.pipeline = named
                    self._changes.callback(_give_back, leaf, named)
                parsed = None
                if isinstance(leaf, XMLDataset):
                    checked = CheckedSet(leaf.ann_file, None)
                elif is_coco(type(leaf)) and isinstance(leaf.ann_file, str):
                    checked = CheckedSet.of(leaf, evaluated, needs_boxes)
                    parsed = vars(leaf).pop("parsed_annotations", None)
                else:
                    continue
                if checked not in self._checked:
                    self._checked.add(checked)
                    found.append((checked, leaf, parsed))
        if not found:
            return
        texts = [self._refusal(runner, *one) for one in found] if is_main_process() else []
        refusals = ["\n".join(filter(None, texts))]
        broadcast_object_list(refusals)  # if one process stopped alone, the others would wait
        if refusals[0]:
            raise UserError(refusals[0])

    def _refusal(self, runner: Runner, checked: CheckedSet, leaf: Any, parsed: Any) -> str:
        """Log the problems; return why the run must stop, or ''."""
        started = time.perf_counter()
        try:
            report = self._report(checked, leaf, parsed)
        except NotCocoError as error:
            return str(error)
        except Exception as error:  # a file on which the check fails must not pass
            return (
                f"The data check of {checked.annotations} failed: {error!r}. Please report this "
                "with the file. To run without the check, set DatasetCheckHook(enabled=False)."
            )
        refusal = report.refusal(self.allow)
        if not refusal and report.coco["images"]:
            log = runner.logger.warning if report.skipped or report.errors() else runner.logger.info
            log(f"{report.paragraph()} ({time.perf_counter() - started:.1f} s)")
        return refusal

    def _report(self, checked: CheckedSet, leaf: Any, parsed: Any) -> Report:
        if isinstance(leaf, XMLDataset):
            return check_voc(leaf)
        report = check_set(checked, coco=parsed)
        read = get_world_size() == 1 if self.read_images is None else self.read_images
        if checked.images is not None:
            look = self.find_images and read
            check_files(report, checked, find=self.find_images, look=look, most=_MOST_LOADED)
        return report


def _give_back(dataset: Any, named: NamedPipeline) -> None:
    if dataset.pipeline is named:  # PipelineSwitchHook may have set another one
        dataset.pipeline = named.original
