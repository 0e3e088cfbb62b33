"""The shelf of dear values: what stays, what goes, and that threads share one computation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from hbm_core.inference.exact import solve
from hbm_core.store.study import Study
from hbm_core.ui.shelf import Shelf, weight


def test_the_longest_unused_goes_first() -> None:
    shelf = Shelf[str](entries=2, size=10**9)
    for key in "ab":
        shelf.get(key, lambda: "once")
    assert shelf.get("a", lambda: "again") == "once"
    shelf.get("c", lambda: "once")
    assert [key in shelf for key in "abc"] == [True, False, True]
    assert shelf.get("b", lambda: "again") == "again"


def test_bytes_are_bounded_and_the_newest_stays() -> None:
    shelf = Shelf[np.ndarray](entries=100, size=10_000)
    for number in range(50):
        shelf.get(str(number), lambda: np.zeros(500))
    assert shelf.weight <= 10_000
    assert [str(number) in shelf for number in (47, 48, 49)] == [False, True, True]
    shelf.get("large", lambda: np.zeros(10_000))
    assert "large" in shelf
    assert shelf.weight == 80_000


def test_threads_that_ask_at_once_share_one_computation() -> None:
    shelf, go, calls = Shelf[int](entries=4, size=100), Event(), []

    def compute() -> int:
        calls.append(1)
        go.wait(5)
        return 7

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(shelf.get, "key", compute) for _ in range(8)]
        go.set()
        assert [one.result(5) for one in asked] == [7] * 8
    assert len(calls) == 1


def test_what_fails_is_not_kept() -> None:
    shelf = Shelf[int](entries=4, size=100)
    with pytest.raises(ZeroDivisionError):
        shelf.get("key", lambda: 1 // 0)
    assert "key" not in shelf
    assert shelf.get("key", lambda: 3) == 3


@pytest.mark.parametrize(
    "model", ["weak", "robust", "robust_effects", "adaptive", "precision", "complete", "none"]
)
def test_every_posterior_can_be_weighed(model: str) -> None:
    study = Study.from_query({"scenario": "schools", "model": model})
    assert 8 * 8 <= weight(solve(study.spec(study.data()))) < 64_000_000


def test_the_weight_of_a_posterior_grows_with_its_units() -> None:
    few, many = (
        Study.from_query({"scenario": "schools", "dataset": "simulated", "knob.J": str(count)})
        for count in (20, 200)
    )
    light, heavy = (weight(solve(study.spec(study.data()))) for study in (few, many))
    assert light >= 2 * 20 * 8
    assert 4 * light < heavy
