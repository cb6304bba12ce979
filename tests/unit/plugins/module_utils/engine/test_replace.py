# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import Step
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.replace import Hands, batches, replace_all
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.successor import Place, Successor
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import container, project


@pytest.mark.parametrize(
    ("number", "size", "groups"),
    [(0, 0, []), (0, 2, []), (1, 0, [1]), (3, 0, [3]), (3, 1, [1, 1, 1]), (5, 2, [2, 2, 1]), (2, 9, [2])],
)
def test_batches(number, size, groups):
    steps = [Step("create", f"p-web-{at}", "why") for at in range(number)]
    found = batches(steps, size)
    assert [len(group) for group in found] == groups
    assert [step for group in found for step in group] == steps


class Story:
    """Hands that only write down what they do; containers in `failing` do not stand."""

    def __init__(self, steps, failing=()):
        self.told, self.report, self._failing = [], Report(), failing
        self.successors = {
            step.target: Successor(f"new {step.target}", "web", Place(1, step.target), "") for step in steps
        }

    def start(self, _service, step):
        self.told.append(f"start new {step.target}")
        return step.target

    def until_stable(self, _service, watched):
        self.told.append(f"watch {' '.join(watched)}".strip())
        for target in watched:
            if target in self._failing:
                raise failure(target, "container-exited", "it exited", "Mend it")

    def hands(self):
        return Hands(self, self.report, self.successors, self.start, self.until_stable)

    # What of Lifecycle is needed.
    def stop(self, old):
        if old is not None:
            self.told.append(f"stop {old.name}")

    def rename(self, container_id, name):
        self.told.append(f"rename {container_id} to {name}")

    def remove(self, old, *, stop=False):
        self.told.append(f"remove {old.name}")

    def discard(self, container_id):
        self.told.append(f"discard {container_id}")

    def revive(self, old):
        self.told.append(f"revive {old.name}")

    def restore(self, old, name):
        self.told.append(f"restore {name}")


def steps(*numbers, create=()):
    replaced = [Step("recreate", f"p-web-{at}", "why", container(f"p-web-{at}")) for at in numbers]
    return [*replaced, *(Step("create", f"p-web-{at}", "why") for at in create)]


def told(todo, *, failing=(), rollback=True, **update):
    """The story of replacing `todo`, and what was reported as done."""
    service = project({"web": {"deploy": {"update_config": update}}}).services["web"]
    story = Story(todo, failing)
    try:
        replace_all(service, todo, story.hands(), others=(), rollback=rollback, started=lambda watched: None)
    except Exception as error:  # whatever it is, it is part of the story
        story.told.append(f"failed: {type(error).__name__}")
    return story.told, [f"{entry.action} {entry.target}" for entry in story.report.actions]


# Before it starts: the engine keeps for good the name that a container is started with.
HANDED_OVER = ["rename id of p-web-1 to p-web-1.shipshape-old", "rename new p-web-1 to p-web-1"]


def test_the_old_one_stops_first_and_goes_last():
    assert told(steps(1)) == (
        ["stop p-web-1", *HANDED_OVER, "start new p-web-1", "watch p-web-1", "remove p-web-1"],
        ["recreate p-web-1"],
    )


def test_the_new_one_starts_first_where_the_file_says_so():
    assert told(steps(1), order="start-first") == (
        [*HANDED_OVER, "start new p-web-1", "watch p-web-1", "stop p-web-1", "remove p-web-1"],
        ["recreate p-web-1"],
    )


def test_what_is_merely_created_replaces_nothing():
    assert told(steps(create=[1])) == (["start new p-web-1", "watch p-web-1"], ["create p-web-1"])


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_new_one_that_does_not_stand_goes_and_the_old_one_runs_again(order):
    story, done = told(steps(1), failing=["p-web-1"], order=order)
    assert story[-3:] == ["discard new p-web-1", "restore p-web-1", "failed: ShipshapeError"]
    # Start-first it serves again, whatever had become of it, before its replacement goes.
    assert ("revive p-web-1" in story[:-3]) is (order == "start-first")
    assert not any(line.startswith("remove") for line in story)
    assert done == ["rollback p-web-1"]


@pytest.mark.parametrize(
    ("rollback", "action", "first_is_put_back", "third_is_tried"),
    [
        (True, "rollback", True, False),
        (False, "rollback", False, False),
        (True, "pause", False, False),
        (True, "continue", False, True),
    ],
)
def test_what_a_failure_in_the_second_batch_means(rollback, action, first_is_put_back, third_is_tried):
    story, _ = told(steps(1, 2, 3), failing=["p-web-2"], rollback=rollback, parallelism=1, failure_action=action)
    assert ("restore p-web-1" in story) is first_is_put_back
    assert ("remove p-web-1" in story) is not first_is_put_back
    assert "restore p-web-2" in story
    assert "remove p-web-2" not in story
    assert ("start new p-web-3" in story) is third_is_tried
    assert ("remove p-web-3" in story) is third_is_tried
    assert ("discard new p-web-3" in story) is not third_is_tried, "what was made for the third is of no use any more"
    assert "restore p-web-3" not in story
    assert story[-1] == "failed: ShipshapeError"


def test_no_old_one_is_removed_before_all_new_ones_stand():
    story, _ = told(steps(1, 2, 3), parallelism=1)
    removed = [number for number, line in enumerate(story) if line.startswith("remove")]
    watched = [number for number, line in enumerate(story) if line.startswith("watch")]
    assert len(removed) == len(watched) == 3
    assert min(removed) > max(watched)
