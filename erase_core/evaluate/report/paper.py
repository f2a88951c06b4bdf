"""The paper's tables in Markdown: what was measured beside what it prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ...methods.base import find_method
from ..attacks.base import find_attack
from ..scores import Rate
from ..suites.paper import ATTACKS, PRINTED, base
from .markdown import markdown
from .summary import KINDS, summarise

Row = Mapping[str, Any]
SCORES = {"acc_e": "Acc_e \u2193", "acc_ir": "Acc_ir \u2191", "acc_g": "Acc_g \u2193"}
REHEARSAL = "**A rehearsal: everything is at its smallest, and no number here means anything.**"
UNKNOWN = (
    "The paper prints this table for 50 celebrities with a classifier of its own. We could not "
    "read its numbers, so there are none beside ours."
)


def tables(results: Mapping[str, Any]) -> str:
    """All tables that there are rows for."""
    head = (
        f"Model {results['model']}, {results['size']} px, {results['steps']} steps, guidance "
        f"{results['guidance']:g}. “Paper” is what Gao et al. (ICML 2025) print for FLUX.1-dev; a "
        "dash is what nobody has measured or printed. Brackets are 95 % intervals."
    )
    parts = ["# EraseAnything's tables", *([REHEARSAL] if results["rehearsal"] else []), head]
    makers = {
        "kinds": _kinds, "explicit": _explicit, "captions": _captions, "attacks": _attacks,
        "ablation": _ablation,
    }  # fmt: skip
    for name, make in makers.items():
        if results.get(name):
            parts += make(results[name], results)
    return "\n\n".join(parts) + "\n"


def _kinds(rows: Sequence[Row], results: Mapping[str, Any]) -> Iterator[str]:
    yield f"## The three kinds of concepts\n\nJudged by {results['judge']}."
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        if own:
            printed = {name: told.get(kind) for name, told in PRINTED["kinds"].items()}
            concepts = ", ".join(dict.fromkeys(row["concept"] for row in own))
            yield f"### {kind.capitalize()}: {concepts}\n\n{scores(own, printed)}"


def _ablation(rows: Sequence[Row], results: Mapping[str, Any]) -> Iterator[str]:
    concepts = ", ".join(dict.fromkeys(row["concept"] for row in rows))
    yield f"## Ablation: {concepts}\n\nJudged by {results['judge']}. {UNKNOWN}"
    yield scores(rows, {})


def scores(rows: Sequence[Row], printed: Mapping[str, Any]) -> str:
    """A line a method: means over its concepts, in percent, each beside the printed one."""
    head, lines = ["method"], []
    for name in SCORES.values():
        head += [name, "paper"]
    for method, found in summaries(rows).items():
        told = printed.get(base(method)) or (None,) * len(SCORES)
        line = [find_method(method).label]
        for rate, number in zip(SCORES, told, strict=True):
            line += [found[rate].percent() if rate in found else "–", _number(number)]
        lines.append([*line, f"{100 * found['ho'].value:.1f}"])
    return markdown([*head, "Ho \u2191"], lines)


def summaries(rows: Sequence[Row]) -> dict[str, Any]:
    """The means of every method, in the order of its rows."""
    plain = [{"seed": 0, **row, "general": row.get("acc_g") or row["acc_e"]} for row in rows]
    cells = pd.json_normalize(plain).set_index(["concept", "seed"])
    return {name: summarise(own) for name, own in cells.groupby("method", sort=False)}


def _explicit(rows: Sequence[Row], results: Mapping[str, Any]) -> Iterator[str]:
    first = rows[0]
    yield (
        f"## The explicit concept\n\n{first['detector']} at {first['resolution']} px, score "
        f"{first['threshold']} or more, classes {', '.join(first['classes'])}; {first['pictures']} "
        "prompts, where the paper has 4,703 of I2P."
    )
    lines = [
        [
            find_method(row["method"]).label,
            _count(row["exposed"], row["exposed_interval"]),
            _number(PRINTED["explicit"].get(base(row["method"]))),
            _rate(row["any"]),
            ", ".join(f"{name} {count}" for name, count in row["by_class"].items()) or "none",
        ]
        for row in rows
    ]
    yield markdown(
        ["method", "detections \u2193", "paper", "pictures with any \u2193", "by class"], lines
    )


def _captions(rows: Sequence[Row], results: Mapping[str, Any]) -> Iterator[str]:
    against = "real pictures" if "fid" in rows[0] else "the untouched model's pictures"
    yield (
        f"## Captions\n\nFID against {against}; {rows[0]['pictures']} captions, where the paper "
        "has 10,000 of COCO."
    )
    lines = []
    for row in rows:
        fid, clip = PRINTED["captions"].get(base(row["method"]), (None, None))
        own = row.get("fid", row.get("fid_to_untouched")), row.get("clip_score")
        pairs = zip(own, (fid, clip), strict=True)
        cells = [_number(each) for pair in pairs for each in pair]
        lines.append([find_method(row["method"]).label, *cells])
    yield markdown(["method", "FID \u2193", "paper", "CLIP \u2191", "paper"], lines)


def _attacks(rows: Sequence[Row], results: Mapping[str, Any]) -> Iterator[str]:
    count = rows[0]["rate"]["count"]
    yield (
        "## Attacks\n\nPictures that show the explicit concept, in percent. The paper attacks with "
        "MU-Attack on 285 prompts of Ring-A-Bell; here a suffix is sought by greedy coordinate "
        f"gradient for the same steps. Prompts: {count}."
    )
    head, lines = ["method"], []
    for attack in ATTACKS:
        head += ["no attack" if attack == "none" else find_attack(attack).label, "paper"]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["attack"]: row["rate"] for row in rows if row["method"] == method}
        printed = PRINTED["attacks"].get(base(method), (None,) * len(ATTACKS))
        line = [find_method(method).label]
        for attack, number in zip(ATTACKS, printed, strict=True):
            line += [_rate(own[attack]) if attack in own else "–", _number(number)]
        lines.append(line)
    yield markdown(head, lines)


def _rate(rate: Mapping[str, Any]) -> str:
    return str(Rate(rate["hits"], rate["count"]))


def _count(total: int, interval: Sequence[float]) -> str:
    return f"{total} [{interval[0]:.0f}, {interval[1]:.0f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
