"""Make a report from work directories."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..checkpoints.embedded_config import EmbeddedConfigError, check_config
from ..evaluation.evaluate import evaluate
from ..utils.cli import UsageError, UserError, check_destination, refuse_to_overwrite
from ..utils.files import write_atomically
from .page import make_page
from .pictures import contact_sheets
from .runs import Run, find_checkpoint, find_work_dirs, read_runs
from .samples import spread
from .settings import Settings

Progress = Callable[[str], None]
# Files of a work directory that are read.
_SOURCES = ("*.pth", "*.py", "*/*.log", "*/vis_data/*.json", "*/vis_data/*.py")


def make_report(
    work_dirs: Sequence[str | Path],
    out: str | Path,
    settings: Settings | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    progress: Progress = print,
) -> list[Run]:
    """Write a report of training runs to one HTML file, atomically.

    Missing or unreadable data of a run becomes a note in the report.

    Args:
        work_dirs: Work directories of mmengine's runner, or folders of several.
        out: The file to write; an existing one is overwritten if its name ends in .html.
        settings: Amount of content.
        cfg_options: Changes of every run's config, such as data_root.
        progress: Called with progress messages.

    Returns:
        The runs with their results.

    Raises:
        UsageError: if a work directory or the folder of `out` does not exist, if `out` is a folder,
            an input file or not an HTML file, or if there is no run.
        OSError: if the file cannot be written.
    """
    out = Path(out)
    check_destination(out)
    folders = find_work_dirs([Path(path) for path in work_dirs])
    refuse_to_overwrite(
        [out], (path for folder in folders for name in _SOURCES for path in folder.glob(name))
    )
    if out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"Refusing to overwrite {out}: not an HTML report. Choose another --out that ends in "
            ".html."
        )
    runs = read_runs(folders)
    settings = (settings or Settings()).for_runs(len(runs))
    for number, run in enumerate(runs, 1):
        progress(f"[{number}/{len(runs)}] {run.name}: {_summary(run)}")
        known = len(run.notes)
        if settings.predictions:
            _evaluate(run, settings, cfg_options or {}, lambda text: progress(f"    {text}"))
        for note in run.notes[known:]:
            progress(f"    {note}")
    content = make_page(runs, datetime.now(), settings).encode("utf-8", "replace")
    write_atomically(out, content)
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    progress(f"{out}: {count}, {len(content) / 1e6:.1f} MB")
    return runs


def _summary(run: Run) -> str:
    history = run.history
    if not history.progress:
        return " ".join(run.notes)
    sessions = f" in {history.sessions} sessions" if history.sessions > 1 else ""
    return " ".join([f"{history.progress:.4g} {history.unit}s{sessions}.", *run.notes])


def _evaluate(run: Run, settings: Settings, options: Mapping[str, Any], progress: Progress) -> None:
    """Evaluate a run's checkpoint; failures become notes."""
    try:
        checkpoint = find_checkpoint(run.work_dir, settings.checkpoint)
        config = _load_config(run, options)
        progress(f"{checkpoint.name} on its validation set ...")
        images, device = settings.max_images, settings.device
        run.evaluation = evaluate(config, checkpoint, images, device, progress)
    except EmbeddedConfigError as error:
        run.notes.append(f"Its checkpoint was not run. Its config was refused: {error.why}.")
    except UserError as error:
        run.notes.append(f"No boxes, errors or attention are shown. {error}")
    except FileNotFoundError as error:
        run.notes.append(
            f"Its checkpoint could not be run: {error.strerror or error}: {error.filename}. If the "
            "data was moved, set its folder: --cfg-options data_root=..."
        )
    except Exception as error:  # users' datasets, models and files may raise anything
        run.notes.append(f"Its checkpoint could not be run: {_in_one_line(error)}")
    if run.evaluation is not None:
        _draw_attention(run, settings, progress)
        run.evaluation.model = None  # one model at a time


def _draw_attention(run: Run, settings: Settings, progress: Progress) -> None:
    evaluation = run.evaluation
    assert evaluation is not None and evaluation.model is not None
    shown = spread(evaluation.images, settings.sheets)
    if not shown:
        return
    progress("attention ...")
    try:
        run.sheets = contact_sheets(evaluation.model, shown, settings.queries)
    except UserError as error:
        run.why_no_sheets = str(error)
    except Exception as error:  # users' pipelines may raise anything
        run.why_no_sheets = f"The attention could not be drawn: {_in_one_line(error)}"
        progress(run.why_no_sheets)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _load_config(run: Run, options: Mapping[str, Any]) -> Config:
    """Read the dumped config, which must be plain data, and import the modules that it names."""
    if run.config_file is None or run.config is None:
        raise UserError("A checkpoint cannot be run without its config.")
    imports = (run.config.get("custom_imports") or {}).get("imports") or ()
    for name in [imports] if isinstance(imports, str) else imports:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"Its config imports {name}, which fails: {error}.") from error
    text = run.config_file.read_text(encoding="utf-8")
    check_config(text)
    config = Config.fromstring(text, ".py")
    config.merge_from_dict(dict(options))
    return config
