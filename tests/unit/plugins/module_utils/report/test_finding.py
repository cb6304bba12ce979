# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import (
    CRITICAL,
    Action,
    Finding,
    ShipshapeError,
    failure,
)


@pytest.mark.parametrize(
    ("message", "remedy", "sentence"),
    [
        ("it is down", "Start it", "web: it is down. Start it."),
        ("it is down.", "Start it.", "web: it is down. Start it."),
        ("it is down", "", "web: it is down."),
    ],
)
def test_a_finding_as_one_line(message, remedy, sentence):
    assert Finding(CRITICAL, "web", "down", message, remedy).sentence() == sentence


def test_findings_and_actions_as_data():
    assert Finding("info", "web", "code", "message").as_dict() == {
        "severity": "info",
        "subject": "web",
        "code": "code",
        "message": "message",
        "remedy": "",
    }
    assert Action("start", "p-web-1", "why", 1.23456).as_dict() == {
        "action": "start",
        "target": "p-web-1",
        "reason": "why",
        "seconds": 1.235,
    }


def test_an_error_says_all_that_went_wrong_in_one_line():
    one, two = (Finding(CRITICAL, name, "down", "it is down", "Start it") for name in ("web", "db"))
    error = ShipshapeError(one, two, logs={"p-web-1": ("last", "lines")})
    assert str(error) == "web: it is down. Start it. db: it is down. Start it."
    assert error.findings == (one, two)
    assert error.logs == {"p-web-1": ["last", "lines"]}


def test_an_error_of_very_many_findings_says_the_first_and_how_many_more():
    findings = [Finding(CRITICAL, f"visitor-{number:03d}", "down", "no space left") for number in range(1, 33)]
    error = ShipshapeError(*findings)
    assert str(error).startswith("visitor-001: no space left. visitor-002: no space left. ")
    assert str(error).endswith(" visitor-010: no space left. 22 more are in `findings`.")
    assert error.findings == tuple(findings)


def test_the_usual_error():
    error = failure("web", "down", "it is down", "Start it")
    assert error.findings == (Finding(CRITICAL, "web", "down", "it is down", "Start it"),)
    assert error.logs == {}
