"""``eraseanything bench --suite``: the field's examinations of erasers, on any model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .judges import open_fidelity, open_judge
from .models import MINIFLUX
from .output import check_out, note, say
from .studio import Studio, file_name

if TYPE_CHECKING:
    from ..concepts.sets import Concept
    from ..evaluate.exam import Judge

UNTOUCHED = "untouched"
COUNT = 16  # pictures a question of concepts
RATES = {"acc_e": "Acc_e", "acc_ir": "Acc_ir", "acc_near": "near", "acc_g": "Acc_g"}
PER_BAND = 6  # words of each band, of a concept that is named


def run_prompts(args: argparse.Namespace) -> int:
    """Draw a prompt file without and with every LoRA, and measure the pictures."""
    from ..evaluate.judges.clip import Clip
    from ..evaluate.judges.nudenet import NudeNet
    from ..evaluate.suites.prompts import read_prompts
    from ..evaluate.suites.yardstick import Yardstick
    from ..files import write_json

    if args.prompts is None:
        raise EraseError("Name the file with the prompts: --prompts FILE.")
    if args.suite == "coco" and args.clip is None and args.inception is None:
        raise EraseError(
            "Name a CLIP model's folder with --clip for the score, or Inception's weights with "
            "--inception for FID, or both."
        )
    path = args.out / f"{args.suite}.json"
    check_out(args, [path])
    prompts = read_prompts(args.prompts, args.column)
    note(f"{len(prompts)} prompts; the first is “{prompts[0].prompt}”.")  # a head may read as one
    yardstick = Yardstick(
        [prompt.prompt for prompt in prompts],
        NudeNet() if args.suite == "i2p" else None,
        Clip(args.clip) if args.clip else None,
        open_fidelity(args),
    )
    studio, rows, folder = Studio(args), [], args.out / "pictures" / args.suite
    untouched = studio.draw(folder / UNTOUCHED, prompts, None, UNTOUCHED)
    for name, file in erasers(args.loras):
        drawn = studio.draw(folder / name, prompts, file, name) if file else untouched
        measured = yardstick.measure(drawn.parts, untouched.parts)
        rows.append({"eraser": name, "pictures": len(drawn), **measured, **studio.how()})
    write_json(path, rows)
    say(args, {"rows": rows}, prompt_table(rows), "", told(rows[0]), f"Written to {path}.")
    return 0


def run_words(args: argparse.Namespace) -> int:
    """Examine concepts without and with every LoRA: Acc_e, Acc_ir, Acc_g and Ho."""
    from ..files import write_json

    path = args.out / "concepts.json"
    check_out(args, [path])
    judge = open_judge(args)
    concepts = named_concepts(args)
    studio, rows = Studio(args), []
    for name, file in erasers(args.loras):
        for concept in concepts:
            folder = args.out / "pictures" / "concepts" / name / file_name(concept.name)
            row = examined(studio, judge, concept, folder, file, args.exam or COUNT)
            rows.append({"eraser": name, **row})
    write_json(path, rows)
    table = word_table(rows)
    say(args, {"rows": rows}, table, "", f"Judged by {judge.label}; {how_drawn(rows[0])}. {path}")
    return 0


def examined(
    studio: Studio,
    judge: Judge[Any],
    concept: Concept,
    folder: Path,
    file: Path | None,
    count: int,
) -> dict[str, Any]:
    """The marks of one concept under an eraser; what is in the folder is not done again."""
    from ..concepts.sets import ConceptSet
    from ..evaluate.suites.gallery import kept

    exam = judge.exam(ConceptSet((concept,)), count)
    gallery = studio.draw(folder, exam.questions(), file, f"{folder.parent.name}: {concept.name}")
    key = {"judge": judge.label, "count": count}
    marks = kept(folder / "marks.json", key, lambda: judge.mark(exam, gallery.whole()).to_dict())
    return {
        "concept": concept.name,
        "kind": concept.kind,
        **marks,
        "judge": judge.label,
        **studio.how(),
    }


def named_concepts(args: argparse.Namespace) -> tuple[Concept, ...]:
    """``--concepts``: names, or a concept set's file."""
    from ..concepts.find import find_concept
    from ..concepts.sets import ConceptSet
    from ..evaluate.judges.recogniser import RecogniserJudge

    names = args.concepts or []
    if not names:
        raise EraseError("Name what was erased: --concepts NAME... or FILE.json.")
    if len(names) == 1 and names[0].endswith(".json"):
        return ConceptSet.load(Path(names[0])).concepts
    if args.model == MINIFLUX:
        return tuple(map(RecogniserJudge.concept, names))
    return tuple(find_concept(name, None, None, PER_BAND, 0)[0] for name in names)


def erasers(files: Sequence[Path]) -> Iterator[tuple[str, Path | None]]:
    """No eraser, and every file under a name of its own."""
    yield UNTOUCHED, None
    seen = {UNTOUCHED}
    for file in files:
        if file.stem in seen:
            raise EraseError(f"Two erasers are called {file.stem}; rename one.")
        seen.add(file.stem)
        yield file.stem, file


def prompt_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line an eraser, as people read it."""
    from ..evaluate.report.markdown import markdown

    lines = [
        {
            "eraser": row["eraser"],
            **_detected(row),
            **{name: str(row[name]) for name in _NUMBERS if name in row},
        }
        for row in rows
    ]
    return markdown([*lines[0]], [[*line.values()] for line in lines])


_NUMBERS = ("clip_score", "clip_distance", "fid", "fid_to_untouched")


def _detected(row: dict[str, Any]) -> dict[str, str]:
    if "exposed" not in row:
        return {}
    low, high = row["exposed_interval"]
    classes = ", ".join(f"{name} {count}" for name, count in row["by_class"].items())
    return {
        "detections": f"{row['exposed']} [{low:.0f}, {high:.0f}]",
        "pictures with any": percent(row["any"]),
        "by class": classes or "none",
    }


def word_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line an eraser and concept."""
    from ..evaluate.report.markdown import markdown

    lines = [
        [row["eraser"], row["concept"]]
        + [percent(row[rate]) if rate in row else "–" for rate in RATES]
        + [f"{100 * row['ho']:.1f}"]
        for row in rows
    ]
    return markdown(["eraser", "concept", *RATES.values(), "Ho"], lines)


def percent(rate: dict[str, Any]) -> str:
    """A rate of a report with its interval and count."""
    from ..evaluate.scores import Rate

    return str(Rate(rate["hits"], rate["count"]))


def told(row: dict[str, Any]) -> str:
    """What the numbers of a row were measured with."""
    parts = [how_drawn(row)]
    if "detector" in row:
        parts.append(
            f"{row['detector']} at {row['resolution']} px, score {row['threshold']} or more, "
            f"classes {', '.join(row['classes'])}"
        )
    return "; ".join(parts) + "."


def how_drawn(row: dict[str, Any]) -> str:
    """How the pictures of a row were drawn."""
    return f"{row['size']} px, {row['steps']} steps, guidance {row['guidance']:g}"
