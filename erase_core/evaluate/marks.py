"""What an examination of an eraser came to, whoever judged the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .scores import Rate, ho

Role = Literal["erased", "held_out", "seen", "near", "other", "companion"]
# Role -> its name in a report.
NAMES: dict[Role, str] = {
    "erased": "acc_e",
    "held_out": "acc_g",
    "seen": "acc_g_seen",
    "near": "acc_near",
    "other": "acc_other",
    "companion": "acc_companion",
}


@dataclass(frozen=True)
class Marks:
    """Rates by role: "erased", and the others that were asked; "near" or "other" is among them.

    ``recognised`` counts erased prompts whose picture still shows something, where the judge can
    tell.
    """

    rates: Mapping[Role, Rate]
    recognised: Rate | None = None

    @property
    def acc_ir(self) -> Rate:
        """All other concepts, near neighbours among them."""
        kept: tuple[Role, ...] = ("near", "other")
        return sum((self.rates[role] for role in kept if role in self.rates), Rate(0, 0))

    @property
    def acc_g(self) -> Rate | None:
        """Synonyms, those held out of training where there are any."""
        return self.rates.get("held_out", self.rates.get("seen"))

    @property
    def ho(self) -> float:
        """The harmonic mean; without synonyms the concept itself stands for them."""
        acc_e = self.rates["erased"]
        return ho(acc_e.value, self.acc_ir.value, (self.acc_g or acc_e).value)

    def to_dict(self) -> dict[str, object]:
        """The marks under the names of ``report.json``."""
        plain: dict[str, object] = {
            name: self.rates[role].to_dict() for role, name in NAMES.items() if role in self.rates
        }
        if self.acc_g:
            plain["acc_g"] = self.acc_g.to_dict()
        if self.recognised:
            plain["recognised_when_erased"] = self.recognised.to_dict()
        return plain | {"acc_ir": self.acc_ir.to_dict(), "ho": round(self.ho, 4)}


def verdict(title: str, before: Marks, after: Marks) -> str:
    """An examination in a line: "tiger 98 % -> 0 %, everything else 97 % -> 97 %"."""
    (gone, kept), (now_gone, now_kept) = (
        (marks.rates["erased"].value, marks.acc_ir.value) for marks in (before, after)
    )
    return (
        f"{title} {_percent(gone)} -> {_percent(now_gone)}, "
        f"everything else {_percent(kept)} -> {_percent(now_kept)}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
