"""Draws the pictures of docs/statistics.md with the project's own functions, and prints the figures in its text.

python docs/figures.py            # all of them, half a minute
python docs/figures.py folds psr  # these

Colours and ticks are those of the reports. The same seeds give the same pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from kit.charts import Scale, date_ticks, number_ticks
from kit.config import load
from kit.files import write_text
from kit.look import STYLE
from kit.metrics import sharpe
from tournament.config import TournamentConfig
from tournament.folds import Folds
from tournament.score import LOWER, rungs
from tournament.statistics.bootstrap import day_counts, edge_bound, sharpes, sums
from tournament.statistics.compare import step_down, superior_ability
from tournament.statistics.overfit import overfitting
from tournament.statistics.sharpe import (
    deflated_sharpe,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe,
)
from tournament.verdict import BETTER, LEVEL, verdict

IMAGES = Path(__file__).parent / "img"
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
YEAR = 252
WIDTH, HEIGHT = 760, 360
LEFT, TOP, RIGHT, BOTTOM = 62, 52, 26, 50
COLOURS = STYLE[: STYLE.index("* {")]
LOOK = """
rect.sheet { fill: var(--sheet); }
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--soft); }
text.title { font-size: 15px; font-weight: 620; fill: var(--ink); }
text.said { fill: var(--ink); }
.grid { stroke: var(--rule); }
.line { fill: none; stroke-width: 2px; stroke-linejoin: round; }
.thin { stroke-width: 1px; opacity: .3; }
.dash { stroke-dasharray: 5 4; stroke-width: 1.5px; }
"""
INK, BLUE, RED, GREEN, VIOLET, GREY, FAINT = "--ink", "--s0", "--s1", "--s2", "--s3", "--s6", "--faint"
KINDS = {"train": GREY, "validation": "--s5", "test": BLUE, "gap": FAINT, "hold-out": RED}  # as in the report


@dataclass
class Drawing:
    """Axes and what is drawn in them; places are in the axes' own numbers."""

    title: str
    x: Scale
    y: Scale
    height: int = HEIGHT
    left: int = LEFT
    parts: list[str] = field(default_factory=list)

    def across(self, values: np.ndarray | float) -> np.ndarray:
        return self.left + self.x.place(np.asarray(values, float)) * (WIDTH - RIGHT - self.left)

    def up(self, values: np.ndarray | float) -> np.ndarray:
        return self.height - BOTTOM - self.y.place(np.asarray(values, float)) * (self.height - BOTTOM - TOP)

    def axes(self, across: str, up: str, unit: str = "") -> None:
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        for tick in number_ticks(self.y, unit):
            y = bottom - tick.at * (bottom - TOP)
            self.parts.append(f'<path class="grid" d="M{self.left} {y:.1f}H{right}"/>')
            self.text(self.left - 8, y + 4, tick.label, "end")
        for tick in number_ticks(self.x, count=8):
            x = self.left + tick.at * (right - self.left)
            self.parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v5"/>')
            self.text(x, bottom + 19, tick.label, "middle")
        self.text(right, self.height - 10, across, "end")
        self.text(self.left - 8, TOP - 10, up, "start")

    def line(self, x: np.ndarray, y: np.ndarray, colour: str, kind: str = "") -> None:
        places = zip(self.across(x).tolist(), self.up(y).tolist())
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        self.parts.append(f'<path class="line {kind}" style="stroke:var({colour})" d="M{path}"/>')

    def dots(self, x: np.ndarray, y: np.ndarray, colour: str) -> None:
        for a, b in zip(self.across(x).tolist(), self.up(y).tolist()):
            self.parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" style="fill:var({colour})"/>')

    def bars(self, edges: np.ndarray, shares: np.ndarray, colour: str) -> None:
        """A histogram: [B + 1] edges, [B] shares."""
        xs, ys, zero = self.across(edges), self.up(shares), float(self.up(0.0))
        path = "".join(f"M{a:.1f} {zero:.1f}V{y:.1f}H{b:.1f}V{zero:.1f}z" for a, b, y in zip(xs, xs[1:], ys))
        self.parts.append(f'<path style="fill:var({colour});fill-opacity:.45" d="{path}"/>')

    def upright(self, x: float, colour: str, said: str = "", row: int = 0, anchor: str = "start") -> None:
        """A line from top to bottom, and what it is."""
        self.line(np.array([x, x]), np.array([self.y.low, self.y.high]), colour, "dash")
        self.text(float(self.across(x)) + (6 if anchor == "start" else -6), TOP + 14 + 16 * row, said, anchor, "said")

    def say(self, x: float, y: float, words: str, anchor: str = "start", colour: str = INK) -> None:
        """At a place of the axes."""
        self.text(float(self.across(x)), float(self.up(y)), words, anchor, "said", colour)

    def text(self, x: float, y: float, words: str, anchor: str, kind: str = "", colour: str = "") -> None:
        style = f' style="fill:var({colour})"' if colour else ""
        name = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> None:
        """In pixels."""
        style = f"fill:var({colour});fill-opacity:{opacity:g}"
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect {place} rx="2" style="{style}"/>')

    def svg(self) -> str:
        size = f'width="{WIDTH}" height="{self.height}" viewBox="0 0 {WIDTH} {self.height}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self.title)}">\n'
            f'<style>{COLOURS}{LOOK}</style>\n<rect class="sheet" width="100%" height="100%" rx="8"/>\n'
            f'<text class="title" x="16" y="25">{escape(self.title)}</text>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )


