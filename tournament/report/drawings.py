"""Two drawings that no other page needs: spans over time, and stacked areas."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from kit.charts import date_ticks, format_value
from kit.page import Page
from tournament.folds import Stretch

KINDS = {"train": "--s6", "validation": "--s5", "test": "--s0", "gap": "--faint", "hold-out": "--s1"}
ROW = 26  # px
COLOURS = tuple(f"--s{number}" for number in (0, 1, 2, 3, 4, 5, 7))
MOST = 2 * len(COLOURS)  # areas; what is left is one more
POINTS = 120
SPAN = 10_000  # units of the stretched drawing, both ways


class Report(Page):
    """A page with these two."""

    def timeline(self, title: str, stretches: Sequence[Stretch], note: str = "") -> None:
        """Bars over time, one row a name, from top to bottom in the order given."""
        rows = list(dict.fromkeys(stretch.name for stretch in stretches))
        ends = np.array([[stretch.start, stretch.end] for stretch in stretches], "datetime64[s]")
        first, last = ends.min(), ends.max()
        places = (ends - first) / (last - first)
        bars = []
        for stretch, (start, end) in zip(stretches, places):
            y = rows.index(stretch.name) * ROW + 4
            days = f"{stretch.start.astype('datetime64[D]')} to {stretch.end.astype('datetime64[D]')}"
            bars.append(
                f'<rect x="{start:.3%}" y="{y}" width="{end - start:.3%}" height="{ROW - 8}" rx="2" '
                f'style="fill:var({KINDS[stretch.kind]})">'
                f"<title>{escape(f'{stretch.name}, {stretch.kind}: {days}')}</title></rect>"
            )
        names = "".join(
            f'<text class="y" x="-8" y="{(row + 0.5) * ROW:g}" dy=".35em">{escape(name)}</text>'
            for row, name in enumerate(rows)
        )
        dates = first + (np.linspace(0, 1, POINTS) * (last - first)).astype("timedelta64[s]")
        there = [kind for kind in KINDS if any(stretch.kind == kind for stretch in stretches)]
        legend = _legend([(kind, KINDS[kind], 1.0) for kind in there])
        margin = max(map(len, rows)) * 7 + 12
        drawn = _axes(title, _date_marks(dates) + names + "".join(bars), margin, len(rows) * ROW + 4)
        self._parts.append(_figure(title, note, legend, drawn))

    def stacked(
        self,
        title: str,
        dates: np.ndarray,  # [T]
        symbols: Sequence[str],
        weights: np.ndarray,  # [T, A+1], none below zero, cash last
        note: str = "",
    ) -> None:
        """Areas that share 1 between them: the largest at the bottom, cash at the top."""
        order = np.argsort(-weights[:, :-1].mean(axis=0), kind="stable")
        shown, rest = order[:MOST], order[MOST:]
        names = [symbols[asset] for asset in shown] + ([f"{len(rest)} others"] if len(rest) else []) + ["cash"]
        parts = [weights[:, shown], weights[:, rest].sum(axis=1, keepdims=True), weights[:, -1:]]
        values = np.concatenate([part for part in parts if part is not parts[1] or len(rest)], axis=1)
        colours = [(COLOURS[k % len(COLOURS)], 0.9 if k < len(COLOURS) else 0.45) for k in range(len(shown))]
        colours += [("--s6", 0.6)] * bool(len(rest)) + [("--rule", 1.0)]
        size = -(-len(dates) // POINTS)
        starts = np.arange(0, len(dates), size)
        lengths = np.diff(np.append(starts, len(dates)))[:, None]
        drawn = np.add.reduceat(values.astype(np.float64), starts, axis=0) / lengths
        edges = np.concatenate([np.zeros((len(drawn), 1)), np.cumsum(drawn, axis=1)], axis=1).clip(0.0, 1.0)
        across = np.rint(np.linspace(0, SPAN, len(drawn))).astype(int) if len(drawn) > 1 else np.array([0])
        areas = []
        for k, (name, (colour, opacity)) in enumerate(zip(names, colours)):
            upper, lower = (np.rint((1 - edges[:, side]) * SPAN).astype(int) for side in (k + 1, k))
            forth = "L".join(f"{x} {y}" for x, y in zip(across.tolist(), upper.tolist()))
            back = "L".join(f"{x} {y}" for x, y in zip(across[::-1].tolist(), lower[::-1].tolist()))
            low, mean, high = (format_value(float(f(values[:, k])), "%") for f in (np.min, np.mean, np.max))
            areas.append(
                f'<path d="M{forth}L{back}z" style="fill:var({colour});fill-opacity:{opacity}">'
                f"<title>{escape(f'{name}: {mean} on average, {low} to {high}')}</title></path>"
            )
        grid = "".join(
            f'<g class="grid"><line x1="0" x2="100%" y1="{100 - share}%" y2="{100 - share}%"/></g>'
            f'<text class="y" x="-8" y="{100 - share}%" dy=".35em">{share}\u00a0%</text>'
            for share in (0, 25, 50, 75, 100)
        )
        marks = f'<svg viewBox="0 0 {SPAN} {SPAN}" preserveAspectRatio="none">{"".join(areas)}</svg>'
        every = f"Means of every {size} bars." if size > 1 else ""
        about = " ".join(filter(None, (note, "The largest average lies at the bottom.", every)))
        legend = _legend([(name, colour, opacity) for name, (colour, opacity) in zip(names, colours)])
        self._parts.append(_figure(title, about, legend, _axes(title, grid + marks + _date_marks(dates), 48)))


def _date_marks(dates: np.ndarray) -> str:
    texts = []
    for tick in date_ticks(dates, np.linspace(0, 1, len(dates))):
        at, side = f"{tick.at:.2%}", ' class="last"' if tick.at > 0.97 else ""
        texts.append(f'<g class="grid"><line class="mark" x1="{at}" x2="{at}" y1="100%" y2="100%"/></g>')
        texts.append(f'<text{side} x="{at}" y="100%" dy="1.7em">{escape(tick.label)}</text>')
        if tick.under:
            texts.append(f'<text class="under" x="{at}" y="100%" dy="2.9em">{escape(tick.under)}</text>')
    return "".join(texts)


def _axes(title: str, content: str, margin: int, height: int | None = None) -> str:
    tall = f";height:{height}px" if height else ""
    return (
        f'<div class="plot axes two" style="margin-left:{margin}px{tall}">'
        f'<svg role="img" aria-label="{escape(title)}" style="cursor:default">'
        f'<g class="ticks">{content}</g></svg></div>'
    )


def _legend(entries: Sequence[tuple[str, str, float]]) -> str:
    """Name, colour and opacity of each."""
    keys = "".join(
        '<span style="display:inline-flex;align-items:center;gap:7px;font-size:.84rem">'
        f'<svg aria-hidden="true"><rect y="1" width="16" height="10" rx="2" style="fill:var({colour});'
        f'fill-opacity:{opacity}"/></svg>{escape(name)}</span>'
        for name, colour, opacity in entries
    )
    return f'<div class="legend" style="margin-left:0">{keys}</div>'


def _figure(title: str, note: str, legend: str, drawing: str) -> str:
    about = f"<p>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption><h3>{escape(title)}</h3>{about}</figcaption>{legend}{drawing}</figure>"
