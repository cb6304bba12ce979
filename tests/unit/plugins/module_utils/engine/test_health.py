# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.health import vacuous


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "/bin/true",
        "/usr/bin/true",
        ":",
        "exit 0",
        "exit",
        "echo",
        "echo ok",
        "curl -f http://localhost/ || exit 0",
        "curl -f http://localhost/ || true",
        "curl -f http://localhost/ || :",
        "true;",
        'python3 -c "import sys; sys.exit(0)"',
        "python -c pass",
        "node -e 'process.exit(0)'",
    ],
)
def test_what_passes_whatever_happens(command):
    for test in (["CMD-SHELL", command], ["CMD", "sh", "-c", command], ["CMD", "/bin/bash", "-c", command]):
        assert vacuous({"test": test}), test


@pytest.mark.parametrize(
    "command",
    [
        "curl -f http://localhost/",
        "curl -f http://localhost/ || exit 1",
        "curl -f http://localhost/ || false",
        "pg_isready -U app",
        "true && curl -f http://localhost/",
        "true; curl -f http://localhost/",
        "exit 1",
        "false",
        "test -f /ready",
        "echo ruok | nc localhost 2181 | grep imok",
        "echo looking && curl -f http://localhost/",
        "echo looking; curl -f http://localhost/",
        "truefalse",
        "/srv/true-check",
        "curl -f http://localhost/ || true && test -f /ready",
        'python3 -c "import app; app.check()"',
    ],
)
def test_what_can_fail(command):
    assert not vacuous({"test": ["CMD-SHELL", command]})
    assert not vacuous({"test": ["CMD", "sh", "-c", command]})


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({}, False),
        ({"test": None}, False),
        ({"test": ["NONE"]}, False),
        ({"test": ["CMD", "true"], "disable": True}, False),
        ({"test": ["CMD", "true"]}, True),
        ({"test": ["CMD", "/bin/true"]}, True),
        ({"test": ["CMD", "curl", "-f", "http://localhost/"]}, False),
        ({"test": ["CMD", "exit", "0"], "interval": "5s"}, True),
    ],
)
def test_forms(check, expected):
    assert vacuous(check) is expected
