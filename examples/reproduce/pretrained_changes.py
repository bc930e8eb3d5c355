"""What differs between two folders laid out as ``msat_core/pretrained``: file by file, and in the scores."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pretrained_steps import ENCODER, SCORER, SHEETS, SHOTS, SOLVED, STEPS, ZOO, Bench
from safetensors.numpy import load_file

from msat_core import CompactScorer, Exam, Records, Zoo
from msat_core.files import sha256_of

# Exam sheets and zoo do not depend on the machine (the coarse exam's sheet as long as no question lies on the border of
# two clusters): they must be the same to the byte. Other batches, threads, processors or library versions leave float
# noise in tensors and calibration, which is no change up to:
TOLERANCE = {
    **dict.fromkeys(SHOTS, 1e-3),  # entries of unit vectors in half precision; 6e-5 was seen with other batches
    **dict.fromkeys(ENCODER, 1e-3),
    **dict.fromkeys((*SCORER, *SOLVED), 1e-4),
}
SAME_SCORES = 1e-6
N_INSTRUCTIONS = 500
N_SHOWN = 3  # differences of a JSON file
State = Literal["unchanged", "within tolerance", "changed", "new"]


@dataclass(frozen=True)
class Change:
    """What became of one file.

    Attributes:
        file: relative to the folder.
        state: the same to the byte, or how far from it.
        before, after: SHA-256 (hex) of the content; empty where there was none.
        detail: what differs, for people.
    """

    file: str
    state: State
    before: str
    after: str
    detail: str = ""

    def __str__(self) -> str:
        digests = self.after[:12] if self.before == self.after else f"{self.before[:12] or '–'} → {self.after[:12]}"
        return f"{self.file}: {self.state} ({digests}){': ' if self.detail else ''}{self.detail}"


@dataclass(frozen=True)
class ScoreChange:
    """By how much the zoo's scores moved, on instructions of the records.

    Attributes:
        n_instructions, n_candidates: how many were compared; of the candidates those in both zoos.
        largest, mean: absolute changes of P(correct).
        n_choices: instructions of which another of these candidates now scores highest.
        n_new, n_gone: candidates of only one of the zoos.
    """

    n_instructions: int
    n_candidates: int
    largest: float
    mean: float
    n_choices: int
    n_new: int
    n_gone: int

    def __str__(self) -> str:
        state = "unchanged" if self.largest <= SAME_SCORES else "changed"
        return (
            f"scores: {state} on {self.n_instructions} instructions × {self.n_candidates} candidates: "
            f"at most {self.largest:.2g}, {self.mean:.2g} on average; another comes out best for {self.n_choices}; "
            f"candidates new: {self.n_new}, gone: {self.n_gone}"
        )


def changes(before: Path, after: Path) -> list[Change]:
    """One for each file that the steps make and that there is, in their order."""
    files = [file for step in STEPS for file in step.makes if (after / file).is_file()]
    return [change_of(before / file, after / file, file) for file in files]


def change_of(before: Path, after: Path, file: str) -> Change:
    """What became of one file."""
    new = sha256_of(after)
    if not before.is_file():
        return Change(file, "new", "", new)
    old = sha256_of(before)
    if old == new:
        return Change(file, "unchanged", old, new)
    compare = {".json": _json_difference, ".safetensors": _tensor_difference, ".onnx": _graph_difference}.get(
        after.suffix, _text_difference
    )
    size, detail = compare(before, after)
    return Change(file, "within tolerance" if size <= TOLERANCE.get(file, 0.0) else "changed", old, new, detail)


def score_change(bench: Bench, before: Path, after: Path) -> ScoreChange:
    """Score the same instructions with both folders' scorers, exams and zoos."""
    records = bench.records
    chosen = sorted(range(len(records)), key=lambda i: (records.text_sha256[i], records.item_ids[i]))[:N_INSTRUCTIONS]
    asked = records.select_items(sorted(chosen))
    zoos = [Zoo.load(folder / ZOO) for folder in (before, after)]
    names = [name for name in zoos[0].names if name in zoos[1].names]
    new_names, gone = len(zoos[1]) - len(names), len(zoos[0]) - len(names)
    if not names:
        return ScoreChange(len(asked), 0, 0.0, 0.0, 0, new_names, gone)
    old, new = (
        _scores(Bench(folder, bench.recipe, bench.cache), zoo.subset(names), asked)
        for folder, zoo in zip((before, after), zoos, strict=True)
    )
    moved = np.abs(new - old)
    others = int((new.argmax(axis=1) != old.argmax(axis=1)).sum())
    return ScoreChange(len(asked), len(names), float(moved.max()), float(moved.mean()), others, new_names, gone)


def _scores(bench: Bench, zoo: Zoo, asked: Records) -> NDArray[np.float32]:
    """(N, M), of the scorer and the exams in the bench's folder."""
    scorer = CompactScorer.load((bench.folder / SCORER[0]).parent)
    for sheet in SHEETS:
        scorer.add_exam(Exam.load((bench.folder / sheet).parent))
    _, vectors = bench.vectors(asked, bench.encoder)
    return scorer.score_vectors(vectors, [member.profile for member in zoo]).probabilities


def _tensor_difference(before: Path, after: Path) -> tuple[float, str]:
    """Largest absolute difference of the tensors; infinite where names or shapes differ.

    One tensor under another name is compared all the same: embeddings are named after their encoder's digest.
    """
    old, new = load_file(before), load_file(after)
    gone, fresh = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    if len(gone) == len(fresh) == 1:
        old[fresh[0]] = old.pop(gone[0])
    differing = sorted(n for n in {*old, *new} if n not in old or n not in new or old[n].shape != new[n].shape)
    if differing:
        return np.inf, f"other tensors or shapes: {', '.join(name[:40] for name in differing[:N_SHOWN])}"
    by_name = {name: float(np.abs(new[name].astype(float) - old[name].astype(float)).max()) for name in old}
    worst = max(by_name, key=lambda name: by_name[name])
    renamed = f"; {gone[0][:12]} is {fresh[0][:12]} now" if gone else ""
    return by_name[worst], f"at most {by_name[worst]:.2g} (in {worst[:40]}){renamed}"


def _json_difference(before: Path, after: Path) -> tuple[float, str]:
    """Largest difference of the numbers; infinite where anything else differs but the digests, which follow."""
    old, new = (dict(_leaves(json.loads(path.read_text()))) for path in (before, after))
    size, shown = 0.0, []
    for key in dict.fromkeys([*old, *new]):
        one, other = old.get(key), new.get(key)
        if one == other or key.endswith(("digest", "_sha256")):
            continue
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        size = max(size, abs(one - other) if numbers else np.inf)  # type: ignore[operator]  # where both are numbers
        shown.append(f"{key} {_short(one)} → {_short(other)}")
    more = f" and {len(shown) - N_SHOWN} more" if len(shown) > N_SHOWN else ""
    return size, "; ".join(shown[:N_SHOWN]) + more or "only digests of other files"


def _graph_difference(before: Path, after: Path) -> tuple[float, str]:
    return np.inf, f"another graph, of {after.stat().st_size} bytes instead of {before.stat().st_size}"


def _text_difference(before: Path, after: Path) -> tuple[float, str]:
    old, new = (path.read_text().splitlines() for path in (before, after))
    lines = [line for line in difflib.ndiff(old, new) if line[:1] in "+-"]
    return np.inf, f"{sum(line[0] == '+' for line in lines)} lines new, {sum(line[0] == '-' for line in lines)} gone"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, plain value) of everything in a JSON value."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
