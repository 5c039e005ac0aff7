"""What a training shows while it runs: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import math
import sys
import time

from tqdm import tqdm

from podracer.training import Progress

LINES = 10  # of a whole training, where there is no terminal
FORMAT = "{desc} {percentage:3.0f}%|{bar}| {rate_fmt} {remaining} left{postfix}"  # fits 80 columns


class Bar:
    """Samples per second, the reward over a year, the loss, the Sharpe ratio on validation, the time left."""

    def __init__(self, name: str, samples: int, total: int, bars_per_year: float) -> None:
        self.name, self.first, self.bars_per_year = name, samples, bars_per_year
        self.began, self.shown = time.monotonic(), samples * LINES // total
        self.line = tqdm(
            total=total,
            initial=min(samples, total),
            desc=name,
            unit="",
            unit_scale=True,
            bar_format=FORMAT,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=None,  # where there is no terminal
        )

    def show(self, progress: Progress) -> None:
        if not self.line.disable:
            self.line.set_postfix_str(", ".join(self._figures(progress)), refresh=False)
            self.line.update(min(progress.samples, progress.total) - self.line.n)  # the last rollout may go beyond
            return
        if progress.samples * LINES // progress.total > self.shown:
            self.shown = progress.samples * LINES // progress.total
            rate = (progress.samples - self.first) / (time.monotonic() - self.began)
            left = tqdm.format_interval(max(0, progress.total - progress.samples) / rate)
            parts = [f"{progress.samples:,} of {progress.total:,} samples", f"{rate:,.0f}/s", f"{left} left"]
            print(f"{self.name}: {', '.join([*parts, *self._figures(progress)])}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.line.refresh()
        self.line.close()

    def _figures(self, progress: Progress) -> list[str]:
        figures = [f"reward {100.0 * progress.reward * self.bars_per_year:+.1f}%/y"]
        if progress.losses:  # `direct` has no critic: it climbs its gain
            loss = progress.losses.get("critic", -progress.losses["actor"])
            figures.append(f"loss {loss:.2g}")
        if not math.isnan(progress.validation):
            figures.append(f"Sharpe {progress.validation:.2f}")
        return figures
