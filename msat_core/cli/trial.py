"""`msat trial`: own candidates and own questions, or a log of decisions in; a report out, and what to route with."""

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

from msat_core.aptitude.sitting import RunSettings
from msat_core.cli.profile_run import INCOMPLETE
from msat_core.cli.shared import Columns, Json, ScorerFolder, check_output, errors, mapping, new_table, out, print_json
from msat_core.errors import ConfigurationError
from msat_core.reading import MOST_SETTINGS, read_text
from msat_core.trial.questions import DEFAULT_N

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from msat_core.aptitude.sitting import Progress
    from msat_core.trial.asking import CallEstimate
    from msat_core.trial.trial import TrialResult


def trial(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for zoo, policy, report and journals.")],
    questions: Annotated[
        Path | None, typer.Argument(help="JSONL, CSV or Parquet, a folder of records, or traces.", metavar="QUESTIONS")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="A list of {name, client, base_url, api_key_env, effort}.")
    ] = None,
    from_log: Annotated[
        Path | None, typer.Option(help="A log of decisions, in place of QUESTIONS and candidates: nobody is asked.")
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="Of a log's decisions: a feedback file, or rows of id and score.")
    ] = None,
    n: Annotated[int, typer.Option("--sample", min=1, help="Most questions, spread over the tasks.")] = DEFAULT_N,
    grader: Annotated[str | None, typer.Option(help="NAME[:ARGUMENT]; default: what fits each question.")] = None,
    run_code: Annotated[bool, typer.Option(help="Let the grader `code` run what candidates wrote, here.")] = False,
    judge: Annotated[str | None, typer.Option(help="openai:NAME, or a file that lists one candidate.")] = None,
    rubric: Annotated[Path | None, typer.Option(help="A text by which the judge grades.")] = None,
    judge_check: Annotated[
        Path | None, typer.Option(help="Rows of instruction, output, score: people's marks, to check the judge.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Of an export of traces: langsmith, langfuse or otel.")] = None,
    feedback: Annotated[str | None, typer.Option(help="Of traces: the key of the feedback that counts.")] = None,
    columns: Columns = None,
    target: Annotated[float | None, typer.Option(help="Accuracy to be guaranteed.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="Stop before more is spent, in all.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most calls to one endpoint at once.")] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds for one call.")] = RunSettings.timeout_s,
    retry_for: Annotated[float, typer.Option(help="Seconds for which a question is tried.")] = RunSettings.retry_for_s,
    scorer: ScorerFolder = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what it would take.")] = False,
    as_json: Json = False,
) -> None:
    """Find out whether routing pays for your candidates and questions. Run again to go on; nothing is asked twice."""
    sources = _sources(questions, candidates, from_log, outcomes)
    if from_log is not None:
        _weigh_log(from_log, outcomes, out_folder, as_json)
        return
    from msat_core.scoring.loading import load
    from msat_core.trial.opening import open_trial

    opened = open_trial(
        *sources,
        n=n,
        grader=grader,
        format=format,  # type: ignore[arg-type]  # checked where it is read
        feedback=feedback,
        columns=mapping(columns),
        run_code=run_code,
        rubric=_rubric(rubric),
        judge=judge,
        judge_check=judge_check,
        settings=RunSettings(concurrency, timeout, retry_for),
        max_usd=max_usd,
        target=target,
        scorer=load(scorer) if scorer is not None else None,
        keys=not dry_run,
    )
    plan = opened.plan(out_folder)
    _say_plan(plan, len(opened.questions), opened.questions.left_out, max_usd)
    if dry_run:
        if as_json:
            print_json(
                {
                    "n_questions": len(opened.questions),
                    "plan": {name: vars(estimate) for name, estimate in plan.items()},
                }
            )
        return

    check_output(out_folder, folder=True)

    async def run() -> TrialResult:
        try:
            with progress_bars() as report:
                return await opened.run(out_folder, report)
        finally:
            for contender in (*opened.contenders, opened.judge):
                if contender is not None and contender.client is not None:
                    await contender.client.aclose()

    try:
        result = asyncio.run(run())
    except KeyboardInterrupt:
        errors.print(f"Interrupted; every answer is in {out_folder}. Run the same command again to go on.")
        raise typer.Exit(130) from None
    _tell(result, out_folder, as_json)


