"""Charts as inline SVG: lines, bars and heat maps whose text stays readable at any width.

Marks lie in a nested SVG that stretches with the page; grid and text are placed by percentages, so
they do not. Beside each drawing lies the JSON that `kit.look.SCRIPT` shows under the pointer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

POINTS = 1500  # a longer series is drawn by its extremes: more would be finer than a pixel
TICKS = 7  # as many as fit on a telephone
COLOURS = 8  # after these the line is dashed, and then dotted
CELLS_WITH_TEXT = 400
_SPAN = 10_000  # units of the stretched drawing, both ways
_LETTER = 7.2  # px, the width of a letter on an axis, in a wide font
_CAPITAL = 8.2  # px
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STEPS = (
    *(("s", n) for n in (1, 5, 15, 30)),
    *(("m", n) for n in (1, 2, 5, 10, 15, 30)),
    *(("h", n) for n in (1, 2, 3, 6, 12)),
    *(("D", n) for n in (1, 2, 7, 14)),
    *(("M", n) for n in (1, 2, 3, 6)),
    *(("Y", n) for n in (1, 2, 5, 10, 20, 50, 100)),
)


@dataclass(frozen=True)
class Tick:
    at: float  # share of the axis
    label: str
    under: str = ""  # a second line, e.g. the year that begins here


@dataclass(frozen=True)
class Scale:
    low: float
    high: float
    log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Share of the axis, 0 at `low` and 1 at `high`."""
        bounds = np.array([self.low, self.high])
        if self.log:
            values, bounds = np.log(values), np.log(bounds)
        return (values - bounds[0]) / (bounds[1] - bounds[0])


