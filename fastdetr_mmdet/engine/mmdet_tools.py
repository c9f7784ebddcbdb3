"""Run mmdet's command-line scripts with this package imported.

`mim train fastdetr_mmdet` and `mim test fastdetr_mmdet` run tools/train.py and tools/test.py of
this package. These only call `run`, so every flag of the installed mmdet works as documented.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from urllib.error import URLError

from ..utils import derived_keys  # noqa: F401 (for configs that do not import it)
from ..utils.cli import UserError
from .distributed import cpu_processes


def run(name: str) -> None:
    """Run one of mmdet's tools as the main program, with the arguments of this process.

    Args:
        name: The script's path below mmdet's tools folder, such as "train.py" or
            "analysis_tools/get_flops.py".
    """
    from mmengine.config.utils import MODULE2PACKAGE

    # mmengine resolves `_base_ = 'fastdetr_mmdet::...'` only for packages in this table.
    MODULE2PACKAGE.setdefault("fastdetr_mmdet", "fastdetr_mmdet")
    if name in ("train.py", "test.py"):
        from .start.console import shorten

        shorten()
    try:
        with cpu_processes():
            runpy.run_path(str(find_script(name)), run_name="__main__")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except URLError as error:
        print(
            f"error: weights could not be downloaded ({error.reason}). Give a file: --cfg-options "
            "model.backbone.init_cfg.checkpoint=FILE (or init --weights FILE).",
            file=sys.stderr,
        )
        sys.exit(1)


def find_script(name: str) -> Path:
    """Return the path of a tool of the installed mmdet.

    Raises:
        FileNotFoundError: if mmdet was installed without its tools.
    """
    import mmdet

    package = Path(mmdet.__file__).resolve().parent
    places = [package / ".mim" / "tools"]  # an installed wheel
    if (package.parent / "model-index.yml").is_file():
        places.append(package.parent / "tools")  # a clone of mmdet, installed editable
    for place in places:
        if (place / name).is_file():
            return place / name
    looked_in = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"mmdet {mmdet.__version__} has no tools/{name} (looked in {looked_in}): install mmdet "
        "from a wheel, or run the script of a clone of mmdet by its path."
    )


def find_mim() -> str:
    """Return the path of this environment's ``mim``.

    Raises:
        UserError: if it is not installed.
    """
    beside = Path(sys.executable).with_name("mim")
    command = str(beside) if beside.exists() else shutil.which("mim")
    if command is None:
        raise UserError("mim is not installed. Run: pip install onedl-mim")
    return command
