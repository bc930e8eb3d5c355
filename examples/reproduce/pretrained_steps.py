"""The steps that make what msat ships: which files each reads, which it makes, and how.

All steps work in one folder, laid out as ``msat_core/pretrained`` is. A step may read ``records``, ``scores`` (those
published) and what steps before it make; who adds one (the encoder as one file, say) writes its function and puts a
line into ``STEPS``, between the steps that make what it reads and those that read what it makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import (
    BENCHMARKS,
    CACHE,
    EXAM_SEED,
    benchmark_part,
    candidate_facts,
    load_records,
    published,
    records_folder,
    rows_of,
    sat,
    scores_folder,
    telling,
    tuned,
)
from links.exams import areas_exam, made_rows, reasoning_exam, remade_rows
from links.steps import Tables, fit, reasoning_zoo, zoo_of_this_year
from numpy.typing import NDArray
from pretrained_card import model_card

from msat_core import (
    AptitudeTest,
    Candidate,
    CapabilityProfile,
    CompactScorer,
    CompactSettings,
    Exam,
    Records,
    Zoo,
    pretrained,
    select_exam,
    train_compact,
)
from msat_core.aptitude.quick import QuickExams
from msat_core.aptitude.quick_choice import choose_quick
from msat_core.encoders.base import Encoder
from msat_core.encoders.cache import EmbeddingCache
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.loading import load_encoder
from msat_core.exam import ExamSheet
from msat_core.files import write_text
from msat_core.importers.linked import Linker
from msat_core.scoring.compact.solved import save_solved
from msat_core.training.score_scale.fit import FittedScale

OPEN_BENCHMARKS = tuple(name for name in BENCHMARKS if name != "mmlu_pro")
PROTOCOL, OPEN_PROTOCOL = "five-shot-cot", "zero-shot-cot"
ALIASES = {
    "claude-3-5-sonnet-20240620": ("claude-3-5-sonnet",),
    "claude-3-5-haiku-20241022": ("claude-3-5-haiku",),
    "claude-3-haiku-20240307": ("claude-3-haiku",),
    "claude-3-opus-20240229": ("claude-3-opus",),
    "gpt-4o-2024-08-06": ("gpt-4o",),
    "gpt-3.5-turbo-0125": ("gpt-3.5-turbo",),
    "Meta-Llama-3.1-70B-Instruct": ("llama-3.1-70b-instruct",),
    "Meta-Llama-3.1-405B-Instruct": ("llama-3.1-405b-instruct",),
    "Meta-Llama-3-70B-Instruct": ("llama-3-70b-instruct",),
    "Meta-Llama-3-8B-Instruct": ("llama-3-8b-instruct",),
    "c4ai-command-r-v01": ("command-r",),
}
PRICES = ("usd_per_mtok_in", "usd_per_mtok_out")

SHEETS = ("exam/exam.json", "exam_open/exam.json")
SHOTS = ("exam/shot_embeddings.safetensors", "exam_open/shot_embeddings.safetensors")
ENCODER = tuple(f"encoder/{name}" for name in ("graph.onnx", "tokenizer.json", "encoder.safetensors", "encoder.json"))
SCORER = ("compact/weights.safetensors", "compact/scorer.json")
REASONING = ("exam_reasoning/exam.json", "exam_reasoning/shot_embeddings.safetensors")
AREAS = ("exam_areas/exam.json", "exam_areas/shot_embeddings.safetensors")
EXAM_FOLDERS = tuple(folder.name for folder in pretrained.EXAMS)
SOLVED = ("compact/posteriors.safetensors", "compact/posteriors.json")
SCALE = "scale.json"
ZOO_REASONING = "zoo_reasoning.json"
READ_OTHERWISE = ("gpt-4o-2024-05-13",)  # outcomes read by the benchmark's own rule: a profile, but no training
LINKED = (*REASONING, *AREAS, SCALE, ZOO_REASONING)
INPUTS = ("records", "scores")  # what steps read that none of them makes
ZOO = "zoo.json"
QUICK = "quick.json"
CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Recipe:
    """What is decided by hand; the defaults are those of what is shipped.

    Attributes:
        n_tasks, n_shots: of the exam of MMLU-Pro.
        n_open_shots: per task of the coarse exam; each open benchmark is split into ten tasks or so.
        training: of the scorer.
        published: the encoder before tuning.
        tune: the encoder after tuning on records.
        reader: encodes with either.
    """

    n_tasks: int = 50
    n_shots: int = 20
    n_open_shots: int = 10
    training: CompactSettings = field(default_factory=CompactSettings)
    published: Callable[[], EncoderFiles] = published
    tune: Callable[[Records], EncoderFiles] = lambda own: tuned(own, np.arange(len(own)), own.candidates)
    reader: Callable[[EncoderFiles], Encoder] = load_encoder


@dataclass(frozen=True)
class Bench:
    """Where the steps work.

    Attributes:
        folder: read from and written to; laid out as ``msat_core/pretrained``.
        recipe: see :class:`Recipe`.
        cache: of embeddings.
        linked: whether the zoo also holds candidates of which only published scores are known.
    """

    folder: Path
    recipe: Recipe = field(default_factory=Recipe)
    cache: Path = CACHE
    linked: bool = True

    @cached_property
    def categories(self) -> dict[str, str]:
        """The category of each item of MMLU-Pro, by its id."""
        table = pq.read_table(records_folder() / "mmlu_pro" / "items.parquet", columns=["item_id", "category"])
        return dict(zip(table["item_id"].to_pylist(), table["category"].to_pylist(), strict=True))

    @cached_property
    def fitted(self) -> FittedScale:
        """The scale of published scores and of the records, with where every candidate lies on it."""
        return fit(Tables(scores_folder()), Records.load(records_folder()), self.categories)

    @cached_property
    def records(self) -> Records:
        """See :func:`common.load_records`."""
        return load_records()

    @cached_property
    def published(self) -> EncoderFiles:
        """The encoder before tuning."""
        return self.recipe.published()

    @property
    def encoder(self) -> EncoderFiles:
        """The tuned encoder, as it lies in the folder."""
        return EncoderFiles.load((self.folder / ENCODER[0]).parent)

    def sheets(self) -> tuple[ExamSheet, ExamSheet]:
        """Both exams' sheets, as they lie in the folder."""
        return ExamSheet.load(self.folder / SHEETS[0]), ExamSheet.load(self.folder / SHEETS[1])

    @cached_property
    def gym(self) -> Records:
        """Those of reasoning-gym."""
        return Records.load(records_folder() / "reasoning_gym")

    def exam_texts(self) -> set[str]:
        """The texts of all exams, by hash."""
        sheets = [*self.sheets(), *([ExamSheet.load(self.folder / REASONING[0])] if self.linked else [])]
        return {shot.text_sha256 for sheet in sheets for shot in sheet.shots}

    def training_records(self) -> Records:
        """The records without the exams' texts."""
        return self.records.without_texts(self.exam_texts())

    def vectors(self, records: Records, encoder: EncoderFiles) -> tuple[str, NDArray[np.float32]]:
        """(encoder's digest, (N, D) embeddings) of the items, from the cache where they are there."""
        reader = self.recipe.reader(encoder)
        cached = EmbeddingCache(reader, self.cache, telling("embedded"))
        return reader.digest, cached.encode(records.instructions).vectors


