# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a database is: what an operator's own URL says, and what of a container's."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.database import reach
from ansible_collections.shipshape.deploy.plugins.module_utils.database.login import keywords
from ansible_collections.shipshape.deploy.plugins.module_utils.database.url import parse

URL = "postgresql://app:secret@db.example.org/app"
FILES = {"sslrootcert": "/etc/ssl/ca.pem", "sslcert": "/etc/ssl/me.pem", "sslkey": "/etc/ssl/me.key"}


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full", "not-a-mode"])
def test_tls_is_as_an_operator_says(mode: str) -> None:
    words = "&".join(f"{name}={value}" for name, value in {**FILES, "sslmode": mode}.items())
    found, _spoken = reach.given(f"{URL}?{words}&channel_binding=require")
    assert found["sslmode"] == mode
    assert {name: found[name] for name in FILES} == FILES
    assert found["channel_binding"] == "require"
    assert (found["host"], found["hostaddr"]) == ("db.example.org", "")


def test_what_is_not_said_is_as_ever() -> None:
    found, spoken = reach.given(URL)
    assert (found["sslmode"], found["sslrootcert"], found["gssencmode"]) == ("prefer", "", "disable")
    assert "secret" not in spoken


def test_files_that_a_container_has_are_not_here() -> None:
    url = parse(f"{URL}?sslmode=verify-full&sslrootcert=/ca.pem").url
    assert url is not None
    found = keywords(url, "192.0.2.1")
    assert (found["sslmode"], found["sslrootcert"]) == ("require", "")
