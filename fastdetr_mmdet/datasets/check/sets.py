"""Find the datasets of a config or runner, and make mmdet's errors name the file."""

from __future__ import annotations

import functools
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.fileio import get_local_path, list_from_file
from mmengine.registry import init_default_scope

from ...utils.cli import UserError
from ..wrappers import leaf_datasets
from .annotations import check_annotations, missing_class, similar_name
from .files import reason
from .read import LISTS, NotCocoError, read_coco, shown
from .report import MAX_ASPECT, Report


@dataclass(frozen=True)
class CheckedSet:
    """One dataset to check."""

    annotations: str  # the annotation file
    images: str | None  # folder of the images; None if not local
    root: str | None = None  # data_root, which may hold files, too
    classes: tuple[str, ...] | None = None  # metainfo.classes; None: all
    evaluated: bool = True  # whether the set is for validation or test
    needs_boxes: bool = True  # whether the file must have annotations
    backend_args: Any = field(default=None, compare=False)  # for reading the annotation file
    # the dataset's transforms; None: OpenCV reads the images
    pipeline: Sequence[Callable] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, leaf: CocoDataset, evaluated: bool, needs_boxes: bool = True) -> CheckedSet:
        """Describe a COCO-style dataset for the check."""
        images, classes = (leaf.data_prefix or {}).get("img"), leaf.metainfo.get("classes")
        backend = (leaf.backend_args or {}).get("backend", "local")
        local = "://" not in (images or "") and backend == "local"
        return cls(
            leaf.ann_file,
            (images or os.curdir) if local else None,
            leaf.data_root or None,
            None if classes is None or isinstance(classes, str) else tuple(classes),
            evaluated,
            needs_boxes,
            leaf.backend_args,
            leaf.pipeline.transforms,
        )


def check_set(checked: CheckedSet, max_aspect: float = MAX_ASPECT, coco: Any = None) -> Report:
    """Check the annotations of one dataset; without ``coco``, read its file.

    Raises:
        NotCocoError: if there is no COCO annotation file.
    """
    if coco is None:
        with get_local_path(checked.annotations, backend_args=checked.backend_args) as local:
            coco = read_coco(local, checked.needs_boxes)
    return check_annotations(
        coco, checked.annotations, checked.classes, checked.evaluated, max_aspect
    )


def sets_of_config(config: Config, splits: Sequence[str] = ("train", "val")) -> list[CheckedSet]:
    """COCO-style datasets of a config's dataloaders, without repetitions."""
    init_default_scope(config.get("default_scope") or "mmdet")
    found = []
    for split in splits:
        for dataset in _configs((config.get(f"{split}_dataloader") or {}).get("dataset")):
            name = dataset.get("type")
            cls = DATASETS.get(name) if isinstance(name, str) else name
            if is_coco(cls) and isinstance(dataset.get("ann_file"), str):
                built = DATASETS.build({**dataset, "lazy_init": True})
                found.append(CheckedSet.of(built, split != "train", split != "test"))
    return list(dict.fromkeys(found))


def _configs(dataset: Any) -> Iterator[dict]:
    if isinstance(dataset, dict):
        yield dataset
        for part in [*(dataset.get("datasets") or ()), dataset.get("dataset")]:
            yield from _configs(part)


def is_coco(cls: Any) -> bool:
    """Whether a dataset class reads its file like CocoDataset (LVIS's does not)."""
    return (
        isinstance(cls, type)
        and issubclass(cls, CocoDataset)
        and all(
            getattr(cls, name) is getattr(CocoDataset, name)
            for name in ("COCOAPI", "load_data_list", "parse_data_info", "_join_prefix")
        )
    )


def checked_sets(dataset: Any, evaluated: bool) -> list[CheckedSet]:
    """COCO-style datasets in a dataset and its wrappers."""
    return [
        CheckedSet.of(leaf, evaluated)
        for _, leaf in leaf_datasets(dataset)
        if is_coco(type(leaf)) and isinstance(leaf.ann_file, str)
    ]


