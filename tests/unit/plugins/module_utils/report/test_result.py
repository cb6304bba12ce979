# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import Finding, failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.masking import Masker
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

SEEN = Finding("warning", "web", "orphan", "it is left")


def test_nothing_done_is_nothing_changed():
    report = Report()
    report.add(SEEN)
    report.values["services"] = {"web": {}}
    assert report.as_dict() == {
        "services": {"web": {}},
        "changed": False,
        "actions": [],
        "findings": [SEEN.as_dict()],
    }


def test_what_is_found_twice_is_told_once_however_much_there_is():
    report = Report()
    many = [Finding("warning", f"visitor-{number}", "workspace-missing", "it is gone") for number in range(10_000)]
    started = time.monotonic()
    report.add(*many, SEEN, SEEN)
    report.add(SEEN, *many)
    assert report.failed(failure("web", "code", "it failed", ""))["findings"][-2]["code"] == "orphan"
    assert report.findings[:-1] == [*many, SEEN]
    assert time.monotonic() - started < 10, "each was compared with all the others"


def test_what_was_done_in_order():
    report = Report()
    report.done("pull", "image a", "it is not there", 2.5)
    with report.doing("start", "p-web-1", "it is exited"):
        time.sleep(0.002)
    report.planned("remove", "p-old-1", "no service of that name")
    result = report.as_dict()
    assert result["changed"]
    assert [entry["target"] for entry in result["actions"]] == ["image a", "p-web-1", "p-old-1"]
    assert result["actions"][0]["seconds"] == 2.5
    assert result["actions"][1]["seconds"] >= 0.002
    assert result["actions"][2]["seconds"] == 0


def test_what_failed_half_way_may_have_changed_something_and_was_not_done():
    report = Report()
    with pytest.raises(ZeroDivisionError), report.doing("start", "p-web-1", "why"):
        raise ZeroDivisionError
    assert report.changed
    assert report.actions == []


@pytest.mark.parametrize("diff", [{"before": "a", "after": "b"}, [{"before": "a", "after": "b"}]])
def test_a_diff_is_there_only_when_there_is_one(diff):
    report = Report()
    assert "diff" not in report.as_dict()
    report.diff = diff
    assert report.as_dict()["diff"] == diff


def test_a_failure_tells_what_was_done_seen_and_said():
    report = Report()
    report.add(SEEN)
    report.done("pull", "image a", "why", 1.0)
    error = failure("web", "down", "it is down", "Start it", logs={"p-web-1": ["last line"]})
    result = report.failed(error)
    assert result["msg"] == "web: it is down. Start it."
    assert result["logs"] == {"p-web-1": ["last line"]}
    assert (result["changed"], len(result["actions"])) == (True, 1)
    assert [entry["code"] for entry in result["findings"]] == ["orphan", "down"]


def test_a_finding_that_was_reported_already_is_not_repeated():
    report = Report()
    error = failure("web", "down", "it is down", "Start it")
    report.add(*error.findings)
    assert len(report.failed(error)["findings"]) == 1


def test_a_finding_that_was_added_already_is_not_repeated():
    report = Report()
    report.add(SEEN, SEEN)
    report.add(SEEN)
    assert report.findings == [SEEN]


def test_what_happened_to_something_that_is_not_critical_is_a_warning_with_its_logs():
    report = Report()
    assert "logs" not in report.as_dict()
    report.warn(failure("web", "down", "it is down", "Start it", logs={"p-web-1": ["last line"]}))
    result = report.as_dict()
    assert [(entry["severity"], entry["code"]) for entry in result["findings"]] == [("warning", "down")]
    assert result["logs"] == {"p-web-1": ["last line"]}
    failed = report.failed(failure("db", "down", "it is down", "Start it", logs={"p-db-1": ["its last line"]}))
    assert set(failed["logs"]) == {"p-web-1", "p-db-1"}


SECRET = "correct-horse"


def test_nothing_leaves_unmasked():
    report = Report()
    report.masker = Masker([SECRET])
    report.values["services"] = {f"a {SECRET}": [SECRET]}
    report.add(Finding("warning", SECRET, "code", f"it said {SECRET}", SECRET))
    report.done("start", SECRET, SECRET, 1.0)
    report.diff = {"before": SECRET, "after": f"x {SECRET}"}
    error = failure(SECRET, "down", f"it said {SECRET}", SECRET, logs={SECRET: [f"password={SECRET}"]})
    assert SECRET not in str(report.as_dict())
    assert SECRET not in str(report.failed(error))


@pytest.mark.parametrize("secret", ["changed", "findings", "actions", "services", "find"])
def test_a_secret_that_is_called_like_a_part_of_the_result_does_not_change_its_shape(secret):
    report = Report()
    report.masker = Masker([secret])
    report.values["services"] = {}
    assert set(report.as_dict()) == {"changed", "findings", "actions", "services"}
    assert set(report.failed(failure("web", "down", "it is down", "Start it"))) >= {"msg", "logs", "changed"}
