# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What module `visitor_pool_info` does with a pool: it looks, and remembers only whether there was an alert."""

from __future__ import annotations

import os

from ..engine import memory
from ..report.finding import WARNING, Finding
from .data_root import told_of
from .judge import FAILED, REMEDIES, SCHEMA, partition
from .model import STATES
from .opening import Opened
from .sight import tell
from .sizing import alert, alert_finding, recommended, utilisation


def look(opened: Opened, *, remember: bool) -> None:
    """Module `visitor_pool_info`."""
    options, report = opened.wish.options, opened.wish.report
    problems = opened.look_only()
    report.add(*opened.differences)
    size = recommended(options["visitors_per_day"], options["session_hours"], options["conversion"])
    report.values["recommended_size"] = size
    if problems:
        counts = dict.fromkeys(("total", *STATES), 0)
        report.values["slots"] = {**counts, "wanted": opened.wish.settings.size, "absent": 0}
        report.values.update(health=FAILED, cause=SCHEMA, remedy=REMEDIES[SCHEMA], status_text="", utilisation=0.0)
        report.values["alert"] = {"active": False, "raised": False, "cleared": False}
        return
    pool = opened.sight()
    with told_of(pool.root.path):
        seen = pool.look()
        unfinished = pool.root.unfinished()
    what, remedy = (
        "a transfer of its project was begun and not finished",
        "Run it or state: present again; either heals it",
    )
    names = [seen.settings.name(number) for number in unfinished]
    tell(report, seen, [Finding(WARNING, name, "transfer-unfinished", what, remedy) for name in names])
    part = partition(seen)
    report.values["utilisation"] = utilisation(part)
    path = memory.place("pool-", os.path.realpath(pool.root.path), folder=options["state_dir"] or "")
    before = memory.read(path)
    now = alert(part, isinstance(before, dict) and bool(before.get("alert")))
    report.values["alert"] = {"active": now.active, "raised": now.raised, "cleared": now.cleared}
    if now.active:
        report.add(alert_finding(part))
    if remember and (now.raised or now.cleared) and not memory.write(path, {"alert": now.active}):
        what = "cannot be written, so an alert will be raised again"
        report.add(Finding(WARNING, path, "alert-not-kept", what, "Mend option `state_dir`, or make room there"))
