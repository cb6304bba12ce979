# SPDX-License-Identifier: GPL-3.0-or-later
"""Times as applications write them where the database has no type for them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool.sqlite import moment

AT = datetime(2030, 1, 2, 10, 0, tzinfo=timezone.utc)
SAME = [
    "2030-01-02 10:00:00",
    "2030-01-02T10:00:00",
    "2030-01-02 10:00",
    "2030-01-02 10:00:00.000000",
    "2030-01-02 10:00:00.000000000",
    "2030-01-02 10:00:00,000",
    "2030-01-02T10:00:00Z",
    "2030-01-02T10:00:00.000z",
    "2030-01-02T10:00:00+0000",
    "2030-01-02 10:00:00+00",
    "2030-01-02 10:00:00+00:00",
    "2030-01-02 10:00:00 +0000 UTC",
    "2030-01-02 10:00:00.000000000 +0000 UTC m=+86400.000017392",
    "2030-01-02 05:00:00 -0500 EST",
    "2030-01-02 15:30:00+05:30",
    "2030-01-02 10:00:00 UTC",
    " 2030-01-02 10:00:00 GMT\n",
    1893578400,
    1893578400.0,
    "1893578400",
    "1893578400.000",
    1893578400000,
    "1893578400000",
]


@pytest.mark.parametrize("value", SAME)
def test_one_moment_in_many_words(value: Any) -> None:
    assert moment(value) == AT


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2030-01-02", AT - timedelta(hours=10)),
        ("2030-01-02 10:00:00.25", AT + timedelta(milliseconds=250)),
        ("2030-01-02 10:00:00.123456789 +0000 UTC", AT + timedelta(microseconds=123456)),
        (1893578400250, AT + timedelta(milliseconds=250)),
        ("9999-12-31 00:00:00", datetime(9999, 12, 31, tzinfo=timezone.utc)),
        (253402214400, datetime(9999, 12, 31, tzinfo=timezone.utc)),
        (253402214400000, datetime(9999, 12, 31, tzinfo=timezone.utc)),
    ],
)
def test_other_moments(value: Any, found: datetime) -> None:
    assert moment(value) == found


@pytest.mark.parametrize("value", [None, "", " "])
def test_nothing_is_none(value: Any) -> None:
    assert moment(value) is None


WORDS = ["soon", "never", "infinity", "2030-13-01", "2030-01-02 25:00:00", "2030-01-02 10:00:00 EST", "10000-01-01"]
NUMBERS = ["0", 0, -1, 2030, 2461000.5, 20300102, 20300102100000, "20300102100000", 10**18, float("nan"), float("inf")]
OTHERS = [True, b"2030-01-02", "2030-01-02 10:00:00+99:00", "٢٠٣٠-01-02", "1" * 400]


@pytest.mark.parametrize("value", [*WORDS, *NUMBERS, *OTHERS])
def test_what_is_no_time_is_not_taken_for_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match="is no time"):
        moment(value)
