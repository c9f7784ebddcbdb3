"""What cannot be exported, said in a sentence; and what exporting needs."""

from __future__ import annotations

import importlib.util

from ..utils.cli import UserError

# Import names; pip knows them by the same.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportError(UserError):
    """A detector that could not be exported; the message says why and what to do."""


def check_packages() -> None:
    """Raise ExportError if a package that exporting needs is missing, or torch is too old."""
    import torch

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"Exporting needs {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed: run "
            "`pip install 'fastdetr_mmdet[export]'`, or `pip install -e '.[export]'` in a clone."
        )
    if not hasattr(torch.onnx, "ops"):
        raise ExportError(
            f"Exporting needs torch 2.8 or later, and this is torch {torch.__version__}; only "
            "what writes the file needs it, the file itself runs without torch."
        )