Said = list[str]  # figures for the text
Picture = Callable[[], tuple[Drawing, Said]]


def best_of_many() -> tuple[Drawing, Said]:
    """The expected best Sharpe ratio of so many worthless tries, by the formula and by drawing them."""
    page = Drawing("The best of N worthless tries", Scale(1, 1000, log=True), Scale(0, 3.5))
    page.axes("tries", "the best annual Sharpe ratio, on average; the true one is 0")
    tries, said = np.unique(np.round(np.geomspace(1, 1000, 80))), []
    for years, colour in ((1, RED), (4, BLUE), (10, GREEN)):
        best = np.array([expected_maximum(float(n)) for n in tries]) / np.sqrt(years)
        page.line(tries, best, colour)
        page.say(900, float(best[-1]) + 0.1, f"{years} year{'s' if years > 1 else ''} of days", "end", colour)
        said.append(f"{years} years, 64 tries: {expected_maximum(64) / np.sqrt(years):.2f}")
    random, counts = np.random.default_rng(0), np.array([2, 4, 8, 16, 32, 64, 128, 256])
    ratios = np.array([sharpe(random.normal(size=(4 * YEAR, 256))) for _ in range(20)])  # [20, 256]
    page.dots(counts, np.array([np.mean([draw[:n].max() for draw in ratios]) for n in counts]), BLUE)
    page.say(1.15, 3.2, "dots: the best of N random series of 4 years, mean of 20 draws")
    return page, said


def afterwards() -> tuple[Drawing, Said]:
    """The best of 64 series of pure chance by their first 4 years, and its 2 years after them; 40 times."""
    chosen_on, times = 4 * YEAR, 40
    daily = np.random.default_rng(0).normal(0, 0.10 / np.sqrt(YEAR), size=(times, 6 * YEAR, 64))
    best = [int(np.argmax(sharpe(draw[:chosen_on]))) for draw in daily]
    winners = np.column_stack([draw[:, column] for draw, column in zip(daily, best)])
    wealth = np.vstack([np.zeros(times), np.cumsum(winners, axis=0)])
    page = Drawing("Winners of pure chance: chosen by four years, then watched for two", Scale(0, 6), Scale(-0.2, 1.0))
    page.axes("years", "sum of daily returns at a volatility of 10 % a year", unit="%")
    shown = np.arange(0, len(wealth), 12)
    for column in range(times):
        page.line(shown / YEAR, wealth[shown, column], GREY, "thin")
    page.line(shown / YEAR, wealth[shown].mean(axis=1), BLUE)
    page.upright(4, RED, "chosen here", anchor="end")
    told = [f"{sharpe(part).mean():.2f}" for part in (winners[:chosen_on], winners[chosen_on:])]
    page.say(0.15, 0.92, f"grey: the best of 64 tries, {times} times; blue: their mean")
    page.say(0.15, 0.84, f"Sharpe ratio {told[0]} before and {told[1]} after, on average")
    return page, [f"before {told[0]}, after {told[1]}"]


