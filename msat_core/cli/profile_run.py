"""`msat profile run`: a candidate sits the exam at an endpoint."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from msat_core.aptitude.openai_client import DEFAULT_TEMPERATURE
from msat_core.aptitude.questions import HUB_DATASET
from msat_core.aptitude.sitting import RunSettings
from msat_core.cli.shared import (
    Json,
    check_output,
    errors,
    out,
    print_json,
)
from msat_core.files import file_stem
from msat_core.profiles import profile_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msat_core.aptitude.aptitude_test import AptitudeTest, ExamRun
    from msat_core.aptitude.paper import Estimate, ExamPaper
    from msat_core.aptitude.sitting import Progress as Now
    from msat_core.aptitude.sitting import QuestionOrder

INCOMPLETE = 3  # exit code of a run that can be gone on with

PriceIn = Annotated[float | None, typer.Option("--usd-per-mtok-in", min=0, help="USD per million input tokens.")]
PriceOut = Annotated[float | None, typer.Option("--usd-per-mtok-out", min=0, help="USD per million output tokens.")]


def profile_run(
    client: Annotated[str, typer.Option(help="Who sits the exam: openai:NAME.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the profile and its journal.")],
    questions: Annotated[
        str, typer.Option(help="A records folder, a data set on the hub, or reasoning-gym.")
    ] = HUB_DATASET,
    revision: Annotated[str | None, typer.Option(help="Of the data set on the hub.")] = None,
    base_url: Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint; default: OpenAI's.")] = None,
    name: Annotated[str | None, typer.Option(help="The candidate's name; default: the client's.")] = None,
    exam: Annotated[Path | None, typer.Option(help="An exam folder; default: the shipped exam.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="five-shot-cot (default where there are examples), zero-shot-cot, answer-tags.")
    ] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Only so many questions of each task.")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="Only so many tasks.")] = None,
    quick: Annotated[bool, typer.Option(help="At most 100 questions, chosen to route.")] = False,
    rotate: Annotated[int, typer.Option(min=0, help="Circle test: ask again so often with rotated options.")] = 0,
    adaptive: Annotated[bool, typer.Option(help="Pick questions by information; stop when scores settle.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what it would take.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Most calls under way at once.")] = RunSettings.concurrency,
    timeout: Annotated[float, typer.Option(help="Seconds for one call.")] = RunSettings.timeout_s,
    retry_for: Annotated[float, typer.Option(help="Seconds for which a question is tried.")] = RunSettings.retry_for_s,
    usd_per_mtok_in: PriceIn = None,
    usd_per_mtok_out: PriceOut = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="Stop before more is spent.")] = RunSettings.max_usd,
    temperature: Annotated[float, typer.Option(min=0, help="Of the candidate.")] = DEFAULT_TEMPERATURE,
    no_temperature: Annotated[bool, typer.Option(help="Leave the temperature to the endpoint.")] = False,
    effort: Annotated[str | None, typer.Option(help="Reasoning effort; makes a candidate of its own.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Where a reply is cut; default: 2048, 16384 where it thinks.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="Where answers are kept; default: OUT/journals/.")] = None,
    as_json: Json = False,
) -> None:
    """Let a candidate sit the exam at an endpoint. Run again to go on where it stopped; nothing is asked twice."""
    from msat_core.aptitude.aptitude_test import AptitudeTest, exam_for
    from msat_core.aptitude.openai_client import client_named, thinking_tokens
    from msat_core.aptitude.paper import Prices

    settings = RunSettings(concurrency, timeout, retry_for, Prices(usd_per_mtok_in, usd_per_mtok_out), max_usd)
    test = AptitudeTest.load(exam or exam_for(questions))
    paper = _paper(test, questions, revision, protocol, shots, tasks, quick, rotate)
    thinking = thinking_tokens(client.partition(":")[2], effort)
    estimate = paper.estimate(settings.prices, thinking_tokens=thinking)
    _say_estimate(estimate, paper, adaptive, thinking)
    if dry_run:
        _report_dry_run(estimate, paper, as_json)
        return
    sitter = client_named(
        client,
        base_url=base_url,
        candidate=name,
        temperature=None if no_temperature else temperature,
        max_output_tokens=max_tokens,
        effort=effort,
    )
    where = journal or out_folder / "journals" / f"{file_stem(sitter.candidate)}.{paper.protocol.name}.jsonl"
    check_output(profile_file(out_folder, sitter.candidate))
    check_output(where)

    async def run() -> ExamRun:
        order = _adaptive_order(test, paper, sitter.candidate) if adaptive else None
        try:
            with progress_bar() as progress:
                return await test.sit(paper, sitter, where, order=order, settings=settings, progress=progress)
        finally:
            await sitter.aclose()

    try:
        sat = asyncio.run(run())
    except KeyboardInterrupt:
        errors.print(f"Interrupted; every answer is in {where}. Run the same command again to go on.")
        raise typer.Exit(130) from None
    _finish(sat, test, paper, exam, settings, out_folder, as_json)


def _paper(
    test: AptitudeTest,
    questions: str,
    revision: str | None,
    protocol: str | None,
    shots: int | None,
    tasks: int | None,
    quick: bool,
    rotate: int,
) -> ExamPaper:
    from msat_core.aptitude.paper import ExamPaper, shorten
    from msat_core.aptitude.protocols import ANSWER_TAGS, fitting_protocol, protocol_named
    from msat_core.aptitude.questions import QuestionSet

    how = protocol_named(protocol) if protocol is not None else None
    tasks_asked = {shot.task for shot in shorten(test.exam, n_shots=shots, n_tasks=tasks, quick=quick)}
    question_set = QuestionSet.load(questions, revision=revision, tasks=tasks_asked)
    if how is None:
        how = fitting_protocol(question_set)
        if not question_set.examples and how is not ANSWER_TAGS:
            errors.print(
                f"{question_set.source} has no worked examples: asking {how.name} (--protocol says otherwise).",
                soft_wrap=True,
            )
    return ExamPaper.of(test.exam, question_set, how, n_shots=shots, n_tasks=tasks, quick=quick, n_rotations=rotate)


def _adaptive_order(test: AptitudeTest, paper: ExamPaper, candidate: str) -> QuestionOrder:
    from msat_core.aptitude.adaptive import AdaptiveOrder

    return AdaptiveOrder.pretrained(test, paper.item_ids, candidate)


def _say_estimate(estimate: Estimate, paper: ExamPaper, adaptive: bool, thinking: int) -> None:
    cost = f"about {estimate.usd:.2f} USD" if estimate.usd is not None else _cost_of_a_flagship(paper, thinking)
    errors.print(
        f"{len(paper.shots)} questions, {'at most ' if adaptive or paper.n_rotations else ''}{estimate.n_calls} calls, "
        f"{paper.protocol.name}: about {estimate.input_tokens:,} tokens in and {estimate.output_tokens:,} out, {cost}.",
        highlight=False,
        soft_wrap=True,
    )


def _cost_of_a_flagship(paper: ExamPaper, thinking: int) -> str:
    """For whom no price was given."""
    from msat_core.aptitude.paper import FLAGSHIP

    usd = paper.estimate(FLAGSHIP, thinking_tokens=thinking).usd
    price = f"{FLAGSHIP.usd_per_mtok_in:g} and {FLAGSHIP.usd_per_mtok_out:g} USD per million tokens"
    return f"about {usd:.2f} USD at a flagship's {price} (give --usd-per-mtok-in and --usd-per-mtok-out)"


def _report_dry_run(estimate: Estimate, paper: ExamPaper, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "exam": paper.exam.digest,
                "questions": paper.source,
                "questions_sha256": paper.questions_sha256,
                "protocol": paper.protocol.name,
                "n_questions": len(paper.shots),
                "n_calls": estimate.n_calls,
                "input_tokens": estimate.input_tokens,
                "output_tokens": estimate.output_tokens,
                "usd": estimate.usd,
            }
        )


@contextmanager
def progress_bar() -> Iterator[Callable[[Now], None]]:
    """A progress bar on standard error: done, right so far, failed, cost, time left."""
    columns = (
        TextColumn("exam"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[right]}"),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("{task.fields[usd]:.3f} USD"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=errors, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("exam", total=None, right="", failed=0, usd=0.0)

        def advance(now: Now) -> None:
            right = f"{now.n_right / now.n_done:.0%} right" if now.n_done else ""
            total = now.n_planned
            bar.update(task, completed=now.n_done, total=total, right=right, failed=now.n_failed, usd=now.usd)

        yield advance


def _finish(
    sat: ExamRun,
    test: AptitudeTest,
    paper: ExamPaper,
    exam: Path | None,
    settings: RunSettings,
    out_folder: Path,
    as_json: bool,
) -> None:
    profile, result = sat.profile, sat.result
    file = profile.save(profile_file(out_folder, profile.candidate))
    if exam is not None:
        test.exam.save(out_folder / "exams" / test.exam.digest[:16])
    sitting = profile.provenance.sitting
    warnings = sitting.warnings if sitting else ()
    for warning in warnings:
        errors.print(f"Note: {warning}", highlight=False, soft_wrap=True)
    if as_json:
        print_json(
            {
                "candidate": profile.candidate,
                "file": str(file),
                "journal": str(sat.journal),
                "exam": profile.exam_digest,
                "accuracy": profile.accuracy,
                "interval": [profile.interval.low, profile.interval.high],
                "n_shots": profile.n_shots,
                "complete": result.complete,
                "n_failed": len(result.failures),
                "n_unreadable": sitting.n_unreadable if sitting else 0,
                "n_cut": sitting.n_cut if sitting else 0,
                "n_refused": sitting.n_refused if sitting else 0,
                "n_empty": sitting.n_empty if sitting else 0,
                "usd": result.usd if settings.prices.known else None,
                "warnings": list(warnings),
            }
        )
    else:
        out().print(
            f"{profile.candidate}: {profile.accuracy:.3f} [{profile.interval.low:.3f}, {profile.interval.high:.3f}] "
            f"on {profile.n_shots} questions, written to {file}",
            highlight=False,
            soft_wrap=True,
        )
    if not result.complete:
        how = "with a higher --max-usd" if result.out_of_budget else "when the endpoint is well again"
        errors.print(
            f"To go on: the same command {how}. The answers so far are in {sat.journal}.",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(INCOMPLETE)
