"""The table, from the JSON with the raw samples: Markdown, aligned so that it can be read as it is."""

from __future__ import annotations

from typing import Any

from bench.row import SPEED, Row
from bench.rows import ROWS, measured, reached

HEADER = ["row", "measured", "against", "ratio, median [min–max]", "target", "", "medians"]
NOTES = """\
Ratios of interleaved runs, each run of one variant against the same run of the other. A speed (≥) is the other's time
over ours, a cost (≤) ours over the other's. "Cold" is a fresh mount, of which nothing is decoded or cached; the source
files are in the page cache, for both sides alike, so that software is measured and not the disk. A data set of real
size is larger than memory: the cold rows have a cache for half of the volumes and the kernel's page cache turned off,
as the mount itself would decide; those with the page cache on stand beside them and do not count."""
FAILED, LEFT_OUT = "failed", "left out"


def amount(row: Row, value: float, volumes: int) -> str:
    """A median in its unit; CPU time is that of one sample."""
    if row.field == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if row.field == "cpu":
        return f"{value / volumes:.3f} s a sample"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def verdict(row: Row, ratio: float) -> str:
    """PASS or not; in brackets where it does not count."""
    passed = reached(row, ratio)
    if passed is None:
        return ""
    word = "PASS" if passed else "below" if row.kind == SPEED else "above"
    return f"({word})" if row.beside else word


def line(row: Row, experiment: dict[str, Any], volumes: int) -> list[str]:
    """The cells of a row."""
    cells = [row.name, row.path, row.against]
    sign = "≥" if row.kind == SPEED else "≤"
    target = f"{sign} {row.target:g} ×" if row.target is not None else ""
    if "samples" not in experiment:
        return [*cells, "", target, FAILED if "error" in experiment else LEFT_OUT, ""]
    found = measured(row, experiment["samples"])
    digits = 2 if found.most >= 0.2 else 3
    ratio, least, most = (f"{value:.{digits}f}" for value in (found.ratio, found.least, found.most))
    medians = f"{amount(row, found.ours, volumes)} : {amount(row, found.theirs, volumes)}"
    return [*cells, f"{ratio} × [{least}–{most}]", target, verdict(row, found.ratio), medians]


def aligned(lines: list[list[str]]) -> str:
    """A Markdown table whose columns are aligned."""
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(lines[0]))]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in lines
    ]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(rows)


def about(results: dict[str, Any]) -> str:
    """The machine and the data."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    text = (
        f"{machine['date']}, {machine['program']}, commit {machine['commit']}\n"
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"Linux {machine['kernel']}, {machine['file_system']}; {versions}\n"
        f"{settings['volumes']} volumes of {' × '.join(map(str, settings['size']))} float32, "
        f"{settings['studies']} tiny ones; at least {settings['runs']} runs; {results['seconds']:.0f} s in all"
    )
    if machine["load_before"] > 0.5:
        text += f"\nThe machine was busy when this began (load {machine['load_before']:.1f}): the ratios may be off."
    if machine["memory_bytes"] < settings["disk_bytes"]:
        text += "\nThe memory does not hold the data sets: the disk was measured as well."
    if settings["quick"]:
        text += "\nA smoke test on small data: the figures mean nothing."
    return text


def render(results: dict[str, Any]) -> str:
    """The whole report."""
    experiments, volumes = results["experiments"], results["settings"]["volumes"]
    wanted = [row for row in ROWS if row.name in results["rows"] and row.experiment in experiments]
    lines = [line(row, experiments[row.experiment], volumes) for row in wanted]
    counted = [cells[5] for row, cells in zip(wanted, lines, strict=True) if row.target is not None and not row.beside]
    counted = [word for word in counted if word != LEFT_OUT]
    parts = [about(results), aligned([HEADER, *lines]), NOTES]
    parts.append(f"{counted.count('PASS')} of {len(counted)} targets reached.")
    for key in ("error", "absent"):
        parts += [f"{name}: {found[key]}" for name, found in experiments.items() if key in found]
    return "\n\n".join(parts) + "\n"
