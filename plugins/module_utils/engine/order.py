# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for: the options of module `stack` that are not about which project."""

from __future__ import annotations

from dataclasses import dataclass, field

from .look import Wanted


@dataclass(frozen=True)
class Order:
    """What is to become of the project. Times in seconds."""

    pull: str = "policy"
    build: str = "auto"
    build_services: tuple[str, ...] = ()  # whose image is known to be stale
    recreate: str = "auto"
    remove_orphans: bool = False
    remove_volumes: bool = False
    stability: float = 10.0
    wait_timeout: float = 300.0
    restarts_allowed: int = 0
    rollback: bool = True
    optional_services: tuple[str, ...] = ()
    protected_services: tuple[str, ...] = ()
    allow_protected: tuple[str, ...] = ()
    wanted: Wanted = field(default_factory=Wanted)
    check: bool = False
