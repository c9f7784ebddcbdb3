"""Build mmcv with only the compiled ops of detectors: a minute instead of an hour.

    python -m benchmarks.mmcv_ops MMCV TARGET [--cpu]

MMCV is the package's folder with sources, as in its wheels; TARGET is a folder for sys.path.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from .command_line import parser

# Ops of mmdet's detectors and this package: sampling, RoIAlign, NMS, focal loss.
OPS = ("ms_deform_attn", "roi_align", "nms", "sigmoid_focal_loss")
FILES = ("ms_deform_attn", "roi_align", "nms", "focal_loss")
ON_CPU = ("roi_align", "nms")  # mmcv's only CPU ops among them
SHIM = '''"""The ops that were built; another says so when it is called."""

from ._ops import *


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(name)

    def missing(*_, **__):
        raise NotImplementedError(f"mmcv's op {name} was not built, see benchmarks/mmcv_ops.py")

    return missing
'''


def names(on_cuda: bool) -> list[str]:
    """Python names of the ops: forward and backward, except for NMS."""
    ends = {"nms": ("",)}
    ops = OPS if on_cuda else ON_CPU
    return [op + end for op in ops for end in ends.get(op, ("_forward", "_backward"))]


def bindings(csrc: Path, on_cuda: bool) -> dict[str, str]:
    """Sources that bind these ops to Python and the device, extracted from mmcv's."""
    text = (csrc / "pybind.cpp").read_text()
    declared, defined = [], []
    for name in names(on_cuda):
        declared += re.findall(rf"^\w+ {name}\([^;]*;", text, flags=re.MULTILINE)
        defined += re.findall(rf'm\.def\("{name}",.*?\);', text, flags=re.DOTALL)
    module = "\n".join(defined)
    sources = {
        "bind.cpp": '#include <torch/extension.h>\n#include "pytorch_cpp_helper.hpp"\n'
        + "\n".join(declared)
        + f"\nPYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {{\n{module}\n}}\n"
    }
    if on_cuda:
        blocks = (csrc / "cuda" / "cudabind.cpp").read_text().split("\n\n")
        wanted = re.compile(
            r"\b(ms_deform_attn_|roi_align_|nms_cuda|ROIAlign[FB]|NMSCUDA|\w+ocal_?[lL]oss)"
        )
        kept = [block for block in blocks if block.startswith("#include") or wanted.search(block)]
        sources["bind_cuda.cpp"] = "\n\n".join(x for x in kept if "rotated" not in x.lower())
    return sources


def build(mmcv: Path, target: Path, on_cuda: bool) -> None:
    """Copy mmcv's Python into ``target`` and compile the ops there."""
    import torch
    from torch.utils.cpp_extension import load

    package = target / "mmcv"
    shutil.copytree(mmcv, package, ignore=shutil.ignore_patterns("_ext*", "__pycache__", "csrc"))
    for info in mmcv.parent.glob("*mmcv-*.dist-info"):  # mmdet reads the version from it
        shutil.copytree(info, target / info.name)
    csrc, work = mmcv / "ops" / "csrc", target / "build"
    work.mkdir()
    for name, text in bindings(csrc / "pytorch", on_cuda).items():
        (work / name).write_text(text)
    files = FILES if on_cuda else ON_CPU
    given = [f"{name}.cpp" for name in files] + [f"cpu/{name}.cpp" for name in ON_CPU]
    given += [f"cuda/{name}_cuda.cu" for name in FILES if on_cuda]
    for name in given:  # object files need distinct names
        shutil.copy(csrc / "pytorch" / name, work / name.replace("/", "_"))
    # NVIDIA's packages next to torch have headers that a small CUDA toolkit lacks.
    headers = [csrc / name for name in ("pytorch", "common", "common/cuda")]
    headers += Path(torch.__file__).parents[1].glob("nvidia/*/include") if on_cuda else []
    load(
        "_ops",
        [str(path) for path in work.iterdir()],
        extra_cflags=["-O2"] + ["-DMMCV_WITH_CUDA"] * on_cuda,
        extra_cuda_cflags=["-DMMCV_WITH_CUDA"],
        extra_include_paths=[str(path) for path in headers],
        build_directory=str(work),
        with_cuda=on_cuda,
        is_python_module=False,
    )
    shutil.copy(work / "_ops.so", package / "_ops.so")
    (package / "_ext.py").write_text(SHIM)


if __name__ == "__main__":
    options = parser(__file__, __doc__)
    add = options.add_argument
    add("mmcv", type=Path, metavar="MMCV", help="folder of mmcv with sources, as in its wheels")
    add("target", type=Path, metavar="TARGET", help="folder for sys.path")
    add("--cpu", action="store_true", help="without CUDA")
    args = options.parse_args()
    build(args.mmcv.absolute(), args.target.absolute(), not args.cpu)
