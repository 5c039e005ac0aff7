"""The page: hostile text stays text, nothing is fetched, charts neither hide a spike nor bridge a gap."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from browser import dump_dom, evaluate, needs_chromium
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kit.charts import POINTS, Scale, date_ticks, extremes, format_value, line_chart, number_ticks, value_scale
from kit.page import Page

HOSTILE = "<script>document.title='owned'</script>\"'&<img src=x onerror=alert(1)>"


def every_kind(text: str = "plain") -> Page:
    """A page with each kind of content, `text` in every place that takes one."""
    rng = np.random.default_rng(0)
    page = Page(f"Report {text}", text)
    page.figures([(text, text, text), ("Bars", "1,234", "")])
    page.section(text)
    page.text(text, "A paragraph.")
    page.bullets([text])
    days = np.arange("2020-01-01", "2026-01-01", dtype="datetime64[D]")
    walk = np.cumsum(rng.normal(size=(2, len(days))), axis=1)
    page.lines(text, days, {text: walk[0], "second": walk[1]}, unit=text, note=text)
    page.lines("Drawdown", np.arange(5), {"one": np.array([0, -0.1, np.nan, -0.3, 0])}, unit="%", area=True)
    page.lines("Logarithm", np.arange(3), {"one": np.array([1.0, 10.0, 0.0])}, log=True)
    page.bars(text, [text, "b"], np.array([1.0, -2.0]), note=text)
    page.bars("By month", np.arange("2020-01", "2021-01", dtype="datetime64[M]"), np.arange(12.0))
    page.heatmap(text, [text, "b"], ["c", text], np.array([[1.0, np.nan], [-0.5, 0.2]]), unit="%", note=text)
    page.heatmap("Large", [f"r{i}" for i in range(40)], [f"c{i}" for i in range(40)], rng.normal(size=(40, 40)))
    page.table(
        text,
        {
            text: [text, "b", "c"],
            "amount": np.array([2.0, np.nan, -10.0]),
            "count": np.array([1000, -2, 3]),
            "since": np.array(["2020-01-01", "NaT", "2021-01-01"], dtype="datetime64[D]"),
            **{f"column {i}": np.zeros(3) for i in range(12)},
        },
        units={"amount": "%"},
        note=text,
    )
    page.provenance({text: text})
    return page


def test_hostile_text_stays_text() -> None:
    html = every_kind(HOSTILE).html()
    assert "<script>document" not in html
    assert "<img" not in html
    assert html.count("<script>") == 1  # the page's own
    assert all("<" not in data for data in re.findall(r'<script type="application/json">(.*?)</script>', html))


def test_page_names_no_address_and_forbids_the_network() -> None:
    html = every_kind().html()
    addresses = set(re.findall(r"https?://[^\s\"']+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace, never fetched
    assert not re.search(r"(?i)\b(src|href)\s*=|@import|url\(", html)
    assert "default-src 'none'" in html
    assert "script-src 'unsafe-inline'" not in html


def test_write_replaces_the_file_and_is_deterministic(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    first = every_kind().write(path).read_bytes()
    assert every_kind().write(path).read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


@given(arrays(np.float64, st.integers(1, 5000), elements=st.floats(-1e6, 1e6)), st.integers(4, 300))
def test_thinning_keeps_the_ends_and_the_extremes(values: np.ndarray, limit: int) -> None:
    kept = extremes(values, limit)
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= limit + 2
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


def test_thinning_keeps_one_spike_in_a_hundred_thousand_points() -> None:
    values = np.zeros(100_000)
    values[77_777] = 1.0
    assert 77_777 in extremes(values, POINTS)
    assert len(extremes(values, POINTS)) <= POINTS + 2


def test_thinning_keeps_a_long_gap_and_the_extremes_around_it() -> None:
    values = np.arange(10_000, dtype=float)
    values[3_000:4_000] = np.nan
    kept = extremes(values, 100)
    assert np.isnan(values[kept]).any()
    assert np.nanmax(values[kept]) == 9_999


def test_nan_splits_the_path_and_a_lone_point_is_a_dot() -> None:
    html = line_chart("t", np.arange(7), {"a": np.array([1.0, 2.0, np.nan, 3.0, np.nan, 2.0, 1.0])})
    path = re.search(r'class="line" d="([^"]*)"', html)
    assert path is not None
    # y runs from 1 (below, 10000) to 3 (above, 0); x from 0 to 6
    assert path[1] == "M0 10000L1667 5000" + "M5000 0h0" + "M8333 5000L10000 10000"


def test_area_is_closed_along_zero_in_each_run() -> None:
    html = line_chart("t", np.arange(4), {"a": np.array([0.0, -1.0, np.nan, -1.0])}, area=True)
    path = re.search(r'class="area" d="([^"]*)"', html)
    assert path is not None
    assert path[1] == "M0 0L0 0L3333 10000L3333 0zM10000 0L10000 10000L10000 0z"


def test_logarithmic_axis_leaves_out_what_is_not_positive() -> None:
    html = line_chart("t", np.arange(3), {"a": np.array([1.0, 0.0, 100.0])}, log=True)
    path = re.search(r'class="line" d="([^"]*)"', html)
    assert path is not None
    assert path[1].count("h0") == 2


def test_dates_are_spaced_bar_by_bar() -> None:
    friday_to_tuesday = np.array(["2024-01-05", "2024-01-08", "2024-01-09"], dtype="datetime64[D]")
    html = line_chart("t", friday_to_tuesday, {"a": np.array([0.0, 0.5, 1.0])})
    assert 'class="line" d="M0 10000L5000 5000L10000 0"' in html


def test_values_that_do_not_fit_the_axis_fail_loudly() -> None:
    with pytest.raises(AssertionError, match="Equity: x and series differ"):
        line_chart("Equity", np.arange(3), {"a": np.zeros(4)})


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_multiples_of_one_two_or_five(low: float, span: float) -> None:
    scale = value_scale([np.array([low, low + span])])
    assert scale.low <= low + 1e-6 * span
    assert scale.high >= low + span - 1e-6 * span
    ticks = number_ticks(scale)
    assert 2 <= len(ticks) <= 12
    step = (scale.high - scale.low) * (ticks[1].at - ticks[0].at)
    leading = step / 10 ** np.floor(np.log10(step) + 1e-6)
    assert np.isclose(leading, [1, 2, 5], rtol=1e-4).any()


@pytest.mark.parametrize(
    ("low", "high", "unit", "labels"),
    [
        (0, 1, "", ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.4, 0, "%", ["−40", "−30", "−20", "−10", "0"]),
        (0, 2e6, "", ["0", "500k", "1M", "1.5M", "2M"]),
        (1000, 3000, "", ["1,000", "1,500", "2,000", "2,500", "3,000"]),
        (0.995, 1.015, "", ["0.995", "1.000", "1.005", "1.010", "1.015"]),
    ],
)
def test_tick_labels(low: float, high: float, unit: str, labels: list[str]) -> None:
    end = "\u00a0%" if unit else ""
    assert [tick.label for tick in number_ticks(Scale(low, high), unit)] == [label + end for label in labels]


def test_logarithmic_ticks_are_powers_of_ten_evenly_spaced() -> None:
    ticks = number_ticks(Scale(1e-3, 1e4, log=True))
    assert [tick.label for tick in ticks] == ["0.001", "0.01", "0.1", "1", "10", "100", "1,000", "10,000"][: len(ticks)]
    assert np.allclose(np.diff([tick.at for tick in ticks]), 1 / 7)


def test_whole_numbers_get_no_fractional_ticks() -> None:
    assert [tick.label for tick in number_ticks(Scale(1, 4), whole=True)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("first", "last", "step", "labels"),
    [
        ("2010-01-01", "2016-01-01", "D", ["2010", "2011", "2012", "2013", "2014", "2015"]),
        ("2010-12-20", "2016-01-01", "D", ["2011", "2012", "2013", "2014", "2015"]),  # ten days of 2010 give way
        ("2023-11", "2024-03", "M", ["Nov 2023", "Dec", "Jan 2024", "Feb"]),
        ("2023-12-30", "2024-01-02", "D", ["30 Dec 2023", "31 Dec", "1 Jan 2024"]),
        ("2024-01-05T09:30", "2024-01-05T12:30", "m", ["09:30 5 Jan", "10:00", "10:30", "11:00", "11:30", "12:00"]),
        ("2024-01-05", "2024-01-06", "D", ["5 Jan 2024"]),
    ],
)
def test_date_ticks_stand_at_the_begin_of_periods(first: str, last: str, step: str, labels: list[str]) -> None:
    times = np.arange(first, last, dtype=f"datetime64[{step}]").astype("datetime64[ns]")
    ticks = date_ticks(times, np.linspace(0, 1, len(times)))
    assert [f"{tick.label} {tick.under}".strip() for tick in ticks] == labels


def test_sessions_of_minutes_get_a_tick_a_day() -> None:
    days = np.arange("2019-02-11", "2019-02-16", dtype="datetime64[D]").astype("datetime64[m]")
    times = (days[:, None] + 14 * 60 + 30 + np.arange(390)).ravel()
    ticks = date_ticks(times, np.linspace(0, 1, len(times)))
    assert [tick.label for tick in ticks] == ["11 Feb", "12 Feb", "13 Feb", "14 Feb", "15 Feb"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "%", "12.3\u00a0%"),
        (-0.0001, "%", "0.0\u00a0%"),
        (-0.5, "%", "−50.0\u00a0%"),
        (1234.5, "", "1,234"),
        (0.92, "", "0.92"),
        (0.0521, "", "0.0521"),
        (float("nan"), "%", "–"),
        (21.0, "°C", "21.00\u00a0°C"),
    ],
)
def test_format_value(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


@pytest.mark.parametrize("values", [np.full(3, np.nan), np.full(3, 5.0), np.zeros(3), np.array([np.inf, 1, -np.inf])])
def test_degenerate_series_are_drawn_without_complaint(values: np.ndarray) -> None:
    for log in (False, True):
        html = line_chart("t", np.arange(3), {"a": values}, log=log)
        assert "nan" not in re.sub(r"<script.*?</script>", "", html)


def test_a_table_with_columns_of_unequal_length_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Page("t").table("t", {"a": ["x", "y"], "b": np.zeros(1)})


@needs_chromium
@pytest.mark.parametrize("width", [400, 1400])
def test_browser_runs_the_page_without_error_or_sideways_scroll(tmp_path: Path, width: int) -> None:
    path = every_kind(HOSTILE).write(tmp_path / "page.html")
    dom = dump_dom(path, width)
    assert 'data-ready="yes"' in dom[:200]
    assert "data-error" not in dom[:400]
    inner, content = evaluate(path, width, "return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == width
    assert content <= inner


@needs_chromium
def test_browser_reports_what_the_policy_forbids(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(Page("t").html().replace("</body>", "<script>document.title = 'owned'</script></body>"))
    dom = dump_dom(path, 800)
    assert 'data-error="forbidden' in dom[:400]
    assert "<title>t</title>" in dom


@needs_chromium
def test_browser_shows_values_hides_series_and_sorts(tmp_path: Path) -> None:
    page = Page("t")
    page.lines("Two", np.arange(3), {"first": np.array([1.0, 2.0, 3.0]), "second": np.array([5.0, np.nan, 7.25])})
    page.heatmap("Map", ["r0", "r1"], ["c0", "c1"], np.array([[0.1, 0.2], [0.3, 0.4]]))
    page.table("Table", {"name": ["a", "b", "c"], "amount": np.array([2.0, np.nan, -10.0])})
    answer = evaluate(
        page.write(tmp_path / "page.html"),
        400,
        """
        const point = (svg, x, y) => {
          const box = svg.getBoundingClientRect();
          const at = { clientX: box.left + box.width * x, clientY: box.top + box.height * y };
          svg.dispatchEvent(new PointerEvent("pointermove", at));
        };
        const [lines, map] = document.querySelectorAll("figure.chart");
        const tip = figure => [...figure.querySelectorAll(".tip b, .tip em")].map(node => node.textContent);
        const axes = lines.querySelector(".plot > svg");
        point(axes, .95, .5);
        const all = tip(lines);
        const fits = lines.querySelector(".tip").getBoundingClientRect().right <= innerWidth;
        point(axes, .52, .5);
        const gap = tip(lines);
        lines.querySelector(".legend button").click();
        const hidden = tip(lines);
        point(map.querySelector("svg"), .95, .95);
        const head = document.querySelectorAll("thead button")[1];
        const names = () => [...document.querySelectorAll("tbody th")].map(cell => cell.textContent).join("");
        head.click();
        const falling = names();
        head.click();
        return { all, fits, gap, hidden, cell: tip(map), falling, rising: names() };
        """,
    )
    assert answer == {
        "all": ["2", "3", "7.25"],
        "fits": True,
        "gap": ["1", "2", "–"],
        "hidden": ["1", "–"],
        "cell": ["r1 · c1", "0.4"],
        "falling": "acb",  # 2, −10, and the undefined one last
        "rising": "cab",
    }


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_both_colour_schemes(tmp_path: Path, dark: bool) -> None:
    colours = evaluate(
        every_kind().write(tmp_path / "page.html"),
        1000,
        """
        const seen = node => getComputedStyle(node);
        const figure = document.querySelector("figure");
        return [seen(figure).backgroundColor, seen(figure).color, seen(figure.querySelector("figcaption p")).color];
        """,
        dark,
    )
    sheet, ink, soft = (luminance(colour) for colour in colours)
    assert (sheet < ink) == dark
    assert contrast(sheet, ink) > 7
    assert contrast(sheet, soft) > 4.5


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    shares = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
