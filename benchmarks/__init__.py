"""Compare this package's costs with mmdet's, such as by ``python -m benchmarks.compare``.

Not installed with the package; run from a checkout.
"""
