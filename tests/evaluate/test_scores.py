"""Rates, intervals and the harmonic mean against worked examples."""

from __future__ import annotations

import math

import pytest

from erase_core.evaluate.scores import Rate, ho


def test_wilson_interval_of_a_textbook_example():
    # 15 of 50: Wilson's 95 % interval is (0.1910, 0.4375), e.g. Newcombe 1998's method 3.
    low, high = Rate(15, 50).interval
    assert low == pytest.approx(0.1910, abs=2e-4)
    assert high == pytest.approx(0.4375, abs=2e-4)


def test_interval_solves_the_score_equation():
    """Both ends p satisfy |p_hat - p| = z sqrt(p (1 - p) / n)."""
    rate = Rate(3, 40)
    for end in rate.interval:
        spread = 1.959964 * math.sqrt(end * (1 - end) / 40)
        assert abs(rate.value - end) == pytest.approx(spread, rel=1e-6)


def test_interval_of_nothing_seen_is_not_a_point():
    low, high = Rate(0, 30).interval
    assert low == 0
    assert high == pytest.approx(1.959964**2 / (30 + 1.959964**2))


def test_rates_add_up():
    total = Rate.of([True, False]) + Rate.of([True])
    assert (total.hits, total.count) == (2, 3)
    assert total.to_dict()["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_no_pictures_have_no_value():
    assert Rate(0, 0).to_dict()["value"] is None


def test_ho_of_the_papers_entity_row():
    # method.md: 12.5 / 91.7 / 18.6; by hand 3 / (1/.875 + 1/.917 + 1/.814) = 0.8667
    assert ho(0.125, 0.917, 0.186) == pytest.approx(0.8666, abs=2e-4)
    assert ho(1.0, 1.0, 0.0) == 0
