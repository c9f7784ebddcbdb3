"""Command line: ``python -m fastdetr_mmdet parts [NAME]``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.cli import Parser, UsageError, check_destination, command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the parts.

    Raises:
        UsageError: if no part has the given name; suggests the nearest.
    """
    parser = Parser(
        prog="python -m fastdetr_mmdet parts",
        description="List all registered parts by role, with their papers and parameters. NAME "
        "prints one part in full, with what it reads and makes.",
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="print this part in full")
    add("--markdown", action="store_true", help="print all as the page docs/parts.md")
    add("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of printing")
    given = parser.parse_args(arguments)
    if given.name and given.markdown:
        parser.error("--markdown prints all parts; give no NAME with it")

    if given.output:
        check_destination(given.output)
    from .pages import render
    from .registered import registered_roles

    roles = registered_roles()
    if given.name:
        parts = {
            part.name: dict(part=part, slot=role.slot) for role in roles for part in role.parts
        }
        if given.name not in parts:
            lower = {name.lower(): name for name in parts}
            nearest = difflib.get_close_matches(given.name.lower(), lower, n=1, cutoff=0)
            raise UsageError(f"No part is named {given.name!r}. Nearest: {lower[nearest[0]]}.")
        text = render("part.txt", **parts[given.name])
    else:
        text = render("page.md" if given.markdown else "overview.txt", roles=roles)
    if given.output:
        given.output.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    sys.exit(main(None))
