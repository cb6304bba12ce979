# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.shipshape.deploy.plugins.filter.stack_table import stack_table

SERVICES = {
    "worker": {"state": "restarting", "containers": [{"name": "shop-worker-1"}, {"name": "shop-worker-2"}]},
    "db": {"state": "running", "containers": [{"name": "shop-db-1"}]},
}
DRIFT = {
    "service": "worker",
    "container": "shop-worker-1",
    "kind": "definition",
    "field": "image",
    "wanted": "shop:2",
    "found": "shop:1",
    "action": "recreate",
}


def test_a_line_for_each_service_then_every_difference():
    assert stack_table({"services": SERVICES, "drift": [DRIFT], "findings": []}) == [
        "SERVICE  STATE       CONTAINERS  DRIFT",
        "db       running     1           none",
        "worker   restarting  2           1",
        "drift: shop-worker-1: image is shop:1, wanted shop:2",
    ]


@pytest.mark.parametrize(
    ("found", "wanted", "text"),
    [
        ("***", "***", "differs"),
        (["sleep", "1"], None, 'is ["sleep", "1"], wanted nothing'),
        ("", "running", "is nothing, wanted running"),
        (True, 1, "is true, wanted 1"),
    ],
)
def test_values_are_shown_as_in_a_compose_file(found, wanted, text):
    drift = {**DRIFT, "found": found, "wanted": wanted}
    assert stack_table({"services": SERVICES, "drift": [drift]})[-1] == f"drift: shop-worker-1: image {text}"


def test_a_difference_without_container_is_named_after_its_service():
    assert stack_table({"services": SERVICES, "drift": [{**DRIFT, "container": None}]})[-1].startswith("drift: worker:")


def test_findings_follow():
    finding = {"severity": "critical", "subject": "worker", "code": "x", "message": "restarts.", "remedy": "Read it."}
    assert stack_table({"services": SERVICES, "findings": [finding]})[-1] == "critical: worker: restarts. Read it."


def test_refuses_what_is_no_result():
    with pytest.raises(AnsibleFilterError, match="stack_info"):
        stack_table({})
