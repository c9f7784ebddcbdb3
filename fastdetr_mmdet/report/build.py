"""From work directories to a written report."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..checkpoints.embedded_config import ForeignConfigError, check_config
from ..checkpoints.safe_loading import CheckpointRefusedError
from ..evaluation.evaluate import EvaluationError, evaluate
from ..evaluation.image_paths import ImagePathError
from ..utils.files import would_overwrite, write_atomically
from .attention import contact_sheets
from .checkpoint_of_run import NoCheckpointError, find_checkpoint
from .page import make_page
from .run import Run, find_work_dirs, read_runs
from .samples import spread
from .settings import Settings

Progress = Callable[[str], None]
# What is read of a work directory
_SOURCES = ("*.pth", "*.py", "*/*.log", "*/vis_data/*.json", "*/vis_data/*.py")


def make_report(
    work_dirs: Sequence[str | Path],
    out: str | Path,
    settings: Settings | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    progress: Progress = print,
) -> list[Run]:
    """Write a report of training runs to one HTML file; the file is there whole or not at all.

    What is missing for a run, or cannot be read, is said in the report and stops nothing.

    Args:
        work_dirs: Of mmengine's runner; a folder that holds several stands for all of them.
        out: The file to write; one that is there is replaced if it is HTML by its name.
        settings: What to show, and how much.
        cfg_options: Changes to every run's config, as for mmdet: where its data is now.
        progress: Is told what is being done.

    Returns:
        The runs, with what was found.

    Raises:
        FileNotFoundError: if a work directory, or the folder of `out`, does not exist, or if no
            work directory holds anything of a run.
        IsADirectoryError: if `out` is a folder.
        FileExistsError: if `out` is there and is no HTML file, or is one that the report reads.
        OSError: if the file cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; name the file to write, {out}/report.html.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{out} cannot be written: make the folder {out.parent} first.")
    folders = find_work_dirs([Path(path) for path in work_dirs])
    sources = (path for folder in folders for name in _SOURCES for path in folder.glob(name))
    is_html = out.suffix.lower() in (".html", ".htm")
    if out.exists() and (not is_html or would_overwrite([out], sources)):
        raise FileExistsError(
            f"{out} is there and is no report to replace; name another file to write, one that "
            "ends in .html."
        )
    runs = read_runs(folders)
    settings = (settings or Settings()).for_runs(len(runs))
    for number, run in enumerate(runs, 1):
        progress(f"[{number}/{len(runs)}] {run.name}: {_what_was_read(run)}")
        known = len(run.notes)
        if settings.predictions:
            _evaluate(run, settings, cfg_options or {}, progress)
        for note in run.notes[known:]:
            progress(f"    {note}")
    page = make_page(runs, settings, datetime.now())
    content = page.encode("utf-8", "replace")
    write_atomically(out, content)
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    progress(f"{out}: {count}, {len(content) / 1e6:.1f} MB")
    return runs


def _what_was_read(run: Run) -> str:
    history = run.history
    if not history.progress:
        return " ".join(run.notes)
    sessions = f" in {history.sessions} sessions" if history.sessions > 1 else ""
    notes = "".join(f" {note}" for note in run.notes)
    return f"{history.progress:.4g} {history.unit}s{sessions}.{notes}"


def _evaluate(run: Run, settings: Settings, options: Mapping[str, Any], progress: Progress) -> None:
    """Run the checkpoint of a run; what stops that becomes a note."""
    try:
        checkpoint = find_checkpoint(run.work_dir, settings.checkpoint)
        if run.config_file is None or run.config is None:
            raise EvaluationError(f"without a config {checkpoint.name} cannot be run")
        config = _load_config(run, options)
        progress(f"    {checkpoint.name} on its validation set ...")
        run.evaluation = evaluate(
            config,
            checkpoint,
            settings.max_images,
            settings.device,
            lambda text: progress(f"    {text}"),
        )
    except NoCheckpointError as error:
        run.notes.append(f"{error} No boxes, errors or attention are shown.")
    except (EvaluationError, ImagePathError) as error:
        run.notes.append(f"No boxes, errors or attention are shown: {error}.")
    except ForeignConfigError as error:
        run.notes.append(
            f"Its checkpoint was not run, because its config was refused: {error.why}."
        )
    except CheckpointRefusedError as error:
        run.notes.append(f"Its checkpoint was not run. {error}")
    except FileNotFoundError as error:
        run.notes.append(
            f"Its checkpoint could not be run: {error.strerror or error}: {error.filename}. If the "
            "data is elsewhere now, say where: --cfg-options data_root=..."
        )
    except Exception as error:  # other people's data sets, models and files fail in any way
        first = " ".join(str(error).split())[:300]
        run.notes.append(f"Its checkpoint could not be run: {type(error).__name__}: {first}")
    if run.evaluation is not None:
        _draw_attention(run, settings, progress)
        run.evaluation.model = None  # one model at a time


def _draw_attention(run: Run, settings: Settings, progress: Progress) -> None:
    evaluation = run.evaluation
    assert evaluation is not None and evaluation.model is not None
    shown = spread(evaluation.images, settings.sheets)
    if not shown:
        return
    progress("    attention ...")
    try:
        run.sheets, run.why_no_sheets = contact_sheets(evaluation.model, shown, settings.queries)
    except Exception as error:  # a pipeline of the user's that the viewer cannot feed
        first = " ".join(str(error).split())[:300]
        run.why_no_sheets = f"The attention could not be drawn: {type(error).__name__}: {first}"
        progress(f"    {run.why_no_sheets}")


def _load_config(run: Run, options: Mapping[str, Any]) -> Config:
    """The dumped config, which has to be plain data; the user's own modules are imported for it."""
    assert run.config_file is not None and run.config is not None
    imports = (run.config.get("custom_imports") or {}).get("imports") or ()
    for name in [imports] if isinstance(imports, str) else imports:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise EvaluationError(f"its config imports {name}, which fails: {error}") from error
    text = run.config_file.read_text(encoding="utf-8")
    check_config(text)
    config = Config.fromstring(text, ".py")
    config.merge_from_dict(dict(options))
    return config
