# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.look import BakedState
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.order import Order
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.proof import (
    not_running,
    remaining,
    stale_files,
)
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    BEGUN,
    container,
    needs,
    project,
    seen,
)

OLD = project({"web": {"command": ["old"]}})
JOB = project({"web": {}, "app": {"depends_on": needs("web", condition="service_completed_successfully")}})
SERVER = project({"web": {"ports": [{"target": 80}]}})
NOW = 1795413600.0 + 5  # five seconds after BEGUN


@pytest.mark.parametrize(
    ("wanted", "state", "order", "down"),
    [
        (project(), {}, {}, None),
        (project(), {"health": "healthy"}, {}, None),
        (project(), {"health": "starting"}, {}, None),
        (project(), {"health": "unhealthy"}, {}, "is unhealthy now"),
        (project(), {"status": "exited", "code": 1}, {}, "is exited (1) now"),
        (project(), {"status": "restarting"}, {}, "is restarting now"),
        (project(), {"status": "paused"}, {}, "is paused now"),
        (project(), {"status": "dead"}, {}, "is dead now"),
        (project(), {"restarts": 2}, {}, "is flapping now"),
        (project(), {"restarts": 2}, {"restarts_allowed": 2}, None),
        (project(), {"status": "exited", "code": 1}, {"optional_services": ("web",)}, None),
        (project({"other": {}}), {"status": "exited", "code": 1}, {}, None),
        # What has done its work, also where nothing could be left in it to remember that by (a read-only root).
        (JOB, {"status": "exited", "code": 0}, {}, None),
        (project(), {"status": "exited", "code": 0}, {}, None),
        (SERVER, {"status": "exited", "code": 0}, {}, "is exited (0) now"),
        (project(), {"status": "exited", "code": 0, "restart": "always"}, {}, "is exited (0) now"),
    ],
)
def test_what_is_down_at_the_end(wanted, state, order, down):
    at = container(**state)
    found = not_running(wanted, seen(), seen(at, taken=NOW), Order(**order))
    assert [(entry, finding.severity, finding.subject, finding.code) for entry, finding in found] == (
        [(at, "critical", "web", "service-not-running")] if down else []
    )
    assert down is None or down in found[0][1].message


@pytest.mark.parametrize(("earlier", "down"), [(2, False), (1, True), (None, True)])
def test_a_restart_from_before_the_run_has_been_watched(earlier, down):
    """It is restarted no more: the watcher has seen to that."""
    before = [] if earlier is None else [container(restarts=earlier)]
    found = not_running(project(), seen(*before), seen(container(restarts=2), taken=NOW), Order())
    assert bool(found) == down


def test_the_time_that_the_table_counts_from():
    assert BEGUN.startswith("2026-11-23T06:00:00")
    assert container().started == NOW - 5


def test_what_still_differs_after_a_deploy_is_told():
    wanted = project({"web": {}})
    assert remaining(wanted, seen(container(made_from=wanted))) == []
    # A state is not for ever, and what plain Compose made is not ours to judge without its hash.
    assert remaining(wanted, seen(container(made_from=wanted, status="restarting"), container("p-web-2"))) == []
    (finding,) = remaining(wanted, seen(container(made_from=OLD), container("p-gone-1", service="gone")))
    assert (finding.severity, finding.subject, finding.code) == ("warning", "web", "drift-remains")
    assert "p-web-1 was put right, and yet command removed" in finding.message


def test_a_file_that_is_stale_after_a_deploy_is_critical():
    at = container()
    look = seen(at, baked={at.id: (BakedState("/app/x.py", "1", "2"), BakedState("/app/y.py", "1", "1"))})
    (finding,) = stale_files(project(), at, look)
    assert (finding.severity, finding.code) == ("critical", "baked-file-stale")
    assert "p-web-1 still has another /app/x.py" in finding.message
    assert stale_files(project({"other": {}}), at, look) == []
