# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.shipshape.deploy.plugins.filter.deploy_summary import deploy_summary

START = {"action": "start", "target": "shop-web-1", "reason": "not running", "seconds": 1.26}


def changed(*actions, findings=()):
    return {"changed": bool(actions), "actions": list(actions), "findings": list(findings)}


@pytest.mark.parametrize(
    ("results", "check_mode", "lines"),
    [
        ({}, False, ["Nothing had to be changed."]),
        ({"files": changed(), "containers": changed()}, False, ["Nothing had to be changed."]),
        ({"files": changed()}, True, ["Nothing would change."]),
        ({"containers": changed(START)}, False, ["containers: start shop-web-1 (not running), 1.3 s"]),
        (
            {"containers": changed({**START, "seconds": 0.0, "reason": ""})},
            True,
            ["containers: start shop-web-1"],
        ),
        ({"files": {"skipped": True, "changed": False}, "scripts": ""}, False, ["Nothing had to be changed."]),
    ],
)
def test_lines(results, check_mode, lines):
    assert deploy_summary(results, check_mode) == lines


def test_many_actions_become_a_line_for_each_kind():
    actions = [{"action": "add", "target": f"f{number}", "reason": "new", "seconds": 0.0} for number in range(13)]
    assert deploy_summary({"files": changed(*actions)}) == ["files: add 13: f0, f1, f2 and 10 more"]
    assert len(deploy_summary({"files": changed(*actions[:12])})) == 12


def test_findings_that_need_someone_are_shown():
    warning = {"severity": "warning", "subject": "web", "code": "x", "message": "no healthcheck.", "remedy": "Add one."}
    info = {**warning, "severity": "info"}
    assert deploy_summary({"containers": changed(START, findings=[warning, info])})[1:] == [
        "containers: warning: web: no healthcheck. Add one."
    ]


def test_message_and_remedy_are_two_sentences():
    finding = {"severity": "critical", "subject": "web", "code": "x", "message": "it is down", "remedy": "Start it"}
    assert deploy_summary({"containers": changed(START, findings=[finding])})[1:] == [
        "containers: critical: web: it is down. Start it."
    ]


def test_what_two_steps_have_found_is_said_once():
    vacuous = {"severity": "warning", "subject": "web", "code": "x", "message": "proves nothing", "remedy": ""}
    other = {**vacuous, "subject": "worker"}
    lines = deploy_summary({"before": changed(findings=[vacuous]), "containers": changed(findings=[vacuous, other])})
    assert lines[1:] == ["before: warning: web: proves nothing.", "containers: warning: worker: proves nothing."]


def test_refuses_what_is_no_mapping():
    with pytest.raises(AnsibleFilterError, match="mapping"):
        deploy_summary(["no"])


def test_services_that_mount_what_changed_are_named():
    files = {"added": ["new.conf"], "changed": ["proxy/Caddyfile"], "removed": []}
    mounts = {"proxy": ["proxy/Caddyfile", "new.conf"], "web": ["new.conf"]}
    change = {"action": "change", "target": "proxy/Caddyfile", "reason": "changed in src", "seconds": 0.0}
    assert deploy_summary({"files": {**changed(change), "files": files, "bind_mounts": mounts}}) == [
        "files: change proxy/Caddyfile (changed in src)",
        "files: proxy mounts what changed: proxy/Caddyfile",
    ]
