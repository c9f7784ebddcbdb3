"""Tells whether every package of this environment is whole: exits 0 if so, 1 if not.

pip writes a package file by file, so one that was interrupted can leave a distribution with files
missing, or one that pip can no longer remove. Called by setup.sh after an interrupted set-up.
"""

import csv
import sys
from pathlib import Path


def damage() -> list[str]:
    """One sentence for each thing that is wrong."""
    found = []
    for folder in {Path(entry) for entry in sys.path if entry.endswith("site-packages")}:
        # pip renames a package to ~name while it replaces it.
        found += [f"{path} is a leftover of pip" for path in folder.glob("~*")]
        for info in folder.glob("*.dist-info"):
            if not (info / "METADATA").is_file():
                found.append(f"{info.name} has no METADATA")
            # pip's last act is to write RECORD again, with INSTALLER in it.
            record = info / "RECORD"
            text = record.read_text(encoding="utf-8") if record.is_file() else ""
            if "/INSTALLER," not in text:
                found.append(f"{info.name} was not installed to the end")
            # Not importlib.metadata: from Python 3.12 on it leaves out the files that are missing.
            for file, *_ in csv.reader(text.splitlines()):
                if not file.endswith(".pyc") and not (folder / file).exists():
                    found.append(f"{info.name.split('-')[0]} lacks {file}")
                    break
    return found


if __name__ == "__main__":
    problems = damage()
    print("\n".join(problems), file=sys.stderr)
    sys.exit(bool(problems))
