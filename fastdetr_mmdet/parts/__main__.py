"""Command line: ``python -m fastdetr_mmdet.parts [NAME]``."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from .combinations import measure_product
from .fitting import measure_pairs
from .pages import COMMAND, PAGE, full, overview, page
from .registered import registered_roles


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the parts.

    Args:
        arguments: Of the command line; default: this process's.

    Returns:
        The exit status: 0, or 1 if no part has the given name, with a suggestion on stderr.
    """
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="List what this package registers: roles, parts, papers, parameters, and what "
        "fits together, which is found out by building small models.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this part in full")
    parser.add_argument(
        "--markdown", action="store_true", help=f"print the page {PAGE}, with totals (some seconds)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to a file instead of printing"
    )
    given = parser.parse_args(arguments)
    if given.name and given.markdown:
        parser.error("--markdown prints all parts; give no NAME with it")
    roles = registered_roles()
    if given.name:
        parts = {part.name: (part, role.slot) for role in roles for part in role.parts}
        if given.name not in parts:
            print(f"error: {_unknown(given.name, list(parts))}", file=sys.stderr)
            return 1
        text = full(*parts[given.name], measure_pairs(given.name))
    elif given.markdown:
        pairs = measure_pairs()
        text = page(roles, pairs, measure_product(pairs))
    else:
        text = overview(roles, measure_pairs())
    if given.output:
        given.output.write_text(text.rstrip("\n") + "\n")
    else:
        print(text.rstrip("\n"))
    return 0


def _unknown(name: str, names: Sequence[str]) -> str:
    lower = {known.lower(): known for known in names}
    nearest = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0)
    return (
        f"no part of this package is named {name!r}; did you mean {lower[nearest[0]]}? "
        f"`{COMMAND}` lists all."
    )


if __name__ == "__main__":
    sys.exit(main())
