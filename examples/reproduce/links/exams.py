"""Two more exams: of reasoning-gym's procedural tasks, and of the areas that coarse profiles speak of.

The first is an exam like others: its questions can be made again with the package ``reasoning-gym``, and candidates of
the records sat it. The second is sat by nobody: its tasks are the areas whose accuracy the scale of published scores
predicts (those in which the other exams have shots), and its shots, taken from the other exams, only say where in the
space of instructions an area lies.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from msat_core import Exam, Records
from msat_core.aptitude.exam_selection import task_keywords
from msat_core.exam import ExamSheet, ExamShot, ExamTask

SEED = 2026
SHOTS = 6  # of each procedural task
AREA_SHOTS = 12  # of each area
MADE_WITH = {"size": 50, "seed": 45}
LEFT_OUT = (  # no single right answer, or too slow to make again
    "graph_color", "rubiks_cube", "boxnet", "rush_hour", "propositional_logic", "knight_swap",
)  # fmt: skip
AREAS: dict[str, tuple[str, ...]] = {  # every area with words that say what it is about
    "mmlu_pro/biology": ("biology", "cells", "genetics"),
    "mmlu_pro/business": ("business", "finance", "accounting"),
    "mmlu_pro/chemistry": ("chemistry", "reactions"),
    "mmlu_pro/computer science": ("computer science", "machine learning"),
    "mmlu_pro/economics": ("economics", "markets"),
    "mmlu_pro/health": ("medicine", "health"),
    "mmlu_pro/history": ("history", "documents"),
    "mmlu_pro/law": ("law", "legal cases"),
    "mmlu_pro/math": ("university mathematics", "statistics"),
    "mmlu_pro/other": ("general knowledge",),
    "mmlu_pro/philosophy": ("philosophy", "arguments"),
    "mmlu_pro/physics": ("physics",),
    "mmlu_pro/psychology": ("psychology",),
    "gsm8k": ("grade-school maths", "word problems"),
    "cruxeval": ("python", "predict a function's output"),
    "math_l5": ("competition mathematics",),
    "reasoning_gym/algebra": ("algebra", "equations", "integrals"),
    "reasoning_gym/algorithmic": ("step-by-step procedures", "words and strings", "matrices"),
    "reasoning_gym/arithmetic": ("arithmetic", "dates", "units"),
    "reasoning_gym/code": ("program input and output",),
    "reasoning_gym/cognition": ("patterns", "counting"),
    "reasoning_gym/games": ("games", "puzzles", "planning"),
    "reasoning_gym/geometry": ("geometry",),
    "reasoning_gym/graphs": ("graphs", "paths", "family relations"),
    "reasoning_gym/induction": ("find the rule", "grids"),
    "reasoning_gym/logic": ("logic puzzles", "deduction"),
}


def remade_rows(gym: Records) -> list[int]:
    """The rows of the reasoning-gym records whose exact text the package makes again."""
    import reasoning_gym

    rows = []
    by_task: dict[str, dict[str, int]] = defaultdict(dict)
    for i, (task, text) in enumerate(zip(gym.tasks, gym.instructions, strict=True)):
        by_task[task].setdefault(text, i)
    for task in sorted(by_task):
        dataset = task.rsplit("/", 1)[-1]
        if dataset in LEFT_OUT:
            continue
        made = reasoning_gym.create_dataset(dataset, **MADE_WITH)
        questions = dict.fromkeys(made[k]["question"] for k in range(MADE_WITH["size"]))
        rows += [by_task[task][question] for question in questions if question in by_task[task]]
    return rows


def made_id(instruction: str) -> str:
    """A question's id, from its exact text: the same wherever it is made again."""
    return "rgym:" + hashlib.sha256(instruction.encode("utf-8")).hexdigest()[:16]


def made_rows(gym: Records, sheet: ExamSheet) -> list[int]:
    """The records' row of each of the exam's questions."""
    rows = {made_id(text): row for row, text in enumerate(gym.instructions)}
    return [rows[shot.item_id] for shot in sheet.shots]


def reasoning_exam(gym: Records, rows: Iterable[int]) -> ExamSheet:
    """``SHOTS`` questions of each procedural task, of those that most candidates answered."""
    rng, known = np.random.default_rng(SEED), (~np.isnan(gym.outcomes)).sum(axis=0)
    members: dict[str, list[int]] = defaultdict(list)
    for i in rows:
        members[gym.tasks[i]].append(i)
    chosen: list[int] = []
    for task in sorted(members):
        shuffled = rng.permutation(members[task])
        chosen += sorted(int(i) for i in sorted(shuffled, key=lambda i: -known[i])[:SHOTS])
    tasks = sorted(members)
    words = task_keywords([[gym.instructions[i] for i in members[task]] for task in tasks])
    return ExamSheet(
        name=f"reasoning-gym, {len(tasks)} tasks × {SHOTS}",
        rule="own-tasks",
        seed=SEED,
        tasks=tuple(
            ExamTask(task=task, keywords=(task.rsplit("/", 1)[-1].replace("_", " "), *own[:4]))
            for task, own in zip(tasks, words, strict=True)
        ),
        shots=tuple(
            ExamShot(item_id=made_id(gym.instructions[i]), text_sha256=gym.text_sha256[i], task=gym.tasks[i])
            for i in chosen
        ),
    )


def areas_exam(exams: Sequence[Exam], category: dict[str, str]) -> Exam:
    """Shots of the other exams by area, with their embeddings.

    Args:
        exams: with embeddings of the same encoders.
        category: of an item of MMLU-Pro.
    """
    rng = np.random.default_rng(SEED)
    members: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for e, exam in enumerate(exams):
        for row, shot in enumerate(exam.sheet.shots):
            members[area_of_task(shot.task, category.get(shot.item_id, ""))].append((e, row))
    picked = [
        (area, *members[area][j])
        for area in AREAS
        for j in sorted(rng.choice(len(members[area]), min(AREA_SHOTS, len(members[area])), replace=False))
    ]
    sheet = ExamSheet(
        name="areas of published scores",
        rule="areas",
        seed=SEED,
        tasks=tuple(ExamTask(task=area, keywords=words) for area, words in AREAS.items()),
        shots=tuple(exams[e].sheet.shots[row].model_copy(update={"task": area}) for area, e, row in picked),
    )
    digests = set.intersection(*(set(exam.embeddings) for exam in exams))
    return Exam(sheet, {d: np.stack([exams[e].embeddings[d][row] for _, e, row in picked]) for d in sorted(digests)})


def area_of_task(task: str, category: str = "") -> str:
    """The area of a records' or an exam's task; of MMLU-Pro, by the item's category."""
    if category:
        return f"mmlu_pro/{category}"
    head = task.split("/", 1)[0]
    if head in ("gsm8k", "cruxeval", "math_l5"):
        return head
    return f"reasoning_gym/{'induction' if head == 'arc' else head}"
