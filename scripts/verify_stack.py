"""Compare this environment with a pins file: exit status 0 if it is as pinned, else 1."""

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path


def problems(pins: Path) -> list[str]:
    """One sentence per problem."""
    found = []
    for name, wanted in re.findall(r"^([\w-]+)==(\S+)$", pins.read_text(), flags=re.MULTILINE):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name} is not installed")
            continue
        if installed.split("+")[0] != wanted:  # torch's local part names CPU or CUDA
            found.append(f"{name} is {installed}, not {wanted}")
    for module in ("torch", "cv2", "mmcv._ext", "mmcv.ops", "mmengine", "mmdet", "mim"):
        try:
            importlib.import_module(module)
        except Exception as error:
            found.append(f"import {module} fails: {error!r}")
    return found


if __name__ == "__main__":
    found = problems(Path(sys.argv[1]))
    print("\n".join(found), file=sys.stderr)
    sys.exit(bool(found))
