"""Check that every package of this environment is complete: exit status 0 if so, else 1.

pip writes a package file by file. If it is interrupted, a distribution may lack files, or pip
cannot remove it any more. setup.sh calls this after an interrupted set-up.
"""

import csv
import sys
from pathlib import Path


def damage() -> list[str]:
    """One sentence per problem."""
    found = []
    for folder in {Path(entry) for entry in sys.path if entry.endswith("site-packages")}:
        # pip renames a package to ~name while it replaces it.
        found += [f"{path} is a leftover of pip" for path in folder.glob("~*")]
        for info in folder.glob("*.dist-info"):
            if not (info / "METADATA").is_file():
                found.append(f"{info.name} has no METADATA")
            # pip writes RECORD last, with INSTALLER in it.
            record = info / "RECORD"
            text = record.read_text(encoding="utf-8") if record.is_file() else ""
            if "/INSTALLER," not in text:
                found.append(f"{info.name} was not completely installed")
            # Not importlib.metadata: from Python 3.12 on it omits missing files.
            for file, *_ in csv.reader(text.splitlines()):
                if not file.endswith(".pyc") and not (folder / file).exists():
                    found.append(f"{info.name.split('-')[0]} lacks {file}")
                    break
    return found


if __name__ == "__main__":
    problems = damage()
    print("\n".join(problems), file=sys.stderr)
    sys.exit(bool(problems))
