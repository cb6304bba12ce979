# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.drift import RECREATE, Drift
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.veil import old_secrets, veiled
from ansible_collections.shipshape.deploy.plugins.module_utils.report.masking import Masker
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    project,
    seen,
)

MASKER = Masker(["NewPassword"])


def drift(wanted, found, kind="desired"):
    return Drift("web", "p-web-1", kind, "command", wanted, found, RECREATE)


@pytest.mark.parametrize(
    ("wanted", "found", "shown"),
    [
        # The new password is known, what stood in its place is known to nobody.
        (["serve", "NewPassword"], ["serve", "OldPassword"], (["serve", "***"], ["serve", "***"])),
        (["--pass=NewPassword"], ["--pass=OldPassword"], (["--pass=***"], ["***"])),
        ("admin:NewPassword", "admin:OldPassword", ("admin:***", "***")),
        # Going back: the old one is the one that is known.
        (["serve", "OldPassword"], ["serve", "NewPassword"], (["serve", "***"], ["serve", "***"])),
        (["serve"], ["serve", "NewPassword"], (["serve"], ["serve", "***"])),
        # Everything else stays readable.
        (["serve", "--two"], ["serve", "--one"], (["serve", "--two"], ["serve", "--one"])),
        (["NewPassword", "--two"], ["NewPassword", "--one"], (["NewPassword", "--two"], ["NewPassword", "--one"])),
        ("two", "one", ("two", "one")),
        (None, "NewPassword", (None, "NewPassword")),
    ],
)
def test_what_stands_in_a_secret_s_place_is_a_secret(wanted, found, shown):
    entry = veiled(drift(wanted, found), MASKER)
    assert (entry.wanted, entry.found) == shown


def test_only_definitions_are_veiled():
    entry = drift("NewPassword", "healthy", kind="state")
    assert veiled(entry, MASKER) is entry


def test_the_environment_of_what_is_replaced_tells_old_secrets():
    wanted = project({"web": {}, "db": {}})
    web, same = container(), container("p-db-1", service="db")
    web.raw["Config"]["Env"] = [
        "DB_PASSWORD=OldPassword",
        "URL=redis://:Older@cache",
        "MODE=plain",
        "API_KEY=db",
        "ODD",
    ]
    same.raw["Config"]["Env"] = ["DB_PASSWORD=unchanged"]
    assert old_secrets(wanted, seen(web, same), [drift("a", "b")]) == {"OldPassword", "Older"}
    assert old_secrets(wanted, seen(web, same), []) == set()
