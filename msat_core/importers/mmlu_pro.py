"""MMLU-Pro's public evaluation results: JSON arrays of answered questions, a file a model or a subject, often zipped.

Answers are read again from the outputs where they are there: the source gives some unreadable
outputs a random guess.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msat_core.aptitude.answers import read_choice
from msat_core.errors import ConfigurationError
from msat_core.importers.rows import (
    BadRow,
    ImportOptions,
    OutcomeRow,
    Row,
    Unreadable,
    files_of,
    json_items,
    opened,
    readable,
    text_of,
)
from msat_core.lettered_options import with_options
from msat_core.mmlu_pro import BENCHMARK, id_of_question, stated_options

_FILE = re.compile(r"model_outputs_(?P<model>.+?)_\d+[-_]?shots?", re.IGNORECASE)
_OWN_NAMES = {"ori_mmlu": "mmlu", "theoremQA": "theoremqa"}


def rows(source: Path, options: ImportOptions) -> Iterator[Row]:
    """Every answered question of every file."""
    for path in files_of(source, ".json", ".zip"):
        members: list[str | None] = [None]
        if path.suffix == ".zip":
            with readable(path), zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if name.endswith(".json") and "__MACOSX" not in name]
        for member in members:
            name = Path(member or path)
            if not name.stem.endswith("summary"):
                yield from _file(path, member, options.model or _model(name, source), options)


def _file(path: Path, member: str | None, model: str, options: ImportOptions) -> Iterator[Row]:
    place = str(path) if member is None else f"{path}!{member}"
    with opened(path, member) as file:
        number = 0
        try:
            for number, data in enumerate(json_items(file, "item"), start=1):
                try:
                    yield _outcome(data, model, options)
                except Unreadable as error:
                    yield BadRow(f"{place}[{number}]", str(error))
        except Unreadable as error:
            yield BadRow(f"{place}[{number + 1}]", str(error))


def _model(name: Path, source: Path) -> str:
    match = _FILE.search(name.stem)
    if match:
        return match["model"]
    if name.stem.endswith("_result") and name.parent.name and name.parent != source.parent:
        return name.parent.name
    raise ConfigurationError(f"{name} does not say which model answered: give --model NAME.")


def _outcome(data: Any, model: str, options: ImportOptions) -> OutcomeRow:  # noqa: ANN401 - a JSON value
    if not isinstance(data, dict) or not isinstance(data.get("options"), list):
        raise Unreadable("no options")
    choices = stated_options(data["options"])
    answer = text_of(data, "answer")
    output = data.get("model_outputs", data.get("output"))
    if isinstance(output, str):
        letter = read_choice(output, choices)
    elif "pred" in data:
        letter = data["pred"]
    else:
        raise Unreadable("neither model_outputs nor pred")
    return OutcomeRow(
        model=model,
        item_id=id_of_question(text_of(data, "question_id")),
        instruction=with_options(text_of(data, "question").strip(), choices),
        task=_task(text_of(data, "src", "category")),
        benchmark=options.benchmark or BENCHMARK,
        score=float(letter == answer),
        category=data["category"] if isinstance(data.get("category"), str) else None,
        answer=answer,
        output_chars=len(output) if isinstance(output, str) else None,
        answered=letter is not None,
    )


def _task(source: str) -> str:
    """``ori_mmlu-business_ethics`` → ``mmlu/business_ethics``, as in the shipped exam."""
    origin, _, name = source.partition("-")
    return f"{_OWN_NAMES.get(origin, origin)}/{name}" if name else source
