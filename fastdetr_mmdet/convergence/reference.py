"""Published curves to draw beside one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reference:
    """Series of others, which stand in a panel of their own because their data are others.

    ``series`` maps a name to (epoch, AP in [0, 1]) pairs; a lone pair is drawn as a mark.
    """

    title: str
    source: str
    series: dict[str, tuple[tuple[float, float], ...]]


def read_reference(path: str | Path) -> Reference:
    """Read ``{"title": ..., "source": ..., "series": {name: [[epoch, AP], ...]}}``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not of that form, or an AP is not in [0, 1].
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no reference file {path}.")
    try:
        data = json.loads(path.read_text())
        series = {
            str(name): tuple((float(epoch), float(ap)) for epoch, ap in pairs)
            for name, pairs in data["series"].items()
        }
        reference = Reference(str(data["title"]), str(data["source"]), series)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a reference file ({type(error).__name__}: {error}); it must be "
            '{"title": ..., "source": ..., "series": {name: [[epoch, AP], ...]}}.'
        ) from error
    for name, pairs in series.items():
        for epoch, ap in pairs:
            if not 0 <= ap <= 1:
                raise ValueError(
                    f"{path}: series {name!r} has AP {ap:g} at epoch {epoch:g}; give AP from 0 to "
                    "1, not in per cent."
                )
    return reference
