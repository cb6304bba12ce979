# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.aftermath import Traces
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    project,
    seen,
)

LATER = "2026-11-23T07:00:00.000000000Z"
WEB = container()


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ([WEB], False),
        ([], True),
        ([WEB, container("p-web-2")], True),
        ([container("p-web-2")], True),
        ([container(status="exited")], True),
        ([container(StartedAt=LATER)], True),
        # A crash loop goes on by itself.
        ([container(StartedAt=LATER, restarts=1)], False),
        ([container(status="restarting", restarts=1)], False),
    ],
)
def test_containers(now, changed):
    assert Traces(tuple(now)).differ_from(Traces((WEB,))) is changed


def test_a_name_that_changed():
    renamed = container("p-web-1.shipshape-old")
    object.__setattr__(renamed, "id", WEB.id)
    assert Traces((renamed,)).differ_from(Traces((WEB,)))


def test_networks_and_volumes_of_the_project_alone():
    wanted = project(networks={"default": {"name": "p_default"}}, volumes={"data": {"name": "p_data"}})
    before = Traces.of(seen(WEB, networks={"other": {}}), wanted)
    assert not Traces.of(seen(WEB, networks={"another": {}}), wanted).differ_from(before)
    assert Traces.of(seen(WEB, networks={"p_default": {}}), wanted).differ_from(before)
    assert Traces.of(seen(WEB, volumes={"p_data": {}}), wanted).differ_from(before)
