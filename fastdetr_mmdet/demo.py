"""Train and test a small detector on the embedded dataset.

Renders the dataset, trains and tests the demo config through mim, and writes ``summary.json``,
``predictions.png``, ``curves.png`` and ``report.html`` to the work directory.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .utils.cli import Parser, UserError, command

if TYPE_CHECKING:
    from .utils.run_history import RunHistory

CONFIG = "demo/fast-detr-dense_r18_shapes.py"
RESULTS = ("summary.json", "predictions.png", "curves.png", "report.html")
LOSSES = {
    "loss": "total, all layers",
    "loss_cls": "class, last layer",
    "loss_bbox": "L1, last layer",
    "loss_iou": "GIoU, last layer",
}
PICTURES = 12  # images in predictions.png


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo; see ``--help``."""
    parser = Parser(prog="python -m fastdetr_mmdet demo", description=__doc__.replace("``", ""))
    add = parser.add_argument
    add("--work-dir", type=Path, default=Path("work_dirs/demo"), metavar="DIR",
        help="folder for checkpoints, summary and pictures (%(default)s)")  # fmt: skip
    add("--data-root", type=Path, default=Path("data/shapes"), metavar="DIR",
        help="folder of the dataset; rendered if missing (%(default)s)")  # fmt: skip
    add("--pictures-only", action="store_true", help="write the results of a finished run again")
    args = parser.parse_args(arguments)

    from .engine.mmdet_tools import find_mim
    from .engine.start.models import configs

    config = configs() / CONFIG
    seconds_file = args.work_dir / "train_seconds.txt"

    if not args.pictures_only:
        run([sys.executable, "-m", "fastdetr_mmdet", "shapes", str(args.data_root)])
        mim, package = find_mim(), "fastdetr_mmdet"
        common = ["--work-dir", str(args.work_dir)]
        common += ["--cfg-options", f"data_root={args.data_root}/"]
        start = time.time()
        run([mim, "train", package, str(config), *common])
        seconds_file.write_text(f"{time.time() - start:.1f}\n")
        run([mim, "test", package, str(config), "-C", str(last_checkpoint(args.work_dir)), *common])

    if not seconds_file.is_file():
        raise UserError(f"{args.work_dir} holds no finished demo run. Run without --pictures-only.")
    summary = write_results(args.work_dir, args.data_root, config, float(seconds_file.read_text()))
    print(json.dumps(summary, indent=2))
    for name in RESULTS:
        print(args.work_dir / name)


def run(step: Sequence[str]) -> None:
    """Run one step, and print the command first.

    Raises:
        UserError: if the step fails.
    """
    print(f"\n$ {shlex.join(step)}", flush=True)
    status = subprocess.run(step).returncode
    if status:
        raise UserError(f"The demo stopped: the command above ended with exit status {status}.")


def last_checkpoint(work_dir: Path) -> Path:
    """The last checkpoint of the runner."""
    return Path((work_dir / "last_checkpoint").read_text().strip())


def write_results(work_dir: Path, data_root: Path, config: Path, train_seconds: float) -> dict:
    """Write summary, pictures and report of a trained and tested run; return the summary.

    Raises:
        UserError: if the run was not tested, or its checkpoint cannot be run.
    """
    from .report import make_report
    from .utils.environment import versions
    from .visualization import draw_predictions

    metrics = test_metrics(work_dir)
    summary = {
        "bbox_mAP": metrics["coco/bbox_mAP"],
        "bbox_mAP_50": metrics["coco/bbox_mAP_50"],
        "train_seconds": train_seconds,
        "config": f"configs/{CONFIG}",
        "versions": versions(),
    }
    options = {"data_root": f"{data_root}/"}
    (shown,) = make_report([work_dir], work_dir / "report.html", cfg_options=options)
    if shown.evaluation is None:
        raise UserError(" ".join(shown.notes))
    images = [image for image in shown.evaluation.images if len(image.true_boxes)]
    classes = shown.evaluation.classes
    draw_predictions(images[:PICTURES], classes, work_dir / "predictions.png")
    title = f"{config.stem}: AP {summary['bbox_mAP']:.3f} after {train_seconds:.0f} s"
    plot_curves(shown.history, work_dir / "curves.png", title)
    (work_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def test_metrics(work_dir: Path) -> dict[str, float]:
    """Metrics of the newest test run."""
    for path in sorted(work_dir.glob("*/*.json"), reverse=True):
        metrics = json.loads(path.read_text())
        if "coco/bbox_mAP" in metrics:
            return metrics
    raise UserError(
        f"{work_dir} holds no test result. Run: mim test fastdetr_mmdet CONFIG -C CHECKPOINT"
    )


def plot_curves(history: RunHistory, path: Path, title: str) -> None:
    """Write a picture with charts of losses and COCO AP over epochs."""
    from .evaluation.coco_table import COLUMNS, METRICS
    from .utils.plotting import Chart, Line, save_charts

    losses = [
        Line.of(label, look, history.losses[name])
        for look, (name, label) in enumerate(LOSSES.items())
        if name in history.losses
    ]
    metrics = [
        Line.of(f"{label} ({curve[-1].value:.3f})", look, curve, faint=look > 1)
        for look, (label, name) in enumerate(zip(COLUMNS, METRICS, strict=True))
        if (curve := history.metrics.get(f"coco/bbox_{name}"))
    ]
    charts = [
        Chart(losses, "epoch", "loss", "Training loss", log_y=True),
        Chart(metrics, "epoch", "COCO AP", "Validation", (0, 1)),
    ]
    save_charts(charts, path, title)


if __name__ == "__main__":
    sys.exit(main())
