"""From nothing to a trained, tested and pictured detector: ``python -m fastdetr_mmdet.demo``.

Renders the embedded data set, trains and tests the demo config through mim, and writes
``summary.json``, ``predictions.png``, ``curves.png`` and ``report.html`` beside the runner's own
files.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

CONFIG = "demo/fast-detr_r18_shapes.py"
PACKAGES = ("torch", "mmengine", "mmcv", "mmdet")


def main(arguments: list[str] | None = None) -> None:
    """Run the demo; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m fastdetr_mmdet.demo", description=__doc__)
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs/demo"),
        help="where checkpoints, summary and pictures go (default: %(default)s)",
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path("data/shapes"),
        help="where the data set is or is to be rendered (default: %(default)s)",
    )
    parser.add_argument(
        "--pictures-only", action="store_true", help="write summary and pictures of a finished run"
    )
    args = parser.parse_args(arguments)
    config = find_config(CONFIG)
    seconds_file = args.work_dir / "train_seconds.txt"

    if not args.pictures_only:
        run([sys.executable, "-m", "fastdetr_mmdet.datasets.shapes", str(args.data_root)])
        common = ["--work-dir", str(args.work_dir)]
        options = ["--cfg-options", f"data_root={args.data_root}/"]
        start = time.time()
        run([mim(), "train", "fastdetr_mmdet", str(config), *common, *options])
        seconds = round(time.time() - start, 1)
        seconds_file.write_text(f"{seconds}\n")
        checkpoint = last_checkpoint(args.work_dir)
        run(
            [mim(), "test", "fastdetr_mmdet", str(config), "-C", str(checkpoint), *common, *options]
        )

    if not seconds_file.is_file():
        sys.exit(f"{args.work_dir} holds no finished demo run; run it without --pictures-only.")
    summary = write_results(args.work_dir, args.data_root, config, float(seconds_file.read_text()))
    print(json.dumps(summary, indent=2))
    for name in ("summary.json", "predictions.png", "curves.png", "report.html"):
        print(args.work_dir / name)


def run(command: list[str]) -> None:
    """Run one step, showing the command; a failed step ends the demo with its exit status."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command).returncode
    if status:
        print(
            f"The demo stopped: the command above ended with exit status {status}.", file=sys.stderr
        )
        sys.exit(status)


def mim() -> str:
    """The ``mim`` of this environment."""
    beside = Path(sys.executable).with_name("mim")
    command = str(beside) if beside.exists() else shutil.which("mim")
    if command is None:
        sys.exit("mim is not installed; run: pip install 'fastdetr_mmdet[mim]'")
    return command


def find_config(name: str) -> Path:
    """A shipped config: in the checkout where there is one, else in the installed package."""
    package = Path(__file__).resolve().parent
    for root in (package.parent / "configs", package / ".mim" / "configs"):
        if (root / name).is_file():
            return root / name
    sys.exit(f"The config {name} is missing; install fastdetr_mmdet again.")


def last_checkpoint(work_dir: Path) -> Path:
    """The checkpoint that the runner wrote last."""
    return Path((work_dir / "last_checkpoint").read_text().strip())


def write_results(work_dir: Path, data_root: Path, config: Path, train_seconds: float) -> dict:
    """Write summary and pictures of a trained and tested run; return the summary."""
    from .report import make_report
    from .visualization import draw_predictions, plot_curves, read_run_log

    metrics = test_metrics(work_dir)
    summary = {
        "bbox_mAP": metrics["coco/bbox_mAP"],
        "bbox_mAP_50": metrics["coco/bbox_mAP_50"],
        "train_seconds": train_seconds,
        "config": f"configs/{CONFIG}",
        "versions": versions(),
    }
    pictures, classes = predict(config, last_checkpoint(work_dir), data_root, count=12)
    draw_predictions(pictures, classes, work_dir / "predictions.png")
    title = f"{config.stem}: AP {summary['bbox_mAP']:.3f} after {train_seconds:.0f} s"
    plot_curves(read_run_log(work_dir), work_dir / "curves.png", title)
    (work_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    options = {"data_root": f"{data_root}/"}
    make_report([work_dir], work_dir / "report.html", cfg_options=options)
    return summary


def test_metrics(work_dir: Path) -> dict[str, float]:
    """What the newest test run measured."""
    for path in sorted(work_dir.glob("*/*.json"), reverse=True):
        metrics = json.loads(path.read_text())
        if "coco/bbox_mAP" in metrics:
            return metrics
    sys.exit(f"{work_dir} holds no test result; run: mim test fastdetr_mmdet CONFIG -C CHECKPOINT")


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it stands on."""
    found = {"python": sys.version.split()[0], "fastdetr_mmdet": metadata.version("fastdetr_mmdet")}
    for name in PACKAGES:
        found[name] = __import__(name).__version__
    return found


def predict(config: Path, checkpoint: Path, data_root: Path, count: int) -> tuple[list, tuple]:
    """Pictures of the first validation images with objects, with the trained model's boxes."""
    import numpy as np
    from mmdet.apis import inference_detector, init_detector
    from pycocotools.coco import COCO

    from .visualization.predictions import Picture

    model = init_detector(str(config), str(checkpoint), device="cpu")
    coco = COCO(str(data_root / "annotations/val.json"))
    index = {category: i for i, category in enumerate(coco.getCatIds())}
    chosen = [i for i in coco.getImgIds() if coco.getAnnIds(i)][:count]
    pictures = []
    for image_id in chosen:
        path = data_root / "val" / coco.loadImgs(image_id)[0]["file_name"]
        found = inference_detector(model, str(path)).pred_instances.cpu().numpy()
        objects = coco.loadAnns(coco.getAnnIds(image_id))
        corner = np.array([a["bbox"] for a in objects], dtype=float)
        corner[:, 2:] += corner[:, :2]
        pictures.append(
            Picture(
                image=_read_rgb(path),
                true_boxes=corner,
                true_labels=np.array([index[a["category_id"]] for a in objects]),
                boxes=found.bboxes,
                labels=found.labels,
                scores=found.scores,
            )
        )
    return pictures, model.dataset_meta["classes"]


def _read_rgb(path: Path):
    import mmcv

    return mmcv.imread(str(path), channel_order="rgb")


if __name__ == "__main__":
    main()
