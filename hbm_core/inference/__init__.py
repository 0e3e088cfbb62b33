"""Engines over model structures: exact quadrature and samplers."""
