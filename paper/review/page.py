"""The report of a desk: one HTML page that needs no other file, the answer first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.charts import format_value
from kit.metrics import drawdown
from kit.page import Page
from paper.review.compare import INTEREST, OTHER, PARTS, Comparison
from paper.review.drift import KS, PSI, Drift
from paper.review.record import Record

if TYPE_CHECKING:
    from paper.review.commands import Review

LIVE, BACKTEST, EQUAL = "desk", "backtest", "equal weight"
BP = 1e4
SEEN = 0.005  # basis points: less is not drawn
SURE = 2.0  # standard errors
SHOWN = 200  # incidents
MEANING = {
    "answers": "what the ensemble said at the desk, and would have said in the backtest",
    "timing": "bars missed or refused",
    "rounding": "whole shares, orders too small to send, the desk's own band",
    "limits": "what the risk engine cut, halts, stop-losses, a canary's orders",
    "fills": "prices other than the fill rule's, partial fills, orders rejected or lost",
    "costs": "what was charged beside what the model charges",
    "rest": "what these bars do not explain, as dividends or other prices",
}


def write(review: Review, file: Path) -> Path:
    found, record = review.comparison, review.record
    page = Page(f"Desk {review.folder.name}: {_headline(found)}", _span(found))
    _answer(page, found, record, review.drift)
    _tracking(page, found)
    _sources(page, found, record)
    _costs(page, found, record)
    _drift(page, review.drift)
    _incidents(page, record)
    page.provenance(
        {
            "Journal": f"{review.folder}; python -m paper verify {review.folder} says whether anybody altered it",
            "Bundle": f"sha256 {review.bundle.hash}",
            "Traded": f"version {', '.join(record.versions)}",
            "Data": f"sha256 {review.panel.hash}",
        }
    )
    return page.write(file)


def _headline(found: Comparison) -> str:
    ours, theirs = found.live[-1] - 1.0, found.equal_weight[-1] - 1.0
    word = "above" if ours > theirs else "below"
    return f"{_signed(ours)}, {format_value(abs(ours - theirs), '%')} {word} equal weight"


def _span(found: Comparison) -> str:
    first, last = (str(date.astype("datetime64[D]")) for date in found.dates[[0, -1]])
    return f"{len(found.dates) - 1:,} bars, from the close of {first} to that of {last}"


def _answer(page: Page, found: Comparison, record: Record, drift: Drift) -> None:
    ours, theirs, promised = (float(wealth[-1]) - 1.0 for wealth in (found.live, found.equal_weight, found.backtest))
    page.section("Was it what was promised?")
    page.text(
        f"The desk earned {_signed(ours)}. Equal weight would have earned {_signed(theirs)}, after the same model's "
        f"costs, and the backtest of the ensemble over the same bars {_signed(promised)}: the desk is "
        f"{_apart(ours - promised)} it{_mostly(found)}. {_certainty(found)}"
    )
    same, looked = found.same_data
    if same < looked:
        page.text(
            f"Only {same:,} of {looked:,} decisions that were looked at saw exactly the bars that this page is made "
            "from; what that changes is in answers and rest."
        )
    halted = record.decided & ~record.answered
    notes = [
        f"Missed or refused: {found.missed:,} of {len(found.dates) - 1:,} bars." if found.missed else "",
        f"Halted, so that nobody was asked: {int(halted.sum()):,} bars." if halted.any() else "",
        *(f"{f.level.capitalize()}: {f.text}." for f in drift.findings if f.level != "info"),
    ]
    page.bullets(
        [note for note in notes if note]
        or ["No bar was missed, and nothing that can be judged has drifted beyond its limit."]
    )
    first = record.equity[0]
    turned = format_value(float(found.traded.sum() / first))
    falls = {name: drawdown(_returns(wealth)) for name, wealth in _wealth(found).items()}
    page.figures(
        [
            ("Desk", _signed(ours), f"drawdown {format_value(float(falls[LIVE].min()), '%')}"),
            ("Equal weight", _signed(theirs), f"drawdown {format_value(float(falls[EQUAL].min()), '%')}"),
            ("Backtest", _signed(promised), f"drawdown {format_value(float(falls[BACKTEST].min()), '%')}"),
            ("Tracking difference", _bp(ours - promised), "of the first wealth, at the end"),
            ("Costs", _bp(float(found.charged.sum()) / first), f"by the venue's rules, of {turned} times that traded"),
        ]
    )
    note = "Of 1 at the first close, after costs. The backtest and equal weight trade at the model's prices and costs."
    page.lines("Equity", found.dates, _wealth(found), note=note)
    falls = {name: falls[name] for name in (LIVE, EQUAL)}
    page.lines("Drawdown", found.dates, falls, unit="%", area=True, note="Below the highest equity so far.")


def _mostly(found: Comparison) -> str:
    last = {name: float(part[-1]) * BP for name, part in found.parts.items()}
    name = max(last, key=lambda name: abs(last[name]))
    return f", the largest part by {name} ({_bp(last[name] / BP)})" if abs(last[name]) >= SEEN else ""


def _certainty(found: Comparison) -> str:
    """Of the excess over equal weight, bar by bar."""
    excess = np.diff(np.log(found.live)) - np.diff(np.log(found.equal_weight))
    spread = excess.std(ddof=1) if len(excess) > 1 else 0.0
    if not spread:
        return "Beside equal weight nothing differed, so there is nothing to judge."
    errors = float(excess.mean() / spread * np.sqrt(len(excess)))
    told = f"The mean excess over equal weight is {format_value(errors)} standard errors from zero"
    if abs(errors) < SURE:
        return f"{told}: too little to tell skill from luck over {len(excess):,} bars."
    return f"{told}; that leaves out that somebody may have looked at several desks, or stopped when it looked best."


def _tracking(page: Page, found: Comparison) -> None:
    page.section("The desk beside its backtest")
    page.text(
        "The difference is split by a chain of runs over the same bars. It begins with the backtest; then what "
        "really happened takes the place of the model, one thing after the other in the order of this table; it ends "
        "with the desk. Each part is one step of the chain, so the parts sum to the whole; in another order, what two "
        "causes did together would fall to the other."
    )
    parts = {name: part * BP for name, part in found.parts.items()}
    drawn = {name: part for name, part in parts.items() if np.abs(part).max() >= SEEN}
    if drawn:
        page.lines(
            "Ahead of the backtest, by cause", found.dates, drawn, unit="bp", note="Of the first wealth, so far."
        )
    else:
        page.text("No part ever came to a hundredth of a basis point: the desk did what the backtest does.")
    whole = (found.live - found.backtest) * BP
    deepest = [float(part[np.abs(part).argmax()]) for part in (*parts.values(), whole)]
    page.table(
        "Tracking difference, by cause",
        {
            "Cause": [*PARTS, "all"],
            "At the end, bp": _rounded([*(float(part[-1]) for part in parts.values()), float(whole[-1])]),
            "At its largest, bp": _rounded(deepest),
            "What it is": [*(MEANING[name] for name in PARTS), "desk less backtest"],
        },
        sort=False,
        note="Basis points of the first wealth; above zero the desk gained by it.",
    )


def _sources(page: Page, found: Comparison, record: Record) -> None:
    page.section("Where the return came from")
    gains = np.array([found.gains[symbol] for symbol in record.symbols])
    page.bars("By name", record.symbols, gains, unit="%", note="Of the first wealth, after what fills took.")
    others = [name for name in (INTEREST, OTHER) if abs(found.gains[name]) * BP >= SEEN]
    every = np.array([*gains, *(found.gains[name] for name in others)])
    blank = [np.nan] * (len(others) + 1)
    page.table(
        "Return by name",
        {
            "Part": [*record.symbols, *others, "all"],
            "Average weight": np.array([*found.held, *blank]),
            "Return": np.append(every, sum(found.gains.values())),
        },
        units={"Average weight": "%", "Return": "%"},
        note="What each added to the wealth, of that at the first close; the parts sum to all of it.",
    )
    if not record.members:
        return
    votes = np.nan_to_num(record.votes - record.wanted[:, None])  # [T, M, A]
    apart = np.abs(votes).sum(axis=2)[record.answered].mean(axis=0) / 2.0
    alone = np.array([float(wealth[-1]) - 1.0 for wealth in found.followed.values()])
    page.table(
        "Members",
        {
            "Member": [*record.members, "together"],
            "Share": np.append([*record.members.values()], np.nan),
            "Return": np.append(alone, float(found.answers[-1]) - 1.0),
            "Apart": np.append(apart, np.nan),
        },
        units={"Share": "%", "Return": "%", "Apart": "%"},
        note="Return: of a portfolio that had followed this member's votes alone, at the model's prices and costs; it "
        "was asked with the desk's portfolio in view, not with that one. Shares of these do not sum to the return of "
        "all together, because what members trade against each other is never traded. Apart: how much of "
        "the member's target differs from the ensemble's, on average.",
    )


def _costs(page: Page, found: Comparison, record: Record) -> None:
    page.section("Costs and slippage")
    traded = np.append(found.traded, found.traded.sum())

    def share(amounts: np.ndarray) -> np.ndarray:  # [A] -> [A+1]
        whole = np.append(amounts, amounts.sum())
        return _rounded(np.divide(whole * BP, traded, out=np.full(len(whole), np.nan), where=traded > 0))

    page.table(
        "By name",
        {
            "Name": [*record.symbols, "all"],
            "Traded": np.round(traded),
            "Charged, bp": share(found.charged),
            "Model, bp": share(found.modelled),
            "Slippage, bp": share(found.slippage),
            "Shortfall, bp": share(found.shortfall),
        },
        note="Traded: money. The others: basis points of it, above zero they cost. Charged: by the venue's rules; "
        "model: by those that the ensemble was trained with. Slippage: fills worse than the fill rule's price, costs "
        "aside. Shortfall: fills worse than the close that was decided at, which the market moves too.",
    )
    known = ~np.isnan(record.sent_after)
    if known.any():
        cells = []
        for name, seconds in (("Orders out", record.sent_after), ("Orders ended", record.ended_after)):
            seen = seconds[~np.isnan(seconds)]
            if len(seen):
                middle, late = (_time(float(np.quantile(seen, q))) for q in (0.5, 0.99))
                cells.append((name, middle, f"median after the decision; 99 % within {late}"))
        page.figures([*cells, ("Bars with orders", f"{int(known.sum()):,}", f"of {len(record):,} handled")])


def _drift(page: Page, drift: Drift) -> None:
    page.section("Is the market still what was trained on?")
    page.bullets([f"{f.level.capitalize()}: {f.text}." for f in drift.findings] or ["Nothing is beyond its limit."])
    judged = np.array([shift.judged for shift in drift.shifts])
    limits = [
        np.where(judged, np.maximum(worth, np.nan_to_num([getattr(shift, name) for shift in drift.shifts])), np.nan)
        for worth, name in ((PSI[0], "psi_limit"), (KS[0], "ks_limit"))
    ]
    page.table(
        "Features, live against training",
        {
            "Feature": [shift.name for shift in drift.shifts],
            "Stability": np.array([shift.psi for shift in drift.shifts]),
            "its limit": limits[0],
            "Kolmogorov-Smirnov": np.array([shift.ks for shift in drift.shifts]),
            "its limit ": limits[1],
            "Bars needed": np.array([shift.bars_needed for shift in drift.shifts]),
        },
        note=f"Over {drift.bars:,} bars. Stability: the population stability index; by custom 0.1 is worth a look and "
        "0.25 calls for action. Kolmogorov-Smirnov: the largest gap between cumulative shares. A limit is higher "
        "where symbols move together or a feature changes slowly, because chance alone then explains more; without a "
        "limit there are too few bars to tell.",
    )
    page.figures(
        [
            ("Members apart", f"×{format_value(drift.dispersion)}", "dispersion, over that of the walk-forward"),
            ("Drawdown", format_value(drift.drawdown, "%"), "the deepest at the desk"),
            ("On the walk-forward", format_value(drift.expected_drawdown, "%"), "the deepest drawdown there"),
        ]
    )


def _incidents(page: Page, record: Record) -> None:
    page.section("Incidents")
    if not record.incidents:
        page.text("None: no refusal, no halt, no reset, no rejected or lost order, no restart.")
        return
    kinds = [incident.kind for incident in record.incidents]
    page.text("; ".join(f"{kind}: {kinds.count(kind):,}" for kind in dict.fromkeys(kinds)) + ".")
    shown = record.incidents[-SHOWN:]
    page.table(
        "What happened",
        {
            "Written at": [incident.at[:19].replace("T", " ") for incident in shown],
            "Bar": [incident.close[:16].replace("T", " ") for incident in shown],
            "Kind": [incident.kind for incident in shown],
            "What": [incident.text for incident in shown],
        },
        note=f"The last {SHOWN} of {len(kinds):,}; times are UTC." if len(kinds) > SHOWN else "Times are UTC.",
    )


def _wealth(found: Comparison) -> dict[str, np.ndarray]:
    return {LIVE: found.live, BACKTEST: found.backtest, EQUAL: found.equal_weight}


def _returns(wealth: np.ndarray) -> np.ndarray:  # [T] -> [T - 1]
    return wealth[1:] / wealth[:-1] - 1.0


def _rounded(values: np.ndarray | list[float]) -> np.ndarray:
    return np.round(np.asarray(values, dtype=np.float64), 2) + 0.0  # no minus before zero


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{format_value(value, '%')}"


def _bp(value: float) -> str:
    return format_value(float(_rounded([value * BP])[0]), "bp")


def _apart(value: float) -> str:
    if abs(value) * BP < SEEN:
        return "within a hundredth of a basis point of"
    return f"{_bp(abs(value))} {'above' if value > 0 else 'below'}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}\u00a0ms" if seconds < 10 else f"{seconds:,.0f}\u00a0s"
