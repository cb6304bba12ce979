# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is the odd one out: every combination of what file, Compose and container say and what the database accepts."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.database.address import Address
from ansible_collections.shipshape.deploy.plugins.module_utils.database.login import (
    MISSING,
    OK,
    REFUSED,
    UNREACHABLE,
    UNTRIED,
    Login,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.database.verdict import (
    Facts,
    Reading,
    difference,
    judge,
    verdict,
)


def url(password: str) -> str:
    return f"postgresql://app:{password}@db/app"


# file (None: it decides), compose, container, what the server accepts, codes, words of the first finding
TABLE = [
    (None, "a", "a", "a", [], ""),
    (None, "a", None, "a", [], ""),
    (None, "a", "b", "a", ["container-stale"], "in password"),
    (None, "a", "b", "b", ["login-refused", "container-stale"], ".env is the odd one out"),
    (None, "a", "a", "b", ["login-refused"], "the database is the odd one out"),
    (None, "a", "b", "c", ["login-refused", "container-stale"], "container web-1 says as well"),
    ("b", "a", "a", "a", ["file-differs"], "file is the odd one out"),
    ("b", "a", "a", "b", ["login-refused", "file-differs"], ".env is the odd one out"),
    ("b", "a", "b", "b", ["login-refused", "file-differs", "container-stale"], "knows what file and container web-1"),
    ("b", "a", "b", "a", ["file-differs", "container-stale"], "wins over file"),
    ("b", "a", "c", "d", ["login-refused", "file-differs", "container-stale"], "refuses what file and container"),
]


@pytest.mark.parametrize(("file", "compose", "container", "right", "codes", "words"), TABLE)
def test_the_odd_one_out(
    file: str | None, compose: str, container: str | None, right: str, codes: list[str], words: str
) -> None:
    logins = {url(word): Login(OK) if word == right else Login(REFUSED, "28P01", "no") for word in "abcd"}
    facts = Facts(
        "web",
        "DATABASE_URL",
        Reading(".env", url(compose)),
        Reading("file", url(file)) if file else None,
        (Reading("container web-1", url(container)),) if container else (),
        logins,
        Address("172.18.0.2", container="db-1", service="db"),
    )
    found = judge(facts)
    assert [at.code for at in found] == codes
    assert verdict(found) == (codes[0] if codes else "ok")
    assert not found or words in found[0].message
    assert all(at.remedy for at in found)


@pytest.mark.parametrize(
    ("login", "server", "code", "severity"),
    [
        (Login(MISSING, "3D000", "none"), Address("1.2.3.4"), "database-missing", "critical"),
        (Login(UNREACHABLE, "", "no"), Address("1.2.3.4"), "unreachable", "critical"),
        (Login(UNREACHABLE, "57P03", "starting up"), Address("1.2.3.4", container="db-1"), "unreachable", "warning"),
        (Login(UNREACHABLE), Address(why="service db has no container yet", coming=True), "unreachable", "info"),
        (Login(UNTRIED, "login-not-tried", "x"), Address(), "login-not-tried", "info"),
        (Login(UNTRIED, "login-library-missing", "x"), Address(), "login-library-missing", "warning"),
        (Login(OK, asked=False), Address("1.2.3.4"), "password-not-asked", "warning"),
    ],
)
def test_other_ends_of_a_login(login: Login, server: Address, code: str, severity: str) -> None:
    facts = Facts("web", "DATABASE_URL", Reading(".env", url("a")), None, (), {url("a"): login}, server)
    [found] = judge(facts)
    assert (found.code, found.severity) == (code, severity)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (url("a"), url("b"), "password"),
        (url("a"), url("a") + "x", "database name"),
        (url("a"), "postgres://you:b@there:1/app", "user, password, host, port"),
        (url("a%62"), url("ab"), "spelling only (they mean the same)"),
        (url("a"), "", "everything: one of them is empty or not set"),
        ("x", "y", "their value"),
    ],
)
def test_differences_without_values(one: str, other: str, words: str) -> None:
    assert difference(one, other) == words
