# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role tells the truth about itself: its argument specs, its defaults and its README name the same variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(path.parent.parent for path in (Path(__file__).parents[3] / "roles").glob("*/meta/main.yml"))
by_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of all entry points; an option that two share must be the same in both."""
    merged: dict[str, dict[str, Any]] = {}
    for name, entry in load(role / "meta/argument_specs.yml")["argument_specs"].items():
        for option, spec in entry.get("options", {}).items():
            assert merged.setdefault(option, spec) == spec, f"{option} differs between entry points, see {name}"
    return merged


def test_there_are_roles():
    assert {role.name for role in ROLES} >= {"tree", "scripts", "stack", "verify"}


@by_role
def test_defaults_are_the_documented_ones(role):
    defaults = load(role / "defaults/main.yml")
    documented = {name: spec["default"] for name, spec in options(role).items() if "default" in spec}
    assert documented == defaults


@by_role
def test_every_option_is_prefixed_and_described(role):
    for name, spec in options(role).items():
        assert name.startswith(f"{role.name}_")
        assert spec.get("description"), name
        assert spec.get("type"), name


@by_role
def test_the_readme_names_every_option(role):
    text = (role / "README.md").read_text(encoding="utf-8")
    assert [name for name in options(role) if f"`{name}`" not in text] == []


@by_role
def test_no_dependencies(role):
    assert load(role / "meta/main.yml").get("dependencies", []) == []
