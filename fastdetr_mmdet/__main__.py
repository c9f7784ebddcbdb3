"""All commands of this package: ``python -m fastdetr_mmdet [COMMAND ...]``."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from .utils.cli import UsageError, command

# Each is a module with a main() of its own.
COMMANDS = {
    "init": ("engine.start.init", "find out what a folder of images and labels is; write a config"),
    "train": ("engine.start.train", "train the run that init made, or continue it"),
    "predict": ("engine.start.predict", "detect in images, folders and videos with a trained run"),
    "check": ("datasets.check.__main__", "find what is wrong with a data set in COCO's format"),
    "evaluation": ("evaluation.__main__", "more about a detector's errors than AP"),
    "report": ("report.__main__", "one HTML page of one or several runs"),
    "visualize": ("visualize", "draw where a detector looks"),
    "export": ("export.__main__", "write an ONNX file, compared with PyTorch"),
    "convert": ("checkpoints.convert", "convert checkpoints of the official codes and of mmdet"),
    "convergence": (
        "convergence.__main__",
        "compare how fast several configs learn",
    ),
    "shapes": ("datasets.shapes.__main__", "render the embedded data set"),
    "demo": ("demo", "train and test a small detector on it"),
    "parts": ("parts.__main__", "list the parts of detectors and what fits together"),
}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named first, or list all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print("python -m fastdetr_mmdet COMMAND ...    (COMMAND --help says more)\n")
        for name, (_, line) in COMMANDS.items():
            print(f"  {name:<12} {line}")
        print("\nFrom a folder of images and labels to a detector: init, train, predict.")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
        raise UsageError(f"There is no command {words[0]!r}; {hint}")
    module = importlib.import_module(f".{COMMANDS[words[0]][0]}", __package__)
    return module.main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
