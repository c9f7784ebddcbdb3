"""mmdet's own training script with fastdetr_mmdet made known to it; every flag passes through."""

from fastdetr_mmdet.engine.mmdet_tools import run

if __name__ == "__main__":
    run("train.py")
