# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tables about plans share: a project, what it was before, and a plan as lines."""

from __future__ import annotations

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import Wishes, plan
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    needs,
    project,
    seen,
)

P = project()
OLD = project({"web": {"command": ["old"]}})
LEFT = "left by an interrupted run"


def planned(wanted, look, **wishes):
    return plan(wanted, look, {}, Wishes(**wishes))


def said(wanted, *containers, wishes=None, **look):
    """The announced plan, each action as one line: `recreate p-web-1`."""
    found = planned(wanted, seen(*containers, **look), **(wishes or {}))
    return [f"{action} {target}" for action, target, _ in found.announced()]


def reasons(wanted, *containers, wishes=None, **look):
    return {target: why for _, target, why in planned(wanted, seen(*containers, **look), **(wishes or {})).announced()}


def web(number, made_from, **state):
    return container(f"p-web-{number}", made_from=made_from, **state)


def app(**dependency):
    """db, and web that depends on it."""
    return project({"db": {}, "web": {"depends_on": needs("db", **dependency)}})


def db(made_from=None, **state):
    return container("p-db-1", made_from=made_from, service="db", **state)


def changed(wanted):
    """`wanted` with another definition of db, as an earlier deploy might have left it."""
    entries = {name: dict(entry) for name, entry in wanted.document["services"].items()}
    return project({**entries, "db": {**entries["db"], "command": ["old"]}})


RESTART = app(restart=True)

TWO = project({"web": {"scale": 2}})
