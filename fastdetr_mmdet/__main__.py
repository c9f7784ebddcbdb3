"""All commands of this package: ``python -m fastdetr_mmdet [COMMAND ...]``."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from .utils.cli import UsageError, command

# Command -> module with a main(), and its description.
COMMANDS = {
    "init": ("engine.start.init", "write a config for a folder of images and labels"),
    "train": ("engine.start.train", "train a run of init, or continue it"),
    "predict": ("engine.start.predict", "detect objects in images, folders and videos"),
    "check": ("datasets.check.__main__", "find errors in a dataset in COCO format"),
    "evaluation": ("evaluation.__main__", "show where a detector loses AP"),
    "report": ("report.__main__", "write one HTML page about training runs"),
    "visualize": ("visualize", "draw where a detector looks"),
    "export": ("export.__main__", "write an ONNX file and compare it with PyTorch"),
    "convert": ("checkpoints.convert", "convert checkpoints from and to other codes"),
    "convergence": ("convergence.__main__", "compare how fast several configs learn"),
    "shapes": ("datasets.shapes.__main__", "render the embedded dataset of shapes"),
    "demo": ("demo", "train and test a small detector on the embedded dataset"),
    "parts": ("parts.__main__", "list all parts, with papers and parameters"),
}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of the first argument, or list all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print("usage: python -m fastdetr_mmdet COMMAND ...\n")
        for name, (_, line) in COMMANDS.items():
            print(f"  {name:<12} {line}")
        print("\nStart with init, then train and predict. COMMAND --help lists the options.")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
        raise UsageError(f"There is no command {words[0]!r}; {hint}")
    module = importlib.import_module(f".{COMMANDS[words[0]][0]}", __package__)
    return module.main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