def make_exams(bench: Bench) -> None:
    """The exam of 50 × 20 from MMLU-Pro, a coarse one from the three open benchmarks, one of tasks made again."""
    recipe = bench.recipe
    mmlu = bench.records.select_items(benchmark_part(bench.records, ("mmlu_pro",)))
    exam = select_exam(
        mmlu.select_candidates(sat(mmlu)),
        rule="broad",
        n_tasks=recipe.n_tasks,
        n_shots=recipe.n_shots,
        seed=EXAM_SEED,
        name=f"MMLU-Pro, {recipe.n_tasks} tasks × {recipe.n_shots}",
    )
    others = bench.records.select_items(benchmark_part(bench.records, OPEN_BENCHMARKS))
    digest, vectors = bench.vectors(others, bench.published)
    open_exam = select_exam(
        others.select_candidates(in_all(others)),
        rule="own-tasks",
        n_shots=recipe.n_open_shots,
        seed=EXAM_SEED,
        name="GSM8K, CRUXEval, MATH level 5 (coarse)",
        vectors=vectors,
        encoder_digest=digest,
    )
    for file, one in zip(SHEETS, (exam, open_exam), strict=True):
        one.sheet.save(bench.folder / file)
    if bench.linked:
        reasoning_exam(bench.gym, remade_rows(bench.gym)).save(bench.folder / REASONING[0])


