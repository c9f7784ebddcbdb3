"""What this package costs beside mmdet: ``python -m benchmarks.compare``, ``benchmarks.growth``.

Not installed with the package; run from a checkout.
"""
