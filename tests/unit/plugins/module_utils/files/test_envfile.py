# SPDX-License-Identifier: GPL-3.0-or-later
"""Quoting rules as tables; that Compose agrees is shown in tests/integration/test_tree_env.py."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.envfile import (
    HEADER,
    differences,
    is_rendered,
    quote,
    render,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("", ""),
        ("plain-1.2/x:y@z", "plain-1.2/x:y@z"),
        ("a b", "'a b'"),
        ("$HOME #x", "'$HOME #x'"),
        ("it's", '"it\'s"'),
        ("c:\\x", '"c:\\\\x"'),
        ("a\nb\r\t", '"a\\nb\\r\\t"'),
        ("$'", '"\\$\'"'),
        ('"', "'\"'"),
        ("'\"", '"\'\\""'),
        ("é", "'é'"),
    ],
)
def test_quote(value: str, quoted: str) -> None:
    assert quote(value) == quoted


def test_render_is_sorted_and_knows_kinds() -> None:
    content = render(".env", {"B": True, "A": 1, "C": False, "D": ""})
    assert content == (HEADER + "A=1\nB=true\nC=false\nD=\n").encode()
    assert is_rendered(content)
    assert render(".env", {"D": "", "C": False, "A": 1, "B": True}) == content


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"A": None}, "env-value-missing"),
        ({"A": 3.10}, "env-value-ambiguous"),
        ({"A": ["s3cret"]}, "env-value-not-text"),
        ({"A": {"s3cret": 1}}, "env-value-not-text"),
        ({"A": "s3cret\0"}, "env-value-not-text"),
        ({"A": "s3cret\udcff"}, "env-value-not-text"),
        ({"1A": "s3cret"}, "env-name-invalid"),
        ({"A B": "s3cret"}, "env-name-invalid"),
        ({"A\n": "s3cret"}, "env-name-invalid"),
        ({"": "s3cret"}, "env-name-invalid"),
        ({True: "s3cret"}, "env-name-invalid"),
    ],
)
def test_refused_without_showing_the_value(variables: dict[Any, Any], code: str) -> None:
    with pytest.raises(ShipshapeError) as caught:
        render(".env", variables)
    assert [finding.code for finding in caught.value.findings] == [code]
    assert "s3cret" not in str(caught.value)
    assert ".env" in str(caught.value)


def test_differences_show_names_only() -> None:
    before = render("x", {"KEPT": "s3cret", "GONE": "s3cret", "OTHER": "s3cret\u2028NOT=a name"})
    after = render("x", {"KEPT": "s3cret", "NEW": "s3cret", "OTHER": "s3cret2"})
    old, new = differences(before, after)
    assert old == "GONE=<old value>\nKEPT=<unchanged>\nOTHER=<old value>\n"
    assert new == "KEPT=<unchanged>\nNEW=<new value>\nOTHER=<new value>\n"
