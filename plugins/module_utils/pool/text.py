# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status text that applications print. Pure."""

from __future__ import annotations

from .judge import Partition
from .model import ALLOCATABLE, EXPIRED, LEASED

HEAD = "=== Visitor Pool Status ==="


def status_text(part: Partition) -> str:
    """What `create_visitor_pool --status` prints, its blank line included."""
    counts = part.counts
    return (
        f"\n{HEAD}\nTotal slots: {part.total}\nAllocated: {counts[LEASED]}\n"
        f"Free: {counts[ALLOCATABLE]}\nExpired: {counts[EXPIRED]}\n"
    )
