# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces the containers of one service, and puts everything back when the new ones do not stand.

`deploy.update_config` says how: in what order, how many at a time, and what a failure means. An old container is
retired (another name, stopped), and stays until the whole service has been replaced and proven.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..report.finding import ShipshapeError
from ..report.result import Report
from .drift import RECREATE
from .lifecycle import Lifecycle
from .model import Service
from .plan import Step
from .successor import Successor, retired_name
from .watch import Watched

_AT_ONCE = 8
T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class Hands:
    """What replacing needs from outside: how to start a new container, and how to watch started ones to the end."""

    life: Lifecycle
    report: Report
    successors: Mapping[str, Successor]  # by final name
    start: Callable[[Service, Step], Watched]
    until_stable: Callable[[Service, Sequence[Watched]], None]


def batches(steps: Sequence[Step], size: int) -> list[Sequence[Step]]:
    """`steps` in groups of `size`; all in one where it is 0. Pure."""
    size = size or max(1, len(steps))
    return [steps[at : at + size] for at in range(0, len(steps), size)]


def replace_all(
    service: Service,
    steps: Sequence[Step],
    hands: Hands,
    *,
    others: Sequence[Watched],
    rollback: bool,
    started: Callable[[Sequence[Watched]], None],
) -> None:
    """Carries out the steps that bring a new container. `others` (containers merely started) are watched with the first
    batch; `started` is told once the first ones run. Raises ShipshapeError when one does not stand."""
    done: list[Step] = []
    errors: list[ShipshapeError] = []
    update = service.update
    groups = batches(steps, update.parallelism) or [()]
    for number, group in enumerate(groups):
        if number and update.delay:
            time.sleep(update.delay)
        try:
            _replace(service, group, hands, others if number == 0 else (), started, begun=time.monotonic())
            done += group
        except ShipshapeError as error:
            errors.append(error)
            if update.failure_action != "continue":
                _give_up([step for later in groups[number + 1 :] for step in later], hands)
                break
    if errors and rollback and update.failure_action == "rollback":
        _put_back(service, done, hands)
    else:
        _settle(done, hands)
    if errors:
        raise errors[0]


def _replace(
    service: Service,
    steps: Sequence[Step],
    hands: Hands,
    others: Sequence[Watched],
    started: Callable[[Sequence[Watched]], None],
    begun: float,
) -> None:
    stop_first = service.update.order != "start-first"
    old = [step.container for step in steps if step.action == RECREATE]
    try:
        if stop_first:
            _side_by_side(hands.life.stop, old)
        for step in steps:
            _hand_over(step, hands)
        watched = [*others, *_side_by_side(lambda step: hands.start(service, step), steps)]
        started(watched)
        hands.until_stable(service, watched)
        if not stop_first:
            _side_by_side(hands.life.stop, old)
    except BaseException:
        _put_back(service, steps, hands)
        raise
    for step in steps:
        hands.report.done(step.action, step.target, step.reason, time.monotonic() - begun)


def _side_by_side(work: Callable[[T], V], items: Sequence[T]) -> list[V]:
    if len(items) < 2:  # a thread of its own would want a connection of its own, too
        return [work(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as hands:
        return list(hands.map(work, items))


def _hand_over(step: Step, hands: Hands) -> None:
    """The new container gets the name, before it starts: the engine keeps for good those that one is started with."""
    if step.action == RECREATE and step.container is not None:
        hands.life.rename(step.container.id, retired_name(step.target))
        hands.life.rename(hands.successors[step.target].id, step.target)


def _settle(steps: Sequence[Step], hands: Hands) -> None:
    """The new containers stay: the old ones go."""
    for step in steps:
        if step.action == RECREATE:
            # It has been stopped, hooks and all, when its successor took over.
            hands.life.remove(step.container)


def _put_back(service: Service, steps: Sequence[Step], hands: Hands) -> None:
    """The new containers go, and the old ones run again under their own names."""
    for step in steps:
        old = step.container
        if service.update.order == "start-first" and step.action == RECREATE and old is not None:
            with best_effort(hands.report):
                hands.life.revive(old)  # it may have been stopped already, and somebody is to serve at any time
        with best_effort(hands.report):
            hands.life.discard(hands.successors[step.target].id)
        if step.action == RECREATE and old is not None:
            with best_effort(hands.report):
                hands.life.restore(old, old.name)
                hands.report.done("rollback", step.target, "its replacement failed", 0.0)


def _give_up(steps: Sequence[Step], hands: Hands) -> None:
    """New containers whose turn never came go; the old ones have not been touched."""
    for step in steps:
        with best_effort(hands.report):
            hands.life.discard(hands.successors[step.target].id)


@contextmanager
def best_effort(report: Report) -> Iterator[None]:
    """Putting back goes on with the next container when one cannot be put back; that one is named."""
    try:
        yield
    except ShipshapeError as error:
        report.add(*error.findings)
