"""Measure, write bench.json, then show it: the table as bench.md and on the terminal, the plot as bench.svg.
Exits with 1 if something could not be measured; a missed target is a result."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import signal
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench import Absent, Failure
from bench.render import FAILED, LEFT_OUT, render
from bench.rows import ROWS

OUT = Path(__file__).resolve().parents[2] / "target" / "bench"
QUICK = {
    "runs": 1,
    "patience": 0.0,
    "volumes": 16,
    "size": (160, 160, 48),
    "whole_size": (160, 160, 48),
    "sample_size": (160, 160, 48),
    "studies": 2000,
}
DATA = "bench.json"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one run on small data: a smoke test")
    add("--rows", action="append", metavar="GLOB", help="only these rows, such as 'cold/*'; may be repeated")
    add("--out", type=Path, default=OUT, metavar="DIR", help="folder for the results (default: target/bench)")
    add("--keep", action="store_true", help="leave the data sets in the temporary folder")
    add("--list", action="store_true", help="print the names of the rows")
    add("--render", type=Path, metavar="JSON", help="show results that were measured before")
    add("--runs", type=int, metavar="N", help="runs of each variant, at least; quick ones have more")
    add("--volumes", type=int, metavar="N", help="volumes of each data set, at least 8")
    add("--size", type=int, nargs=3, metavar=("H", "W", "D"), help="their shape")
    add("--studies", type=int, metavar="N", help="tiny volumes of the scan")
    add("--base", type=Path, default=Path(), help=argparse.SUPPRESS)  # these three are set by bench.sh
    add("--program", type=Path, help=argparse.SUPPRESS)
    add("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.volumes is not None and given.volumes < 8:
        parser.error("--volumes: eight readers need eight shards")
    if min(given.runs or 1, given.studies or 1, *(given.size or [1])) < 1:
        parser.error("--runs, --studies and --size must be positive")
    for name in ("out", "render", "program", "work"):
        if (path := getattr(given, name)) is not None:
            setattr(given, name, given.base / path)
    return given


def settings_of(given: argparse.Namespace) -> Any:
    """What was asked for, over the defaults."""
    from bench.lab import Settings

    asked = {name: value for name in QUICK if (value := getattr(given, name, None)) is not None}
    return Settings(**{**(QUICK if given.quick else {}), **asked})


def measure(given: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Run the experiments that the rows need. The JSON is written after each of them: a run that is stopped keeps what
    it has."""
    from bench.experiments import EXPERIMENTS
    from bench.lab import Lab, say
    from bench.machine import describe

    settings = settings_of(given)
    free = shutil.disk_usage(given.work).free
    if free < settings.disk_bytes():
        sys.exit(
            f"bench: {given.work} has {free / 2**30:.1f} GiB free; {settings.disk_bytes() / 2**30:.1f} GiB are needed"
        )
    program = given.work / "ctwds-fs"  # a copy: a build meanwhile must not change what is measured
    shutil.copy(given.program, program)
    begin = time.monotonic()
    results: dict[str, Any] = {
        "rows": names,
        "machine": describe(program, given.work),
        "settings": dataclasses.asdict(settings) | {"quick": given.quick, "disk_bytes": settings.disk_bytes()},
        "seconds": 0.0,
        "experiments": {},
    }
    needed = list(dict.fromkeys(row.experiment for row in ROWS if row.name in names))
    lab = Lab(program, given.work, settings)
    for number, name in enumerate(needed, start=1):
        say(f"{number} of {len(needed)}: {name}")
        since = time.monotonic()
        try:
            outcome: dict[str, Any] = {"samples": EXPERIMENTS[name](lab)}
        except Absent as absent:
            outcome = {"absent": str(absent)}
            say(f"  {LEFT_OUT}: {absent}")
        except Failure as failure:
            outcome = {"error": str(failure)}
            say(f"  {FAILED}: {failure}")
        results["experiments"][name] = outcome | {"seconds": time.monotonic() - since}
        results["seconds"] = time.monotonic() - begin
        write(given.out / DATA, json.dumps(results, indent=1))
    return results


def write(path: Path, content: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)


def show(results: dict[str, Any], out: Path) -> None:
    """The table and the plot."""
    from bench.plot import plot

    table, picture = render(results), plot(results)
    write(out / "bench.md", table)
    if picture is not None:
        write(out / "bench.svg", picture)
    print("\n" + table)
    print(f"written to {out}: {DATA}, bench.md" + (", bench.svg" if picture else ""))


def main() -> None:
    """Measure, or show again what was measured."""
    given = parse_arguments(sys.argv[1:])
    names = [row.name for row in ROWS if any(fnmatchcase(row.name, glob) for glob in given.rows or ["*"])]
    if given.list:
        print("\n".join(names))
        return
    if not names:
        sys.exit(f"bench: no row is called {' or '.join(given.rows)}; see --list")
    if given.render:
        results = json.loads(given.render.read_text(encoding="utf-8"))
        results["rows"] = [name for name in results["rows"] if name in names]
        show(results, given.render.parent)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that mounts and readers are ended
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        results = measure(given, names)
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    show(results, given.out)
    sys.exit(any("error" in found for found in results["experiments"].values()))


if __name__ == "__main__":
    main()
