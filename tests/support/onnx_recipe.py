"""The Python code of docs/inference.md that runs an exported file."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from support.runs import ROOT


def run_example(onnx_file: Path, image: str) -> dict[str, Any]:
    """Execute it with other names of the two files; return its variables."""
    page = (ROOT / "docs/inference.md").read_text()
    (example,) = re.findall(r"```python\n(import json\n.*?)```", page, flags=re.DOTALL)
    for name, path in (("'detector.onnx'", onnx_file), ("'image.jpg'", image)):
        assert example.count(name) == 1
        example = example.replace(name, repr(str(path)))
    variables: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(example, "docs/inference.md", "exec"), variables)
    return variables