def folds() -> tuple[Drawing, Said]:
    """The folds of configs/demo.yaml over 5,040 business days."""
    config = load(TournamentConfig, DEMO).folds
    days = np.arange("2005-01-03", "2026-01-01", dtype="datetime64[D]")
    dates = days[np.is_busday(days)][:5040].astype("datetime64[ns]")
    stretches = Folds.cut(len(dates), 60, config).picture(dates)
    rows = list(dict.fromkeys(stretch.name for stretch in stretches))
    page = Drawing("Folds of configs/demo.yaml", Scale(0, 1), Scale(0, 1), TOP + BOTTOM + 30 * len(rows), left=80)
    ends = np.array([[s.start, s.end] for s in stretches]).astype("datetime64[s]")
    first, last = ends.min(), ends.max()
    wide = WIDTH - RIGHT - page.left
    for stretch, (start, end) in zip(stretches, (ends - first) / (last - first)):
        y = TOP + 30 * rows.index(stretch.name)
        page.box(page.left + start * wide, y + 4, (end - start) * wide, 20, KINDS[stretch.kind])
    for row, name in enumerate(rows):
        page.text(page.left - 8, TOP + 30 * row + 18, name, "end", "said")
    shown = first + (np.linspace(0, 1, 200) * (last - first)).astype("timedelta64[s]")
    for tick in date_ticks(shown, np.linspace(0, 1, 200)):
        page.text(page.left + tick.at * wide, page.height - 26, tick.label, "start")
    for number, (kind, colour) in enumerate(KINDS.items()):
        page.box(page.left + 110 * number, TOP - 18, 14, 10, colour)
        page.text(page.left + 110 * number + 20, TOP - 9, kind, "start")
    return page, [f"{config.count} folds"]


def bound() -> tuple[Drawing, Said]:
    """Resampled edges of two candidates: the higher one is the one that is known less."""
    random, days = np.random.default_rng(0), 3 * YEAR
    market = random.normal(0.0004, 0.01, days)
    own = random.normal(0, 0.01, size=(days, 2))
    close = _with_edge(market + 0.4 * own[:, 0], market, 0.35)
    far = _with_edge(0.4 * market + own[:, 1], market, 0.60)
    returns, counts = np.column_stack([close, far]), day_counts(days)
    ratios = sharpes(np.column_stack([returns, market]), counts) * np.sqrt(YEAR)
    edges = ratios[:, :2] - ratios[:, 2:]
    lower = edge_bound(returns, market, counts, LOWER)
    page = Drawing("Two candidates after three years: which is better?", Scale(-2, 3), Scale(0, 0.2))
    page.axes("Sharpe ratio minus equal weight's", "share of 2,000 resamples", unit="%")
    bins, said = np.linspace(-2, 3, 61), []
    for number, (name, colour) in enumerate((("A, near equal weight", BLUE), ("B, far from it", RED))):
        page.bars(bins, np.histogram(edges[1:, number], bins)[0] / (len(edges) - 1), colour)
        page.upright(float(lower[number]), colour)
        figures = f"edge {edges[0, number]:.2f}, 20 % bound {lower[number]:.2f}"
        page.text(WIDTH - RIGHT, TOP + 20 + 20 * number, f"{name}: {figures}", "end", "said", colour)
        said.append(f"{name}: {figures}")
    return page, said


def halving() -> tuple[Drawing, Said]:
    """Who trains on which fold in configs/demo.yaml, where nobody is spared after the first."""
    config = load(TournamentConfig, DEMO)
    search, last = config.search, config.folds.count or 0
    entered = search.candidates
    page = Drawing(
        f"Halving: {entered} enter, {last} folds", Scale(0, 1), Scale(0, 1), TOP + 18 * entered + 40, left=80
    )
    there, before, trials = entered, 0, 0
    for fold in rungs(last):
        for number in range(before, fold):
            for row in range(entered):
                place = (page.left + 100 * number, TOP + 18 * row, 92, 14)
                page.box(*place, BLUE if row < there else FAINT, 0.85 if row < there else 1.0)
        trials += there * (fold - before)
        there, before = min(there, max(search.keep, int(np.ceil(there / search.eta)))), fold
    for number in range(last):
        page.text(page.left + 100 * number + 46, TOP - 8, f"fold {number + 1}", "middle", "said")
    after = ", ".join(map(str, rungs(last)[:-1]))
    judged = f"{trials} trainings instead of {entered * last}; after folds {after} the weaker go"
    page.text(page.left, page.height - 14, judged, "start")
    page.text(page.left - 8, TOP + 12, "the best", "end")
    page.text(page.left - 8, TOP + 18 * entered - 8, "the worst", "end")
    return page, [f"{trials} of {entered * last}"]


