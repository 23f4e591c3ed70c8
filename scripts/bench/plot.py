"""Throughput by readers as an SVG, written by hand: a plotting library would be the largest thing to install."""

from __future__ import annotations

import math
import statistics
from html import escape
from typing import Any

READERS = (1, 2, 4)
COMPRESSIONS = ("deflated", "stored")
SERIES = {
    "files": ("materialised files, page-cache hot", "#555555", -8),
    "mount": ("mount, cold", "#0a6e4f", -8),
    "mount, page cache": ("mount, cold, page cache on", "#6cb894", 17),
    "np.load": ("np.load of the NPZ", "#c2410c", 17),
}  # name, colour, and how far below its point a figure stands
PANEL, HEIGHT, LEFT, TOP, GAP = 300, 300, 70, 60, 60  # pixels


def throughput(results: dict[str, Any], compression: str) -> dict[str, dict[int, float]]:
    """MB/s of float16 voxels by variant and number of readers; what was not measured is left out."""
    height, width, depth = results["settings"]["size"]
    total = height * width * depth * 2 * results["settings"]["volumes"] / 1e6
    found: dict[str, dict[int, float]] = {}
    for readers in READERS:
        samples = results["experiments"].get(f"cold {compression} {readers}", {}).get("samples", {})
        for name, runs in samples.items():
            found.setdefault(name, {})[readers] = total / statistics.median(run["wall"] for run in runs)
    return found


class Panel:
    """One chart: readers to the right, throughput upwards on a logarithmic scale."""

    def __init__(self, left: float, ticks: list[int]) -> None:
        self.left, self.ticks = left, ticks
        self.low, self.high = math.log10(ticks[0]), math.log10(ticks[-1])

    def x(self, readers: int) -> float:
        """Where a number of readers lies."""
        return self.left + PANEL * (READERS.index(readers) + 0.5) / len(READERS)

    def y(self, rate: float) -> float:
        """Where a throughput lies."""
        return TOP + HEIGHT * (self.high - math.log10(rate)) / (self.high - self.low)

    def frame(self, title: str) -> list[str]:
        """Title, axes and grid."""
        right, bottom = self.left + PANEL, TOP + HEIGHT
        parts = [text(self.left + PANEL / 2, TOP - 12, title, "middle", bold=True)]
        for tick in self.ticks:
            y = self.y(tick)
            shade = "#bbbbbb" if str(tick)[0] == "1" else "#e5e5e5"
            parts.append(f'<path d="M{self.left} {y:.1f}H{right}" stroke="{shade}"/>')
            parts.append(text(self.left - 6, y + 4, f"{tick:,}", "end"))
        parts.append(f'<path d="M{self.left} {TOP}V{bottom}" stroke="#555555"/>')
        parts += [text(self.x(readers), bottom + 18, str(readers), "middle") for readers in READERS]
        parts.append(text(self.left + PANEL / 2, bottom + 36, "readers", "middle"))
        return parts

    def line(self, rates: dict[int, float], color: str, below: int) -> list[str]:
        """One series, each point with its figure."""
        points = [(self.x(readers), self.y(rate), rate) for readers, rate in rates.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts = [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>']
        for x, y, rate in points:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>')
            parts.append(text(x, y + below, f"{rate:,.0f}", "middle", color))
        return parts


def text(x: float, y: float, words: str, anchor: str, color: str = "#222222", bold: bool = False) -> str:
    """A piece of text."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{weight}>{escape(words)}</text>'


def ticks_around(rates: list[float]) -> list[int]:
    """1, 2 and 5 times powers of ten, from below the least to above the most, with room for the figures."""
    steps = [factor * 10**power for power in range(9) for factor in (1, 2, 5)]
    low = max([step for step in steps if step < min(rates) / 1.5], default=1)
    high = min([step for step in steps if step > max(rates) * 1.3], default=steps[-1])
    return [step for step in steps if low <= step <= high]


def plot(results: dict[str, Any]) -> str | None:
    """The SVG, or nothing if nothing of it was measured."""
    charts = {how: found for how in COMPRESSIONS if (found := throughput(results, how))}
    rates = [rate for found in charts.values() for series in found.values() for rate in series.values()]
    if not rates:
        return None
    ticks = ticks_around(rates)
    width = LEFT + len(charts) * (PANEL + GAP)
    legend = TOP + HEIGHT + 64
    height = legend + 20 * len(SERIES) + 26
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(12, 24, "Throughput by readers, MB/s of float16 voxels (logarithmic)", "start", bold=True),
    ]
    for number, (how, found) in enumerate(charts.items()):
        panel = Panel(LEFT + number * (PANEL + GAP), ticks)
        parts += panel.frame(f"{how} NPZ")
        for name, (_, color, below) in SERIES.items():
            parts += panel.line(found.get(name, {}), color, below)
    for number, (label, color, _) in enumerate(SERIES.values()):
        y = legend + 20 * number
        parts.append(f'<path d="M{LEFT} {y - 4}h24" stroke="{color}" stroke-width="3"/>')
        parts.append(text(LEFT + 32, y, label, "start"))
    machine = results["machine"]
    about = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}"
    parts.append(text(LEFT, height - 12, about, "start", "#777777"))
    return "\n".join([*parts, "</svg>", ""])
