# SPDX-License-Identifier: GPL-3.0-or-later
"""What each kind of task does. A handler calls `tick` every second of its work: it renews the lease, or stops it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from django.conf import settings

from .models import Task

Tick = Callable[[], None]


class UnusableError(Exception):
    """What was asked for cannot be done; the message is for whoever asked."""


@dataclass(frozen=True)
class Outcome:
    result: str
    artifact: str = ""


def checksum(task: Task, _tick: Tick) -> Outcome:
    return Outcome(hashlib.sha256(task.payload.encode()).hexdigest())


def countdown(task: Task, tick: Tick) -> Outcome:
    seconds = int(task.payload)
    for _ in range(seconds):
        tick()
        time.sleep(1)
    return Outcome(f"counted to {seconds}")


def chart(task: Task, _tick: Tick) -> Outcome:
    words = Counter(re.findall(r"[^\W\d_]{3,}", task.payload.lower()))
    top = words.most_common(8)
    if not top:
        raise UnusableError("the text has no word of three letters or more")
    artifact = f"charts/{task.pk}.svg"
    write_whole(settings.MEDIA_ROOT / artifact, svg_bars(top))
    return Outcome(f"{sum(words.values())} words, most often “{top[0][0]}”", artifact)


def svg_bars(counts: list[tuple[str, int]]) -> str:
    longest, row = max(count for _, count in counts), 26
    bars = "".join(
        f'<text x="112" y="{row * index + 18}" text-anchor="end">{escape(word[:14])}</text>'
        f'<rect x="122" y="{row * index + 5}" width="{max(4, 220 * count // longest)}" height="17" rx="4"/>'
        f'<text x="{130 + max(4, 220 * count // longest)}" y="{row * index + 18}" class="n">{count}</text>'
        for index, (word, count) in enumerate(counts)
    )
    style = "text{font:13px system-ui,sans-serif;fill:#334155}.n{fill:#64748b}rect{fill:#0f766e}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="{row * len(counts) + 10}" role="img">'
        f"<style>{style}</style>{bars}</svg>\n"
    )


def write_whole(path: Path, text: str) -> None:
    """A reader finds no file or a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False) as new:
        new.write(text)
        os.fchmod(new.fileno(), 0o644)
    os.replace(new.name, path)


HANDLERS: dict[str, Callable[[Task, Tick], Outcome]] = {
    Task.Kind.CHART: chart,
    Task.Kind.CHECKSUM: checksum,
    Task.Kind.COUNTDOWN: countdown,
}
