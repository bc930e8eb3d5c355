"""One self-contained HTML page: prose, tables and pictures, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from msat_core.evaluation.plots import png_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROSE = 40  # characters from which a cell is set as text

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1d2429; background: #fff;
       max-width: 74rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: .25rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
p { max-width: 46rem; } .lead { color: #5f6b73; margin-top: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; margin: .8rem 0 1.2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .26rem .55rem; text-align: right; border-bottom: 1px solid #e3e8eb; white-space: nowrap; }
td.text { text-align: left; white-space: normal; min-width: 20rem; }
th { font-weight: 600; white-space: normal; border-bottom: 2px solid #9aa5ad; }
th:first-child, td:first-child { text-align: left; }
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


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page as text."""
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n{body}\n</body>\n</html>\n'
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    if section.prose:
        parts.append(f"<p>{escape(section.prose)}</p>")
    parts.extend(_table(table) for table in section.tables)
    parts.extend(_picture(figure, caption) for figure, caption in section.figures)
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "\n".join(
        f"<tr{' class=ours' if row and row[0] in table.marked else ''}>"
        + "".join(f"<td{' class=text' if len(cell) > PROSE else ''}>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'


def _picture(figure: Figure, caption: str) -> str:
    data = base64.b64encode(png_of(figure)).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
