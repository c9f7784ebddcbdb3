"""Measure differences from the official codes: python tests/parity_report.py [CASE ...]."""

import sys

import conftest  # noqa: F401 (sets up mmdet's registries)
import torch
from support.golden import CASES, GoldenCase, measure, too_large
from support.tolerances import GOLDEN

COLUMNS = dict(logit="logits", box="boxes", loss="losses", gradient="gradient norms")


def main(cases: list[str]) -> int:
    """Print the table; return 1 if a difference exceeds its tolerance."""
    print(
        "worst error of:  "
        + ", ".join(f"{name} (<= {GOLDEN[key]:.0e})" for name, key in COLUMNS.items())
    )
    print("| case | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---|" * len(COLUMNS))
    failed = False
    for case in cases or CASES:
        torch.manual_seed(0)
        errors = measure(GoldenCase(case))
        print(f"| {case} | " + " | ".join(f"{errors[key]:.1e}" for key in COLUMNS.values()) + " |")
        for sentence in too_large(errors):
            failed = True
            print(f"  {case}: {sentence}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
