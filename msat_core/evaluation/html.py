"""One self-contained HTML page: prose, tables and pictures, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from msat_core.evaluation.plots import png_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBER = re.compile(r"[\[+\-−–]?[\d.]|–$|unknown$")
PROSE = 40  # characters from which a cell is set as text

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1d2429; background: #fff;
       max-width: 74rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: .25rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
p { max-width: 46rem; } .lead { color: #5f6b73; margin-top: 0; } .verdict { font-size: 1.1rem; margin-bottom: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; margin: .8rem 0 1.2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .26rem .55rem; text-align: right; border-bottom: 1px solid #e3e8eb; white-space: nowrap; }
td.text { white-space: normal; min-width: 20rem; } .words { text-align: left; }
th { font-weight: 600; white-space: normal; border-bottom: 2px solid #9aa5ad; }
@media (max-width: 40rem) {
  body { margin: 1.2rem auto; } th { white-space: nowrap; }
  td.text { min-width: 11rem; } td.words { white-space: normal; min-width: 5.5rem; }
  .wide { border-right: 1px dashed #9aa5ad; } th, td { padding: .26rem .4rem; } }
tr.ours td { background: #eaf3fa; font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #5f6b73; font-size: .86rem; }
"""


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; a row whose first cell is among ``marked`` stands out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[str] = frozenset({"routed"})


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it, in this order: prose, tables, figures with their captions."""

    heading: str
    prose: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[tuple[Figure, str]] = field(default=())


def page(title: str, lead: str, sections: Sequence[Section], verdict: str = "") -> str:
    """The page as text: what came of it all, if there is such a thing, stands first."""
    body = "\n".join(_section(section) for section in sections)
    headline = f'<p class="verdict">{escape(verdict)}</p>\n' if verdict else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f'<body>\n<h1>{escape(title)}</h1>\n{headline}<p class="lead">{escape(lead)}</p>\n{body}\n</body>\n</html>\n'
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    if section.prose:
        parts.append(f"<p>{escape(section.prose)}</p>")
    parts.extend(_table(table) for table in section.tables)
    parts.extend(_picture(figure, caption) for figure, caption in section.figures)
    return "\n".join(parts)


def _table(table: Table) -> str:
    words = [k == 0 or not _is_numbers([row[k] for row in table.rows]) for k in range(len(table.columns))]
    head = "".join(f"<th{_class(is_words)}>{escape(c)}</th>" for c, is_words in zip(table.columns, words, strict=True))
    rows = "\n".join(
        f"<tr{' class=ours' if row and row[0] in table.marked else ''}>"
        + "".join(
            f"<td{_class(is_words, len(cell) > PROSE)}>{escape(cell)}</td>"
            for cell, is_words in zip(row, words, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'


def _class(is_words: bool, is_long: bool = False) -> str:
    names = [name for name, holds in (("words", is_words or is_long), ("text", is_long)) if holds]
    return f' class="{" ".join(names)}"' if names else ""


def _is_numbers(cells: Sequence[str]) -> bool:
    """Do most of a column's cells begin like a number?"""
    return sum(bool(_NUMBER.match(cell)) for cell in cells) * 2 > len(cells)


def _picture(figure: Figure, caption: str) -> str:
    data = base64.b64encode(png_of(figure)).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
