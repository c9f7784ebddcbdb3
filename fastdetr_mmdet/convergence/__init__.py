"""Compare how fast configs learn: ``python -m fastdetr_mmdet convergence``."""
