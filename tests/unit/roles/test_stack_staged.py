# SPDX-License-Identifier: GPL-3.0-or-later
"""What role `stack` makes of a project that is resolved before its files are in their place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.roles import program

staged = program("stack", "staged.py")


def test_paths_are_those_of_the_real_place_and_the_note_says_so() -> None:
    document = {
        "services": {"web": {"volumes": [{"source": "/tmp/$$1/app/data"}], "environment": {"NOT": "/tmp/app"}}},
        "configs": {"c": {"file": "/tmp/$$1/app/c.conf"}},
    }

    made = staged.in_place(document, of="/opt/a$b", at="/tmp/$1/app", removed=["old$.conf"])

    assert made["x-shipshape-staged"] == {"of": "/opt/a$$b", "at": "/tmp/$$1/app", "removed": ["old$$.conf"]}
    assert made["services"]["web"] == {
        "volumes": [{"source": "/opt/a$$b/data"}],
        "environment": {"NOT": "/tmp/app"},
    }
    assert made["configs"] == {"c": {"file": "/opt/a$$b/c.conf"}}


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ({"there": {"required": False}}, ["there"]),
        ({"absent": {"required": False}}, []),
        ({"absent": {"required": True}}, ["absent"]),  # Compose's own error names it
        ({"absent": {}}, ["absent"]),  # versions that know no optional ones
    ],
)
def test_only_optional_dependencies_on_nothing_are_left_out(terms: dict[str, Any], kept: list[str]) -> None:
    services = {"web": {"image": "i", "depends_on": terms}, "there": {"image": "i"}}

    assert list(staged.without_absent(services)["web"]["depends_on"]) == kept
