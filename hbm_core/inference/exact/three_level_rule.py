"""Few nodes that stand for many: Gauss rules of discrete measures."""

from __future__ import annotations

import numpy as np


def gauss_rule(places: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights that integrate polynomials up to degree 2 n - 1 as discrete measures do.

    By Lanczos' recursion with full orthogonalisation (Golub and Meurant, 2010, Matrices, moments and
    quadrature, chapter 4). A measure of fewer than n places has nodes of weight zero.

    Parameters
    ----------
    places : ndarray (J,)
        Shared by all measures.
    weights : ndarray (R, J)
        Non-negative, of R measures of mass 1.
    count : int
        n.

    Returns
    -------
    nodes, weights : ndarray (R, n)
    """
    rows = weights.shape[0]
    center = (weights @ places)[:, None]
    scale = np.sqrt(np.vecdot(weights, np.square(places - center)))[:, None]
    # A place alone: any scale will do, and its rule is the place itself.
    scale = np.where(scale > 1e-14 * np.abs(center), scale, 1.0)
    x = (places - center) / scale
    basis = np.zeros((count, rows, places.size))
    basis[0] = np.sqrt(weights)
    matrix = np.zeros((rows, count, count))
    for step in range(count):
        vector = x * basis[step]
        matrix[:, step, step] = np.vecdot(vector, basis[step])
        if step == count - 1:
            break
        for _ in range(2):
            for before in basis[: step + 1]:
                vector = vector - np.vecdot(vector, before)[:, None] * before
        norm = np.sqrt(np.vecdot(vector, vector))
        usable = norm > 1e-9
        norm = np.where(usable, norm, 0.0)
        matrix[:, step, step + 1] = matrix[:, step + 1, step] = norm
        basis[step + 1] = np.where(usable[:, None], vector / np.where(usable, norm, 1.0)[:, None], 0.0)
    nodes, vectors = np.linalg.eigh(matrix)
    shares = np.square(vectors[:, 0, :])
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    return center + scale * np.clip(nodes, low, high), shares / shares.sum(1, keepdims=True)
