# SPDX-License-Identifier: GPL-3.0-or-later
"""What Compose really said (recorded_compose.yml), and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.compose_words import explained, lines, warnings

RECORDED = yaml.safe_load(Path(__file__).with_name("recorded_compose.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("code", "told", "words"),
    [
        pytest.param(case.get("code"), case["told"], words, id=f"{case['what']}-{number}")
        for case in RECORDED
        for number, words in enumerate(case["said"])
    ],
)
def test_recorded_errors(code, told, words):
    error = explained("/srv/su/compose.yml", ["config"], "", words)
    (finding,) = error.findings
    assert (finding.severity, finding.subject) == ("critical", "/srv/su/compose.yml")
    assert told in finding.message
    assert finding.code == (code or finding.code)
    assert finding.remedy
    assert "\n" not in str(error)
    assert "hunter2" not in str(error) + str(error.logs), "Compose quotes values; we must not"


@pytest.mark.parametrize(("verb", "doing"), [("build", "building"), ("pull", "pulling"), ("create", "creating")])
def test_the_output_before_the_decisive_line_is_the_log(verb, doing):
    error = explained("s", ["-f", "-", verb, "web"], "", "step 1\nstep 2\nfailed to solve: exit code: 3\n")
    assert error.logs == {f"docker compose {verb}": ["step 1", "step 2", "failed to solve: exit code: 3"]}
    assert error.findings[0].message == f"{doing}: failed to solve: exit code: 3"


def test_standard_output_is_read_when_standard_error_is_silent():
    assert "no such service: x" in str(explained("s", ["config"], "no such service: x\n", ""))


WARNED = 'time="2026-11-23T06:40:30Z" level=warning msg="{}"\n'


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        ("", []),
        (
            WARNED.format(r"The \"TAG\" variable is not set. Defaulting to a blank string."),
            [("variable-unset", "the variable TAG is not set, and an empty text stands in its place")],
        ),
        (
            WARNED.format(r"The \"A\" variable is not set.") * 2 + WARNED.format(r"The \"B\" variable is not set."),
            [
                ("variable-unset", "the variable A is not set, and an empty text stands in its place"),
                ("variable-unset", "the variable B is not set, and an empty text stands in its place"),
            ],
        ),
        (
            WARNED.format(
                "/srv/su/compose.yml: the attribute `version` is obsolete, it will be ignored, please remove it"
            ),
            [],
        ),
        (
            WARNED.format("secrets `uid`, `gid` and `mode` are not supported, they will be ignored"),
            [("compose-warning", "secrets `uid`, `gid` and `mode` are not supported, they will be ignored")],
        ),
        (
            WARNED.format("secret file su-rec_x does not exist"),
            [("compose-warning", "secret file su-rec_x does not exist")],
        ),
        ("WARN[0000] something odd\n", [("compose-warning", "something odd")]),
        (" Container su-web-1  Creating\n", []),
    ],
)
def test_recorded_warnings(err, expected):
    found = warnings(err, "/srv/su/compose.yml")
    assert [(at.code, at.message) for at in found] == expected
    assert {(at.severity, at.subject) for at in found} <= {("warning", "/srv/su/compose.yml")}


def test_warnings_are_not_taken_for_the_error():
    text = WARNED.format(r"The \"TAG\" variable is not set.") + "no such service: nosuch\n"
    assert lines(text) == (['The "TAG" variable is not set.'], ["no such service: nosuch"])
    assert explained("s", ["config"], "", text).findings[0].code == "service-unknown"


def test_a_logged_error_is_an_error():
    text = 'time="2026-11-23T06:40:30Z" level=fatal msg="no such service: nosuch"\n'
    assert lines(text) == ([], ["no such service: nosuch"])


def test_line_ends_and_quotes_in_a_logged_text():
    # logrus writes the text as a Go string.
    (text,), _ = lines(WARNED.format(r"first \"a\\b\"\nsecond\tx"))
    assert text.split() == ["first", '"a\\b"', "second", "x"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("failed to solve: failed to copy files: write /x: no space left on device", "disk-full"),
        (
            'failed to solve: process "/bin/sh -c curl a" did not complete successfully: exit code: 6: no such host',
            "build-failed",
        ),
        (
            "failed to solve: a/b: failed to resolve source metadata for a/b:1: dial tcp: lookup a: no such host",
            "registry-unreachable",
        ),
        ("Error response from daemon: toomanyrequests: You have reached your pull rate limit", "registry-rate-limited"),
        ("Error response from daemon: invalid reference format", "image-name-invalid"),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "engine-permission-denied",
        ),
    ],
)
def test_the_cause_and_not_where_it_happened(said, code):
    assert explained("s", ["up"], "", said + "\n").findings[0].code == code