def psr() -> tuple[Drawing, Said]:
    """How sure one is that a Sharpe ratio is above 0, by the length of its record."""
    page = Drawing("How long until a Sharpe ratio is surely above 0?", Scale(0, 12), Scale(0.5, 1))
    page.axes("years of days", "probability that the true one is above 0", unit="%")
    years, said = np.linspace(0.1, 12, 120), []
    for row, (annual, colour) in enumerate(((2.0, GREEN), (1.0, BLUE), (0.5, RED))):
        daily = annual / np.sqrt(YEAR)
        sure = np.array([float(probabilistic_sharpe(daily, round(n * YEAR))) for n in years])
        page.line(years, sure, colour)
        needed = minimum_track_record(daily) / YEAR
        page.dots(np.array([needed]), np.array([0.95]), colour)
        page.say(7.5, 0.7 - 0.05 * row, f"Sharpe ratio {annual:g}: 95 % after {needed:.1f} years", colour=colour)
        tails = minimum_track_record(daily, skew=-1.0, kurtosis=8.0) / YEAR
        said.append(f"Sharpe {annual:g}: {needed:.2f} years; with skew -1 and kurtosis 8 {tails:.2f}")
    page.line(np.array([0.0, 12.0]), np.array([0.95, 0.95]), INK, "dash")
    return page, said


def deflated() -> tuple[Drawing, Said]:
    """What a Sharpe ratio over 4 years is worth after so many independent tries."""
    page = Drawing("The same Sharpe ratio after more tries", Scale(1, 1000, log=True), Scale(0, 1))
    page.axes("independent tries", "deflated Sharpe ratio, over 4 years of days", unit="%")
    tries, days, said = np.unique(np.round(np.geomspace(1, 1000, 80))), 4 * YEAR, []
    for annual, colour in ((1.0, RED), (1.5, VIOLET), (2.0, BLUE), (2.5, GREEN)):
        daily = annual / np.sqrt(YEAR)
        sure = np.array([float(deflated_sharpe(daily, days, trials=float(n))) for n in tries])
        page.line(tries, sure, colour)
        at = int(np.searchsorted(tries, 330))
        page.say(330, float(sure[at]) + 0.03, f"Sharpe {annual:g}", colour=colour)
        worth = float(deflated_sharpe(daily, days, trials=64))
        said.append(f"a Sharpe ratio of {annual:g} is worth {worth:.{2 if worth < 0.9 else 3}f} after 64 tries")
    page.line(np.array([1.0, 1000.0]), np.array([0.95, 0.95]), INK, "dash")
    page.say(1.1, 0.05, "dashed: what the verdict asks for")
    return page, said


def spa() -> tuple[Drawing, Said]:
    """What luck alone does to the best of 1 and of 64, by the bootstrap that SPA and StepM use."""
    random, days = np.random.default_rng(5), 6 * YEAR
    excess, said = random.normal(0, 0.006, size=(days, 64)), []
    excess[:, 0] = _around(excess[:, 0], 0.00040, 0.006)  # one of them earns something
    counts = day_counts(days)
    means = sums(excess, counts) / days
    scores = (means - means[0]) / means[1:].std(axis=0)
    page = Drawing("The bar that the best of many must clear", Scale(-3, 5), Scale(0, 0.14))
    page.axes("mean excess in standard errors", "share of 2,000 resamples", unit="%")
    bins = np.linspace(-3, 5, 81)
    for name, luck, colour in (
        ("one candidate", scores[1:, 0], GREY),
        ("the best of 64", scores[1:].max(axis=1), BLUE),
    ):
        shares = np.histogram(luck, bins)[0] / len(luck)
        page.bars(bins, shares, colour)
        bar = float(np.quantile(luck, 1 - LEVEL))
        page.upright(bar, colour, f"5 %: {bar:.2f}", row=0 if colour == GREY else 1, anchor="end")
        page.say(float(bins[shares.argmax()]), float(shares.max()) + 0.004, name, "middle", colour)
        said.append(f"{name}: 5 % bar {bar:.2f}")
    real = float(means[0, 0] / means[1:, 0].std())
    page.dots(np.array([real]), np.array([0.003]), RED)
    page.say(real, 0.012, f"the real one: {real:.2f}", "middle", RED)
    p_values = step_down(excess, counts)
    said += [f"SPA p {superior_ability(excess, counts):.2f}, StepM p of the real one {p_values[0]:.2f}"]
    return page, [*said, f"the real one: {real:.2f}"]


