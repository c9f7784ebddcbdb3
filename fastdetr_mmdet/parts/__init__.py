"""What this package registers and what of it fits together: ``python -m fastdetr_mmdet.parts``."""

from .combinations import Product, measure_product
from .fitting import Fit, Pair, fit, measure_pairs
from .registered import SLOTS, Parameter, Part, Role, registered_roles

__all__ = [
    "SLOTS",
    "Fit",
    "Pair",
    "Parameter",
    "Part",
    "Product",
    "Role",
    "fit",
    "measure_pairs",
    "measure_product",
    "registered_roles",
]
