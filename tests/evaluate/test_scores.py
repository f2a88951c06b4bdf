"""Rates, intervals and the harmonic mean beside those of scipy."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest, hmean

from erase_core.evaluate.scores import Rate, ho


@pytest.mark.parametrize(("hits", "count"), [(15, 50), (3, 40), (0, 30), (30, 30)])
def test_an_interval_is_wilsons(hits: int, count: int) -> None:
    wanted = binomtest(hits, count).proportion_ci(method="wilson")
    assert Rate(hits, count).interval == pytest.approx((wanted.low, wanted.high), abs=1e-7)


def test_rates_add_up() -> None:
    total = Rate.of([True, False]) + Rate.of([True])
    assert (total.hits, total.count) == (2, 3)
    assert total.to_dict()["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_no_pictures_have_no_value() -> None:
    assert Rate(0, 0).to_dict()["value"] is None


def test_ho_is_the_harmonic_mean() -> None:
    for acc_e, acc_ir, acc_g in ((0.125, 0.917, 0.186), (0.9, 0.2, 0.5)):
        assert ho(acc_e, acc_ir, acc_g) == pytest.approx(hmean([1 - acc_e, acc_ir, 1 - acc_g]))
    assert ho(1.0, 1.0, 0.0) == 0