def pbo() -> tuple[Drawing, Said]:
    """PBO where candidates differ by luck alone, and where some are truly better."""
    random, days, spreads = np.random.default_rng(6), 6 * YEAR, np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
    means = []
    for spread in spreads:
        true = random.normal(0, spread, size=(12, 1, 32)) / np.sqrt(YEAR)  # Sharpe ratios of 12 pools of 32
        means.append(np.mean([overfitting(one + random.normal(size=(days, 32)), blocks=8) for one in true]))
    page = Drawing("PBO: is choosing the best any use?", Scale(0, 2), Scale(0, 0.6))
    page.axes(
        "how far the true Sharpe ratios of 32 candidates lie apart (standard deviation)", "PBO over 6 years of days"
    )
    page.line(spreads, np.array(means), BLUE)
    page.dots(spreads, np.array(means), BLUE)
    page.line(np.array([0.0, 2.0]), np.array([0.5, 0.5]), INK, "dash")
    page.say(2.0, 0.52, "0.5: as good as drawing lots", "end")
    told = dict(zip(spreads.tolist(), means))
    return page, [f"{spread:g}: {told[spread]:.2f}" for spread in (0.0, 0.5, 1.0)]


def power() -> tuple[Drawing, Said]:
    """How often the verdict says what: 20 candidates, a quarter of which have a true edge; the best five are held."""
    edges, times, days, held = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9]), 40, 8 * YEAR, 5 * YEAR
    mean, market_std, away_std = 0.0004, 0.01, 0.006
    std = np.hypot(market_std, away_std)
    promising, better = np.zeros(len(edges)), np.zeros(len(edges))
    for place, edge in enumerate(edges):
        for seed in range(times):
            random = np.random.default_rng([place, seed])
            market = random.normal(mean, market_std, days + held)
            away = 0.6 * random.normal(size=(days + held, 1)) + 0.8 * random.normal(size=(days + held, 20))
            earned = std * (mean / market_std + np.where(np.arange(20) < 5, edge, 0.0) / np.sqrt(YEAR)) - mean
            returns = market[:, None] + earned + away_std * away
            lower = edge_bound(returns[:days], market[:days], day_counts(days), LOWER)
            ensemble = returns[days:, np.argsort(-lower)[:5]].mean(axis=1)
            found = verdict(returns[:days], market[:days], hold_out=(ensemble, market[days:]))
            promising[place] += found.walk_forward.holds / times
            better[place] += (found.outcome == BETTER) / times
    page = Drawing("What the verdict can see: 8 years of test days, 5 held out", Scale(0, 0.9), Scale(0, 1))
    page.axes("true edge of five candidates in twenty", f"share of {times} simulated tournaments", unit="%")
    for shares, colour in ((promising, GREY), (better, BLUE)):
        page.line(edges, shares, colour)
        page.dots(edges, shares, colour)
    page.say(0.02, 0.93, "grey: promising, by the walk-forward alone")
    page.say(0.02, 0.86, "blue: better, by the hold-out too")
    told = [(e, p, b) for e, p, b in zip(edges.tolist(), promising, better) if e in (0.0, 0.3, 0.6)]
    return page, [f"{edge:g}: promising {a:.0%}, better {b:.0%}" for edge, a, b in told]


PICTURES: dict[str, Picture] = {
    "best-of-many": best_of_many,
    "afterwards": afterwards,
    "folds": folds,
    "bound": bound,
    "halving": halving,
    "psr": psr,
    "deflated": deflated,
    "spa": spa,
    "pbo": pbo,
    "power": power,  # slow
}


def _with_edge(returns: np.ndarray, against: np.ndarray, edge: float) -> np.ndarray:
    """The same series with an annual Sharpe ratio that is so much higher."""
    std = float(returns.std())
    return _around(returns, (float(sharpe(against)) + edge) / np.sqrt(YEAR) * std, std)


def _around(values: np.ndarray, mean: float, spread: float) -> np.ndarray:
    """The same series with this mean and this standard deviation, exactly."""
    return mean + (values - values.mean()) / values.std() * spread


def main(names: Sequence[str]) -> None:
    unknown = set(names) - set(PICTURES)
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: expected {', '.join(PICTURES)}")
    for name in names or PICTURES:
        page, said = PICTURES[name]()
        write_text(IMAGES / f"{name}.svg", page.svg())
        print(f"{name}: {'; '.join(said)}")


if __name__ == "__main__":
    main(sys.argv[1:])
