"""Marks of an exam against figures by hand."""

from __future__ import annotations

import pytest

from erase_core.evaluate.marks import Marks
from erase_core.evaluate.scores import Rate

FULL = {
    "erased": Rate(1, 10),
    "held_out": Rate(2, 10),
    "seen": Rate(5, 10),
    "near": Rate(6, 10),
    "other": Rate(18, 20),
}


def test_scores_join_their_roles() -> None:
    marks = Marks(FULL, Rate(7, 10))
    assert marks.acc_ir == Rate(24, 30)
    assert marks.acc_g == Rate(2, 10)
    assert marks.ho == pytest.approx(3 / (1 / 0.9 + 1 / 0.8 + 1 / 0.8))
    plain = marks.to_dict()
    assert plain["acc_g"] == Rate(2, 10).to_dict() != plain["acc_g_seen"]
    assert plain["recognised_when_erased"] == Rate(7, 10).to_dict()


def test_what_was_not_asked_is_left_out() -> None:
    seen = Marks({name: FULL[name] for name in ("erased", "seen", "other")})
    assert (seen.acc_ir, seen.acc_g) == (Rate(18, 20), Rate(5, 10))
    bare = Marks({name: FULL[name] for name in ("erased", "near")})
    assert bare.acc_g is None
    assert bare.ho == pytest.approx(3 / (1 / 0.9 + 1 / 0.6 + 1 / 0.9))
    assert set(bare.to_dict()) == {"acc_e", "acc_near", "acc_ir", "ho"}
