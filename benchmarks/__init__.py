"""What the project promises, measured: ``python -m benchmarks`` for speed, ``benchmarks.validate`` for truth.

A module here that defines ``rows()`` takes part in the table; it can be run alone as well.
"""
