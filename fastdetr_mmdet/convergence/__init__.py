"""How fast configs learn: ``python -m fastdetr_mmdet.convergence`` (docs/convergence.md)."""