def in_all(records: Records) -> list[str]:
    """Candidates that sat all of the records' benchmarks."""
    names = dict.fromkeys(records.benchmarks)
    members = [set(sat(records.select_items(benchmark_part(records, (name,))))) for name in names]
    return [name for name in records.candidates if all(name in one for one in members)]


def make_encoder(bench: Bench) -> None:
    """Tune the encoder on everything but the exams."""
    bench.recipe.tune(bench.training_records()).save((bench.folder / ENCODER[0]).parent)


def make_embeddings(bench: Bench) -> None:
    """The exams' shots, embedded by the encoder as published and as tuned."""
    sheets = dict(zip(SHEETS, bench.sheets(), strict=True))
    asked = {file: bench.records.select_items(rows_of(bench.records, Exam(sheet))) for file, sheet in sheets.items()}
    if bench.linked:
        sheets[REASONING[0]] = ExamSheet.load(bench.folder / REASONING[0])
        asked[REASONING[0]] = bench.gym.select_items(made_rows(bench.gym, sheets[REASONING[0]]))
    for file, shots in asked.items():
        exam = Exam(sheets[file])
        for encoder in (bench.published, bench.encoder):
            exam = exam.with_embeddings(*bench.vectors(shots, encoder))
        exam.save((bench.folder / file).parent)


def make_scorer(bench: Bench) -> None:
    """Train and calibrate the compact scorer on everything but the exams."""
    learnt = bench.training_records()
    digest, vectors = bench.vectors(learnt, bench.encoder)
    scorer = train_compact(
        learnt,
        vectors,
        digest,
        bench.recipe.training,
        progress=lambda what, done, total: telling(what)(done, total),
    )
    scorer.save(bench.folder / "compact")


def make_links(bench: Bench) -> None:
    """The scale of published scores, an exam of the areas it speaks of, and who sat the exam of tasks made again."""
    *_, reasoning = exams = [Exam.load((bench.folder / file).parent) for file in (*SHEETS, REASONING[0])]
    areas_exam(exams, bench.categories).save(bench.folder / "exam_areas")
    bench.fitted.scale.save(bench.folder / SCALE)
    reasoning_zoo(bench.gym, reasoning).save(bench.folder / ZOO_REASONING)


def make_zoo(bench: Bench) -> None:
    """Chat-tuned candidates of MMLU-Pro, those of the open benchmarks, and this year's, of published scores."""
    facts = candidate_facts()
    examined = [
        Candidate(
            profile=profile,
            aliases=ALIASES.get(profile.candidate, ()),
            **{key: facts.get(profile.candidate, {}).get(key) for key in PRICES},
        )
        for profile in profiles(bench)
    ]
    zoo = Zoo.of(examined)
    if bench.linked:
        linker = Linker.at(bench.folder, CompactScorer.load(bench.folder / "compact"))
        zoo = zoo_of_this_year(examined, bench.fitted, linker, Tables(scores_folder()))
    zoo.save(bench.folder / ZOO)