def line_chart(
    title: str,
    x: np.ndarray,  # [N] increasing numbers, or datetime64
    series: Mapping[str, np.ndarray],  # [N] each
    *,
    unit: str = "",
    log: bool = False,
    area: bool = False,
    note: str = "",
) -> str:
    """Lines over numbers or dates. Dates are spaced evenly, so nights and weekends take no room.

    NaN leaves a gap. With unit "%" the values are fractions. `area` fills between line and zero. On
    a logarithmic axis what is not positive is a gap.
    """
    x = np.asarray(x)
    values = {name: _drawable(y, log) for name, y in series.items()}
    assert values and len(x) and all(y.shape == x.shape for y in values.values()), f"{title}: x and series differ"
    dates = x.dtype.kind == "M"
    if dates:
        at = np.arange(len(x)) / max(1, len(x) - 1)
        x_ticks = date_ticks(x, at)
    else:
        across = Scale(float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1.0)
        at = across.place(x.astype(np.float64))
        x_ticks = number_ticks(across, count=TICKS, whole=x.dtype.kind in "iu")
    up = value_scale(values.values(), log=log, with_zero=area)
    marks = []
    for i, y in enumerate(values.values()):
        kept = extremes(y, POINTS)
        xs, ys = _units(at[kept]), _units(1 - up.place(y[kept]))
        zero = int(_units(1 - up.place(np.zeros(1)))[0]) if area else None
        outline = "".join(_strokes(xs, ys, np.isfinite(y[kept])))
        fill = f'<path class="area" d="{"".join(_strokes(xs, ys, np.isfinite(y[kept]), zero))}"/>' if area else ""
        marks.append(f'<g class="series" style="{_colour(i)}">{fill}<path class="line" d="{outline}"/></g>')
    if not any(np.isfinite(y).any() for y in values.values()):
        note = f"{note} There are no values to draw.".strip()
    elif len(x) > POINTS:
        every = f"Drawn from {len(x):,} points by the lowest and highest of every {-(-len(x) // (POINTS // 2))}."
        note = f"{note} {every}".strip()
    probes = np.unique(np.append(np.arange(0, len(x), -(-len(x) // POINTS)), len(x) - 1))
    hover = {
        "at": _units(at[probes]).tolist(),
        "x": x[probes].astype("datetime64[s]").astype(np.int64).tolist() if dates else x[probes].tolist(),
        "digits": _date_digits(x) if dates else 0,
        "v": [_rounded(y[probes]) for y in values.values()],
    }
    return _plot(title, note, unit, up, x_ticks, "".join(marks), list(values), hover)


def bar_chart(
    title: str,
    labels: Sequence[str] | np.ndarray,  # [N] texts, or datetime64
    values: np.ndarray,  # [N]
    *,
    unit: str = "",
    note: str = "",
) -> str:
    """One upright bar per label, from zero; with unit "%" the values are fractions."""
    values = _drawable(values, log=False)
    assert len(labels) and len(labels) == len(values), f"{title}: labels and values differ"
    up = value_scale([values], with_zero=True)
    middle = (np.arange(len(values)) + 0.5) / len(values)
    width = max(1, int(_SPAN / len(values) * 0.8))
    zero = int(_units(1 - up.place(np.zeros(1)))[0])
    bars: list[list[str]] = [[], []]
    for x, y, negative in zip(_units(middle), _units(1 - up.place(values)), values < 0):
        bars[int(negative)].append(f"M{x - width // 2} {zero}h{width}V{y}h{-width}z")
    marks = "".join(
        f'<g class="series" style="{_colour(i)}"><path class="bar" d="{"".join(d)}"/></g>' for i, d in enumerate(bars)
    )
    if isinstance(labels, np.ndarray):
        names = [text.replace("T", " ") + ("h" if len(text) == 13 else "") for text in labels.astype(str).tolist()]
        ticks = date_ticks(labels, middle)
    else:
        names = list(labels)
        fit = max(1, int(330 / (max(map(len, names)) * _LETTER + 10)))
        ticks = [Tick(float(middle[i]), names[i]) for i in range(0, len(names), -(-len(names) // fit))]
    hover = {"at": _units(middle).tolist(), "x": names, "digits": 0, "v": [_rounded(values)]}
    return _plot(title, note, unit, up, ticks, marks, [title], hover)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,  # [R, C]
    *,
    limit: float | None = None,
    unit: str = "",
    note: str = "",
) -> str:
    """Cells coloured from -limit over 0 to limit (default: the largest size); NaN stays blank."""
    values = np.asarray(values, dtype=np.float64)
    assert values.size and values.shape == (len(rows), len(columns)), f"{title}: labels and values differ"
    finite = np.abs(values[np.isfinite(values)])
    limit = limit or float(finite.max(initial=0.0)) or 1.0
    with_text = values.size <= CELLS_WITH_TEXT
    wide, high = (48, 26) if with_text else (21, 21)
    left = max(map(len, rows)) * _CAPITAL + 10
    longest = max(map(len, columns)) * _CAPITAL
    upright = longest > wide - 4
    top = longest + 10 if upright else 20.0
    levels = np.clip(np.rint(np.nan_to_num(values) / limit * 20), -20, 20).astype(int)  # steps of 5 %
    paths: dict[int, list[str]] = {}
    texts = []
    for r, c in np.argwhere(np.isfinite(values)):
        x, y, level = left + c * wide, top + r * high, int(levels[r, c])
        paths.setdefault(level, []).append(f"M{x:.5g} {y:.5g}h{wide - 1}v{high - 1}h{1 - wide}z")
        if with_text:
            strong = ' class="strong"' if abs(level) > 14 else ""
            label = escape(format_value(values[r, c], unit))
            texts.append(f'<text{strong} x="{x + wide / 2:.5g}" y="{y + high / 2:.5g}" dy=".35em">{label}</text>')
    cells = "".join(
        f'<path class="{"hot" if level > 0 else "cold"}" fill-opacity="{abs(level) / 20:g}" d="{"".join(d)}"/>'
        for level, d in sorted(paths.items())
    )
    names = [
        f'<text class="row" x="{left - 8:.5g}" y="{top + (r + 0.5) * high:.5g}" dy=".35em">{escape(name)}</text>'
        for r, name in enumerate(rows)
    ]
    for c, name in enumerate(columns):
        x, y = left + (c + 0.5) * wide, top - 7
        turn = f' class="upright" transform="rotate(-90 {x:.5g} {y:.5g})" dy=".35em"' if upright else ""
        names.append(f'<text x="{x:.5g}" y="{y:.5g}"{turn}>{escape(name)}</text>')
    width, height = left + len(columns) * wide, top + len(rows) * high
    hover = {
        "rows": list(rows),
        "columns": list(columns),
        "v": [_rounded(row) for row in values],
        "box": [left / width, top / height],
        "unit": unit,
    }
    key = (
        f'<div class="key"><span>{escape(format_value(-limit, unit))}</span><i></i>'
        f"<span>{escape(format_value(limit, unit))}</span></div>"
    )
    drawing = (
        f'<div class="scroll"><div class="plot heat" style="min-width:{width:.0f}px;max-width:{width * 1.15:.0f}px">'
        f'<svg role="img" aria-label="{escape(_summary(title, note))}" viewBox="0 0 {width:.5g} {height:.5g}">'
        f'{cells}<g class="names">{"".join(names)}</g><g class="cells">{"".join(texts)}</g></svg></div></div>'
    )
    return _figure(title, note, key, drawing, hover)


def extremes(values: np.ndarray, limit: int) -> np.ndarray:  # [N] -> [at most limit + 2] increasing indices
    """The positions to draw: all if they are few, else the lowest and highest of each bucket.

    A bucket of nothing but NaN keeps one of them, so that the gap stays; a shorter one closes.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    size = -(-count // (limit // 2))
    padded = np.full(-(-count // size) * size, np.nan)
    padded[:count] = values
    buckets = padded.reshape(-1, size)
    offset = np.arange(len(buckets)) * size
    lowest = np.where(np.isfinite(buckets), buckets, np.inf).argmin(axis=1) + offset
    highest = np.where(np.isfinite(buckets), buckets, -np.inf).argmax(axis=1) + offset
    return np.unique(np.concatenate([[0], lowest, highest, [count - 1]]))


def value_scale(arrays: Any, log: bool = False, with_zero: bool = False) -> Scale:
    """A scale that holds every finite value and begins and ends at round numbers."""
    finite = [array[np.isfinite(array)] for array in arrays]
    ends = [float(bound) for array in finite if array.size for bound in (array.min(), array.max())]
    low, high = (min(ends), max(ends)) if ends else (1.0, 2.0) if log else (0.0, 1.0)
    if log:
        margin = (high / low) ** 0.03 if high > low else 1.1
        return Scale(low / margin, high * margin, log=True)
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - abs(low) * 0.1, high + abs(high) * 0.1) if low else (0.0, 1.0)
    step = _nice_step(high - low, 5)
    return Scale(float(np.floor(low / step + 1e-9) * step), float(np.ceil(high / step - 1e-9) * step))


def number_ticks(scale: Scale, unit: str = "", count: int = 5, whole: bool = False) -> list[Tick]:
    """Ticks at multiples of 1, 2 or 5 times a power of ten; on a logarithmic axis at these themselves."""
    factor = 100.0 if unit == "%" else 1.0
    low, high = scale.low * factor, scale.high * factor
    step = max(_nice_step(high - low, count), float(whole))
    values = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
    if scale.log and high / low > 5:
        decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
        for digits in ((1, 2, 5), (1,)):
            values = np.array([digit * 10.0**decade for decade in decades for digit in digits])
            values = values[(values >= low) & (values <= high)]
            if len(values) <= 2 * count:
                break
        values = values[:: -(-len(values) // (2 * count))]
        step = 0.0
    places = scale.place(values / factor)
    return [Tick(float(at), _tick_label(value, step or value, unit)) for at, value in zip(places, values)]


def date_ticks(times: np.ndarray, at: np.ndarray) -> list[Tick]:  # [N] datetime64 and where each lies
    """Ticks at the first time of each hour, day, month or year, whichever gives a few."""
    starts, unit = np.zeros(1, dtype=np.int64), "D"
    for coarser, n in _STEPS:
        keys = times.astype(f"datetime64[{coarser}]").astype(np.int64)
        shift = {"Y": 1970, "D": 3}.get(coarser, 0)  # decades begin at round years, weeks on Monday
        found = np.append(0, np.flatnonzero(np.diff((keys + shift) // n)) + 1)
        if len(found) == 1 or 1 < len(starts) != len(found):
            break  # `starts` are few, and no coarser unit says the same
        if len(found) <= TICKS:
            starts, unit = found, coarser
    kept: list[int] = []
    for start in reversed(starts.tolist()):  # the first may stand in the middle of its period, so it yields
        if not kept or at[kept[-1]] - at[start] >= 0.9 / TICKS:
            kept.append(start)
    ticks, before = [], ""
    for start in reversed(kept):
        label, under = _date_label(times[start], unit)
        ticks.append(Tick(float(at[start]), label, under if under != before else ""))
        before = under
    return ticks


def format_value(value: float, unit: str = "") -> str:
    """A short number for people: `12.3 %` of 0.123, `1,234`, `0.052`; a dash where undefined."""
    if not np.isfinite(value):
        return "–"
    if unit == "%":
        text = f"{value * 100:.1f}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}"
    return _typeset(text) + (f"\u00a0{unit}" if unit else "")


def _plot(
    title: str,
    note: str,
    unit: str,
    up: Scale,
    x_ticks: list[Tick],
    marks: str,
    names: list[str],
    hover: dict[str, Any],
) -> str:
    y_ticks = number_ticks(up, unit)
    margin = max((len(tick.label) for tick in y_ticks), default=1) * _LETTER + 12
    grid = [f'<line x1="0" x2="100%" y1="{_percent(1 - t.at)}" y2="{_percent(1 - t.at)}"/>' for t in y_ticks]
    texts = [f'<text class="y" x="-8" y="{_percent(1 - t.at)}" dy=".35em">{escape(t.label)}</text>' for t in y_ticks]
    for tick in x_ticks:
        at, side = _percent(tick.at), ' class="last"' if tick.at > 0.97 else ""
        grid.append(f'<line class="mark" x1="{at}" x2="{at}" y1="100%" y2="100%"/>')
        texts.append(f'<text{side} x="{at}" y="100%" dy="1.7em">{escape(tick.label)}</text>')
        if tick.under:
            texts.append(f'<text class="under" x="{at}" y="100%" dy="2.9em">{escape(tick.under)}</text>')
    keys = "".join(
        f'<button type="button" aria-pressed="true" style="{_colour(i)}"><svg aria-hidden="true"><path d="M1 6h20"/>'
        f"</svg>{escape(name)}</button>"
        for i, name in enumerate(names)
    )
    legend = f'<div class="legend">{keys}</div>' if len(names) > 1 else ""
    two = " two" if any(tick.under for tick in x_ticks) else ""
    label = escape(_summary(title, note, *(names if len(names) > 1 else ())))
    drawing = (
        f'<div class="plot axes{two}" style="margin-left:{margin:.0f}px">'
        f'<svg role="img" tabindex="0" aria-label="{label}">'
        f'<g class="grid">{"".join(grid)}</g><g class="ticks">{"".join(texts)}</g>'
        f'<svg class="marks" viewBox="0 0 {_SPAN} {_SPAN}" preserveAspectRatio="none">{marks}</svg></svg></div>'
    )
    hover |= {"names": names, "unit": unit, "low": up.low, "high": up.high, "log": up.log}
    return _figure(title, note, legend, drawing, hover, unit.replace("%", ""))


def _figure(title: str, note: str, legend: str, drawing: str, hover: Mapping[str, Any], unit: str = "") -> str:
    about = f"<p>{escape(note)}</p>" if note else ""
    units = f" <small>{escape(unit)}</small>" if unit else ""
    data = json.dumps(hover, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        f'<figure class="chart"><figcaption><h3>{escape(title)}{units}</h3>{about}</figcaption>{legend}{drawing}'
        f'<script type="application/json">{data}</script></figure>'
    )


def _summary(title: str, note: str, *names: str) -> str:
    return ". ".join(part.rstrip(".") for part in (title, ", ".join(names), note) if part)


def _strokes(xs: np.ndarray, ys: np.ndarray, seen: np.ndarray, zero: int | None = None) -> Iterator[str]:
    """One piece of an SVG path for each run of points seen, closed along `zero` for an area."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2]):
        points = "L".join(f"{x} {y}" for x, y in zip(xs[start:stop].tolist(), ys[start:stop].tolist()))
        if zero is not None:
            yield f"M{xs[start]} {zero}L{points}L{xs[stop - 1]} {zero}z"
        else:
            yield f"M{points}" + ("h0" if stop - start == 1 else "")  # a lone point is a dot


def _drawable(values: np.ndarray, log: bool) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)


def _units(shares: np.ndarray) -> np.ndarray:
    return np.rint(np.nan_to_num(shares) * _SPAN).astype(np.int64)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


def _colour(i: int) -> str:
    dash = ("", ";--dash:6 3", ";--dash:2 3")[min(i // COLOURS, 2)]
    return f"--c:var(--s{i % COLOURS}){dash}"


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"


def _nice_step(span: float, count: int) -> float:
    raw = span / count
    power = 10.0 ** np.floor(np.log10(raw))
    return next(float(m * power) for m in (1, 2, 5, 10) if raw <= m * power * (1 + 1e-9))


def _tick_label(value: float, step: float, unit: str) -> str:
    if value and not 1e-4 <= abs(value) < 1e15:
        return _typeset(f"{value:.3g}")
    scale, suffix = next(((s, x) for s, x in ((1e9, "B"), (1e6, "M"), (1e4, "k")) if abs(value) >= s), (1.0, ""))
    scale = 1e3 if suffix == "k" else scale
    decimals = max(0, -int(np.floor(np.log10(min(step, abs(value) or step) / scale * (1 + 1e-9)))))
    text = f"{value / scale:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if suffix and "." in text else text
    return _typeset(text) + suffix + ("\u00a0%" if unit == "%" else "")


def _typeset(number: str) -> str:
    negative = number.startswith("-") and any(digit in number for digit in "123456789")
    return ("−" if negative else "") + number.lstrip("-")


def _date_label(time: np.datetime64, unit: str) -> tuple[str, str]:
    moment = time.astype("datetime64[s]").item()
    day = f"{moment.day} {_MONTHS[moment.month - 1]}"
    labels = {
        "Y": (f"{moment.year}", ""),
        "M": (_MONTHS[moment.month - 1], f"{moment.year}"),
        "D": (day, f"{moment.year}"),
        "s": (f"{moment:%H:%M:%S}", day),
    }
    return labels.get(unit, (f"{moment:%H:%M}", day))


def _date_digits(times: np.ndarray) -> int:
    """How much of `2019-02-04T14:30:05` tells these times apart: 10, 16 or 19 letters."""
    if len(times) < 2 or (np.diff(times) >= np.timedelta64(20, "h")).all():
        return 10
    return 16 if (times == times.astype("datetime64[m]")).all() else 19
