"""One self-contained HTML page: no network, no library, inline SVG and a small script.

>>> import numpy as np
>>> page = Page("Weather", "Two days in May")
>>> page.figures([("Warmest", "21 °C", "Tuesday")])
>>> page.lines("Temperature", np.array([1, 2]), {"noon": np.array([18.5, 21.0])}, unit="°C")
>>> page.write("weather.html")  # doctest: +SKIP
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from kit.charts import bar_chart, format_value, heat_map, line_chart
from kit.files import write_text
from kit.look import SCRIPT, STYLE


class Page:
    """A report, filled from top to bottom. Every text is escaped; nothing in it can run or reach out."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._provenance: dict[str, str] = {}

    def section(self, title: str) -> None:
        self._parts.append(f"<h2>{escape(title)}</h2>")

    def text(self, *paragraphs: str) -> None:
        self._parts.extend(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)

    def bullets(self, lines: Sequence[str]) -> None:
        self._parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")

    def figures(self, figures: Sequence[tuple[str, str, str]]) -> None:
        """A strip of key figures: label, value and a note (which may be empty)."""
        cells = (
            f'<div><dt>{escape(label)}</dt><dd class="value">{escape(value)}</dd>'
            + (f'<dd class="note">{escape(note)}</dd>' if note else "")
            + "</div>"
            for label, value, note in figures
        )
        self._parts.append(f'<dl class="figures">{"".join(cells)}</dl>')

    def lines(
        self,
        title: str,
        x: np.ndarray,  # [N] increasing numbers, or datetime64
        series: Mapping[str, np.ndarray],  # [N] each; NaN leaves a gap
        *,
        unit: str = "",
        log: bool = False,
        area: bool = False,
        note: str = "",
    ) -> None:
        """Lines over numbers or dates; see `kit.charts.line_chart`."""
        self._parts.append(line_chart(title, x, series, unit=unit, log=log, area=area, note=note))

    def bars(
        self,
        title: str,
        labels: Sequence[str] | np.ndarray,  # [N] texts, or datetime64
        values: np.ndarray,  # [N]
        *,
        unit: str = "",
        note: str = "",
    ) -> None:
        """One upright bar per label, from zero."""
        self._parts.append(bar_chart(title, labels, values, unit=unit, note=note))

    def heatmap(
        self,
        title: str,
        rows: Sequence[str],
        columns: Sequence[str],
        values: np.ndarray,  # [R, C]; NaN stays blank
        *,
        limit: float | None = None,
        unit: str = "",
        note: str = "",
    ) -> None:
        """A matrix in colours that part at zero; with few cells it shows their values."""
        self._parts.append(heat_map(title, rows, columns, values, limit=limit, unit=unit, note=note))

    def table(
        self,
        title: str,
        columns: Mapping[str, Sequence[str] | np.ndarray],  # header -> cells
        *,
        units: Mapping[str, str] | None = None,
        sort: bool = True,
        note: str = "",
    ) -> None:
        """Columns of texts, numbers or dates; the first names its row. With unit "%" numbers are fractions."""
        shown = {name: _cells(cells, (units or {}).get(name, "")) for name, cells in columns.items()}
        sides = [' class="num"' if numeric else "" for _, numeric in shown.values()]
        head = "".join(
            f'<th scope="col"{side}><button type="button">{escape(name)}</button></th>'
            if sort
            else f'<th scope="col"{side}>{escape(name)}</th>'
            for name, side in zip(shown, sides)
        )
        body = []
        for first, *others in zip(*(cells for cells, _ in shown.values()), strict=True):
            row = "".join(f"<td{side}>{escape(cell)}</td>" for cell, side in zip(others, sides[1:]))
            body.append(f'<tr><th scope="row"{sides[0]}>{escape(first)}</th>{row}</tr>')
        about = f"<p>{escape(note)}</p>" if note else ""
        self._parts.append(
            f"<figure><figcaption><h3>{escape(title)}</h3>{about}</figcaption>"
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table><thead><tr>{head}</tr>'
            f"</thead><tbody>{''.join(body)}</tbody></table></div></figure>"
        )

    def provenance(self, lines: Mapping[str, str]) -> None:
        """What the foot of the page says about where all this comes from."""
        self._provenance |= lines

    def html(self) -> str:
        digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        )
        subtitle = f"<p>{escape(self.subtitle)}</p>" if self.subtitle else ""
        facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in self._provenance.items())
        footer = f"<footer><dl>{facts}</dl></footer>" if facts else ""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<header><h1>{escape(self.title)}</h1>{subtitle}</header>\n<main>\n"
            + "\n".join(self._parts)
            + f"\n</main>\n{footer}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
        )

    def write(self, path: str | Path) -> Path:
        return write_text(path, self.html())


def _cells(column: Sequence[str] | np.ndarray, unit: str) -> tuple[list[str], bool]:
    """What a column shows, and whether it holds numbers."""
    array = np.asarray(column)
    if array.dtype.kind == "M":
        return ["–" if text == "NaT" else text.replace("T", " ") for text in array.astype(str).tolist()], False
    if array.dtype.kind in "iu" and not unit:
        return [f"{value:,}".replace("-", "−") for value in array.tolist()], True
    if array.dtype.kind in "iuf":
        return [format_value(value, unit) for value in array.tolist()], True
    return [str(value) for value in column], False