def make_quick(bench: Bench) -> None:
    """Which questions make the quick exams: told from everybody of the zoo who sat the exam."""
    scorer, chosen = CompactScorer.load(bench.folder / "compact"), {}
    for folder, zoo in (("exam", ZOO), *([("exam_reasoning", ZOO_REASONING)] if bench.linked else [])):
        exam = Exam.load(bench.folder / folder)
        rivals = [one.profile for one in Zoo.load(bench.folder / zoo) if one.profile.exam_digest == exam.digest]
        chosen[exam.digest] = tuple(shot.item_id for shot in choose_quick(exam, scorer, rivals))
    QuickExams(chosen=chosen).save(bench.folder / QUICK)


def profiles(bench: Bench) -> list[CapabilityProfile]:
    """What each candidate of the zoo got right in its exam."""
    facts, records = candidate_facts(), bench.records
    full = [name for name in records.candidates if facts.get(name, {}).get("chat_tuned")]
    sat_open = in_all(records.select_items(benchmark_part(records, OPEN_BENCHMARKS)))
    coarse = [name for name in sat_open if name not in full]
    test, open_test = (AptitudeTest(Exam(sheet)) for sheet in bench.sheets())
    made = [
        *(test.profile_from_records(records, name, protocol=PROTOCOL) for name in full),
        *(open_test.profile_from_records(records, name, protocol=OPEN_PROTOCOL, coarse=True) for name in coarse),
    ]
    if not bench.linked:
        return made
    others = Records.load(records_folder() / "mmlu_pro")
    again = {name: test.profile_from_records(others, name, protocol=PROTOCOL) for name in READ_OTHERWISE}
    return [again.get(profile.candidate, profile) for profile in made]


def make_posteriors(bench: Bench) -> None:
    """What the exams say of the zoo's candidates, solved beforehand."""
    for file in SOLVED:
        (bench.folder / file).unlink(missing_ok=True)  # what is left of another zoo
    scorer = CompactScorer.load(bench.folder / "compact")
    for folder in (bench.folder / file for file in EXAM_FOLDERS):
        if folder.is_dir():
            scorer.add_exam(Exam.load(folder))
    profiles = [member.profile for member in Zoo.load(bench.folder / ZOO)]
    supports, posteriors = scorer.posteriors(profiles)
    save_solved(bench.folder / "compact", scorer.digest, list(zip(supports, profiles, posteriors, strict=True)))


def make_card(bench: Bench) -> None:
    """The model card, from what lies in the folder."""
    write_text(bench.folder / CARD, model_card(bench.folder))


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: on the command line.
        run: makes the files.
        reads: ``records``, and files that earlier steps make.
        makes: files; one that vouches for others (by their SHA-256) comes last.
    """

    name: str
    run: Callable[[Bench], None]
    reads: tuple[str, ...]
    makes: tuple[str, ...]


STEPS = (
    Step("exams", make_exams, reads=("records",), makes=(*SHEETS, REASONING[0])),
    Step("encoder", make_encoder, reads=("records", *SHEETS, REASONING[0]), makes=ENCODER),
    Step(
        "embeddings",
        make_embeddings,
        reads=("records", *SHEETS, REASONING[0], *ENCODER),
        makes=(*SHOTS, REASONING[1]),
    ),
    Step("scorer", make_scorer, reads=("records", *SHEETS, REASONING[0], *ENCODER), makes=SCORER),
    Step(
        "links",
        make_links,
        reads=("records", "scores", *SHEETS, *SHOTS, *REASONING),
        makes=(*AREAS, SCALE, ZOO_REASONING),
    ),
    Step("zoo", make_zoo, reads=("records", "scores", *SHEETS, *SCORER, *AREAS, SCALE), makes=(ZOO,)),
    Step(
        "quick",
        make_quick,
        reads=(*SHEETS, *SHOTS, *SCORER, *ENCODER, ZOO, *REASONING, ZOO_REASONING),
        makes=(QUICK,),
    ),
    Step("posteriors", make_posteriors, reads=(*SHEETS, *SHOTS, *SCORER, *AREAS, ZOO), makes=SOLVED),
    Step("card", make_card, reads=(*SHEETS, *ENCODER, *SCORER, ZOO), makes=(CARD,)),
)
