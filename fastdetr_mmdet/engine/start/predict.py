"""``python -m fastdetr_mmdet predict RUN IMAGES...``: pictures and one COCO-style JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...utils.cli import Parser, UsageError, UserError, command, unit_float


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Detect; unreadable images do not stop the others."""
    parser = Parser(
        prog="python -m fastdetr_mmdet predict",
        description="Detect objects with the best checkpoint of a run. Draw those that score "
        "enough, and write all to OUT/predictions.json in COCO format.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", type=Path,
        help="folder of a run; or a CHECKPOINT; or a CONFIG and a CHECKPOINT")  # fmt: skip
    add("images", metavar="IMAGES", type=Path, nargs="+", help="images, folders or videos")
    add("--score", type=unit_float, default=0.3, metavar="X",
        help="lowest score to draw (%(default)s)")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="default: RUN/predictions")
    add("--device", help="default: cuda:0 if available")
    args = parser.parse_args(arguments)

    import warnings

    warnings.filterwarnings("ignore", message=".*is out of bounds, the drawn")  # a box at a border
    from ...checkpoints.loading import load_detector
    from .run_folder import RunFolder

    if args.run.suffix == ".pth":
        config, checkpoint = _config_of(args.run), args.run
        out = args.out or args.run.parent / "predictions"
    elif args.images[0].suffix == ".pth":
        config, checkpoint = args.run, args.images.pop(0)
        out = args.out or Path("predictions")
    else:
        run = RunFolder.find(args.run)
        config, checkpoint = run.config, run.checkpoint()
        out = args.out or args.run.with_suffix("") / "predictions"
    sources = list(_sources(args.images))
    if not sources:
        raise UsageError(f"{', '.join(map(str, args.images)) or 'Nothing'} holds no images.")
    model: Any = load_detector(config, checkpoint, args.device)
    print(f"{checkpoint}, classes {', '.join(model.dataset_meta['classes'])}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    result, unreadable = _detect(model, sources, out, args.score)
    (out / "predictions.json").write_text(json.dumps(result))
    scores = [box["score"] for box in result["annotations"]]
    drawn, images = sum(score >= args.score for score in scores), len(result["images"])
    print(f"{out / 'predictions.json'}: {len(scores)} boxes in {images} images, of which "
          f"{drawn} of score {args.score:g} or more are drawn")  # fmt: skip
    if scores and not drawn:
        highest = max(scores)
        print(f"The highest score is {highest:.3f}: see more with --score {highest / 2:.2g}, or "
              "train longer.")  # fmt: skip
    if unreadable:
        raise UserError(f"{len(unreadable)} files cannot be read: {', '.join(unreadable)}.")


def _config_of(checkpoint: Path) -> Any:
    """Find the config next to a checkpoint, or read the one in it."""
    from ...checkpoints.embedded_config import config_in
    from ...checkpoints.files import read_content
    from .run_folder import newest

    if not checkpoint.is_file():
        raise UsageError(f"There is no checkpoint {checkpoint}. Give the path of a file.")
    return newest(checkpoint.parent, "*.py") or config_in(read_content(checkpoint))


def _sources(paths: Sequence[Path]) -> Iterator[Path]:
    from ...datasets.formats.found import files_below, is_image

    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no image, folder or video {path}.")
        for file in files_below(path) if path.is_dir() else [path]:
            if file == path or is_image(file) or _is_video(file):
                yield file


def _detect(model: Any, sources: list[Path], out: Path, score: float) -> tuple[dict, list[str]]:
    """Return the detections, and the files that cannot be read."""
    import cv2
    from mmcv.transforms import Compose
    from mmdet.apis import inference_detector
    from mmdet.registry import VISUALIZERS
    from mmdet.utils import get_test_pipeline_cfg

    steps = get_test_pipeline_cfg(model.cfg)
    files = Compose(steps)
    pixels = Compose([dict(type="mmdet.LoadImageFromNDArray"), *steps[1:]])
    visualizer = VISUALIZERS.build(dict(type="DetLocalVisualizer", name="predict"))
    visualizer.dataset_meta = model.dataset_meta
    ids = _category_ids(model)
    names = zip(ids, model.dataset_meta["classes"], strict=True)
    images: list[dict] = []
    annotations: list[dict] = []
    categories = [{"id": number, "name": name} for number, name in names]
    unreadable: list[str] = []
    taken: dict[str, int] = {}
    for source in sources:
        taken[source.name] = taken.get(source.name, 0) + 1
        path, is_video = _target(out, source, taken[source.name]), _is_video(source)
        stream = cv2.VideoWriter()
        for name, image in _frames(source):
            if image is None:
                unreadable.append(str(source))
                continue
            if is_video:
                found = inference_detector(model, image, pixels)
            else:
                found = inference_detector(model, str(source), files)
            boxes = found.pred_instances = found.pred_instances.cpu()
            number = len(images) + 1
            height, width = image.shape[:2]
            images.append(dict(id=number, file_name=name, width=width, height=height))
            for (left, top, right, bottom), label, value in zip(
                boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True
            ):
                w, h = right - left, bottom - top
                annotations.append(
                    dict(id=len(annotations) + 1, image_id=number, iscrowd=0,
                         category_id=ids[label], bbox=[left, top, w, h], area=w * h, score=value)
                )  # fmt: skip
            found.pred_instances = boxes[boxes.scores >= score]
            visualizer.add_datasample(
                name, image[..., ::-1], found, draw_gt=False, pred_score_thr=0
            )
            drawn = visualizer.get_image()[..., ::-1]
            if not is_video:
                cv2.imwrite(str(path), drawn)
                continue
            if not stream.isOpened():
                rate = cv2.VideoCapture(str(source)).get(cv2.CAP_PROP_FPS) or 25
                code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
                stream.open(str(path.with_suffix(".mp4")), code, rate, drawn.shape[1::-1])
            stream.write(drawn)
        stream.release()
    return dict(images=images, annotations=annotations, categories=categories), unreadable


def _frames(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and pixels (BGR) of an image or each frame of a video; None if unreadable."""
    import cv2

    if not _is_video(source):
        yield str(source), cv2.imread(str(source))
        return
    video, number = cv2.VideoCapture(str(source)), 0
    while (frame := video.read())[0]:
        number += 1
        yield f"{source}#{number}", frame[1]
    if not number:
        yield str(source), None


def _target(out: Path, source: Path, number: int) -> Path:
    """The path of a picture or video; the second of equal names, and so on, gets a number."""
    path = out / (f"{source.stem}-{number}{source.suffix}" if number > 1 else source.name)
    if path.exists() and path.resolve() == source.resolve():
        raise UsageError(f"{path} would be overwritten by its picture. Name another --out.")
    return path


def _category_ids(model: Any) -> list[int]:
    """Category ids of the dataset's file; 1, 2, ... if it is missing."""
    classes = list(model.dataset_meta["classes"])
    try:
        dataset = model.cfg.test_dataloader.dataset
        file = Path(dataset.get("data_root") or "", dataset.ann_file)
        known = {c["name"]: c["id"] for c in json.loads(file.read_text())["categories"]}
        return [known[name] for name in classes]
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return [number + 1 for number in range(len(classes))]