def check_voc(dataset: XMLDataset) -> Report:
    """Find classes that XML files spell differently, which mmdet ignores silently.

    A class without objects is accepted, unless objects have a similar name that is not a class, or
    no object has the name of any class.
    """
    report = Report(dataset.ann_file, {key: [] for key in LISTS})
    names: set[str] = set()
    for number in list_from_file(dataset.ann_file, backend_args=dataset.backend_args):
        path = os.path.join(dataset.sub_data_root, dataset.ann_subdir, f"{number}.xml")
        with get_local_path(path, backend_args=dataset.backend_args) as local:
            names |= {str(name.text) for name in ET.parse(local).iterfind("object/name")}
    classes = dataset.metainfo["classes"]
    others = sorted(names.difference(classes))
    for name in classes if others else ():
        if name not in names and (names.isdisjoint(classes) or similar_name(name, others)):
            report.add("class-without-category", note=missing_class(name, others))
    return report


# --------------------------------------------------------------------------------------------------
# mmdet's errors with the name of the file


class NamedPipeline(Compose):
    """A dataset's pipeline whose errors name the image.

    OpenCV's errors do not name it, nor does a traceback from worker processes.

    Raises:
        OSError: if the image cannot be loaded.
        ValueError: if a transform fails on it.
    """

    def __init__(self, pipeline: Compose) -> None:
        self.original = pipeline
        self.transforms = pipeline.transforms

    def __call__(self, data: dict) -> dict | None:
        """Transform the image of `data`."""
        results: Any = data
        named = f"{shown(data.get('img_path'), 300)} (image id {shown(data.get('img_id'))})"
        for transform in self.transforms:
            loaded = "img" in results
            try:
                results = transform(results)
            except Exception as error:
                if loaded:
                    raise UserError(
                        f"{type(transform).__name__} fails on image file {named}: {reason(error)}. "
                        "Remove the image, or change the transform."
                    ) from error
                raise OSError(
                    f"Image file {named} cannot be read: {reason(error)}. Fix or replace the file; "
                    "python -m fastdetr_mmdet check lists all such files and can write annotations "
                    "without them."
                ) from error
            if results is None:
                break
        return results


def watch_loading(keep: bool) -> Callable[[], None]:
    """Make mmdet's datasets report the problems of annotation files on which they fail.

    The runner builds datasets before it calls hooks, so a hook is too late for files on which
    mmdet raises ``KeyError: 'bbox'``.

    Args:
        keep: Whether to keep the JSON of a file as ``parsed_annotations`` of its dataset.

    Returns:
        A function that reverts this.
    """
    full_init = BaseDetDataset.full_init
    if getattr(full_init, "watched", False):
        return lambda: None

    def watched(self: Any) -> None:
        if keep and is_coco(type(self)):
            self.COCOAPI = functools.partial(_remember, self, self.COCOAPI)
        try:
            full_init(self)
        except Exception as error:
            stop()  # hooks are not called after an error
            text = "" if isinstance(error, OSError) else _explain(self)
            if text:
                raise UserError(text) from error
            raise
        finally:
            vars(self).pop("COCOAPI", None)

    def stop() -> None:
        BaseDetDataset.full_init = full_init

    watched.watched = True  # type: ignore[attr-defined]
    BaseDetDataset.full_init = watched
    return stop


def _remember(dataset: Any, api: type, path: str) -> Any:
    """Open a file as mmdet does, and keep its JSON at the dataset for the hook."""
    coco: Any = api(path)
    dataset.parsed_annotations = coco.dataset
    return coco


def _explain(dataset: Any) -> str:
    """Problems of the file of a dataset that failed to load; '' without problems."""
    try:
        if isinstance(dataset, XMLDataset):
            return check_voc(dataset).refusal()
        if not is_coco(type(dataset)):
            return ""
        checked = CheckedSet.of(dataset, bool(dataset.test_mode))
        report = check_set(checked)
        report.images = checked.images
        refusal = report.refusal()
        return refusal and f"{refusal}\nImages and their paths are not checked yet."
    except NotCocoError as error:
        return str(error)
    except Exception:  # the original error is better then
        return ""