def _sources(
    questions: Path | None, candidates: Path | None, log: Path | None, outcomes: Path | None
) -> tuple[Path, Path]:
    """Questions and candidates; where a log takes their place, nothing that is read."""
    if log is not None:
        if questions is not None or candidates is not None:
            raise ConfigurationError("--from-log takes the place of QUESTIONS and --candidates: leave them off.")
        return log, log
    if questions is None or candidates is None:
        raise ConfigurationError("Expected QUESTIONS and --candidates FILE, or --from-log LOG.")
    if outcomes is not None:
        raise ConfigurationError("--outcomes are those of a log: give --from-log, or `scores` in QUESTIONS.")
    return questions, candidates


def _tell(result: TrialResult, out_folder: Path, as_json: bool) -> None:
    from msat_core.trial.report import summary, write_result

    page = write_result(result, out_folder)
    if as_json:
        print_json(summary(result))
    else:
        _print_result(result, page)
    if not result.complete:
        for note in result.notes:
            errors.print(f"Note: {note}", highlight=False, soft_wrap=True)
        errors.print("Not everything was answered: run the same command again to go on.", soft_wrap=True)
        sys.exit(INCOMPLETE)


def _weigh_log(log: Path, outcomes: Path | None, out_folder: Path, as_json: bool) -> None:
    from msat_core.trial.report import usd_text
    from msat_core.trial.shadow import trial_from_log
    from msat_core.trial.shadow_report import shadow_summary, write_shadow
    from msat_core.trial.shadow_wording import advice_text, shadow_notes

    result = trial_from_log(log, outcomes)
    page = write_shadow(result, out_folder)
    if as_json:
        print_json(shadow_summary(result))
        return
    out().print(advice_text(result), highlight=False, soft_wrap=True)
    table = new_table("", "believed", "right", "95%", "USD per 1,000")
    for way in (result.served, result.recommended, *result.alone):
        believed = "unknown" if way.believed is None else f"{way.believed:.1%}"
        value = None if way.value is None else way.value.dr
        measured = (
            ("not measured", "") if value is None else (f"{value.value:.1%}", f"[{value.low:.1%}, {value.high:.1%}]")
        )
        table.add_row(way.label, believed, *measured, usd_text(way.usd_per_1000))
    out().print(table)
    for note in shadow_notes(result):
        errors.print(f"Note: {note}", highlight=False, soft_wrap=True)
    out().print(f"The report: {page}", highlight=False, soft_wrap=True)


def _rubric(path: Path | None) -> str | None:
    try:
        return None if path is None else read_text(path, most=MOST_SETTINGS)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): expected a text file with a rubric.") from None


def _say_plan(
    plan: Mapping[str, CallEstimate], n_questions: int, left_out: Mapping[str, int], max_usd: float | None
) -> None:
    for why, number in left_out.items():
        errors.print(f"{number} rows left out: {why}.", highlight=False, soft_wrap=True)
    errors.print(f"{n_questions} questions.", highlight=False)
    for name, estimate in plan.items():
        cost = "cost unknown (no price)" if estimate.usd is None else f"about {estimate.usd:.2f} USD"
        errors.print(
            f"{name}: {estimate.n_calls} calls, about {estimate.input_tokens:,} tokens in and "
            f"{estimate.output_tokens:,} out, {cost}.",
            highlight=False,
            soft_wrap=True,
        )
    usd = sum(estimate.usd or 0.0 for estimate in plan.values())
    if max_usd is not None and usd > max_usd:
        errors.print(
            f"That is about {usd:.2f} USD, above the cap of {max_usd:g}: a call that could pass the cap, were its "
            "answer as long as is allowed, is not made. Ask fewer questions (--sample), or raise --max-usd.",
            highlight=False,
            soft_wrap=True,
        )


def _print_result(result: TrialResult, page: Path) -> None:
    from msat_core.trial.wording import promise_text, verdict_text

    out().print(verdict_text(result), highlight=False, soft_wrap=True)
    table = new_table("candidate", "right", "95%", "USD per 1,000")
    for single in result.verdict.alone:
        usd = "unknown" if single.usd_per_1000 is None else f"{single.usd_per_1000:.3f}"
        table.add_row(
            single.name, f"{single.accuracy:.1%}", f"[{single.interval.low:.1%}, {single.interval.high:.1%}]", usd
        )
    out().print(table)
    out().print(promise_text(result.verdict), highlight=False, soft_wrap=True)
    out().print(f"The report: {page}", highlight=False, soft_wrap=True)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, Progress], None]]:
    """A bar a candidate on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("{task.fields[usd]:.3f} USD"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=errors, transient=True, refresh_per_second=4) as bar:
        tasks = {}

        def advance(name: str, now: Progress) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=now.n_planned, failed=0, usd=0.0)
            bar.update(tasks[name], completed=now.n_done, total=now.n_planned, failed=now.n_failed, usd=now.usd)

        yield advance
