# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the comparisons: collects `rows()` of every bench_*.py beside this file, prints a table and writes JSON.

    tests/bench/run.py [--json PATH] [NAME ...]      NAME: script, tree, ... (all by default)

A row compares us with a peer in the same minute on the same machine: {work, peer, ours_s, peer_s, ratio, bound, ok}.
The exit code is 1 when a bound is missed or a comparison cannot be made.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLUMNS = ("work", "peer", "ours_s", "peer_s", "ratio", "bound", "ok")


def cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as columns of equal width; numbers to the right."""
    cells = [list(COLUMNS), *([cell(row.get(name)) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(COLUMNS))]
    numbers = {COLUMNS.index(name) for name in ("ours_s", "peer_s", "ratio")}
    lines = [
        "  ".join(
            text.rjust(width) if index in numbers else text.ljust(width)
            for index, (text, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def collect(names: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in sorted(HERE.glob("bench_*.py")):
        name = path.stem.removeprefix("bench_")
        if names and name not in names:
            continue
        started = time.monotonic()
        try:
            spec = importlib.util.spec_from_file_location(f"tests.bench.{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            rows += [{"bench": name, **row} for row in module.rows()]
        except Exception:  # one comparison that breaks must not hide the others
            traceback.print_exc()
            broken.append(name)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return rows, broken


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare with the peers.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path, default=ROOT / ".cache/bench.json")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / ".tree")]
    os.chdir(ROOT)
    rows, broken = collect(arguments.names)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
    arguments.json.write_text(json.dumps({"machine": machine, "rows": rows, "broken": broken}, indent=2) + "\n")
    print(table(rows))
    missed = [row["work"] for row in rows if not row["ok"]]
    if missed or broken:
        print(f"\nbound missed: {', '.join(missed) or 'none'}; could not be run: {', '.join(broken) or 'none'}")
    return 1 if missed or broken or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
