# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role tells the truth about itself: its argument specs, its defaults and its README name the same variables."""

from __future__ import annotations

import re
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
    specs = options(role)
    documented = {name: spec["default"] for name, spec in specs.items() if "default" in spec}
    told = {name for name in defaults.keys() - documented if taken_from_another(defaults[name], specs[name])}
    assert documented == {name: value for name, value in defaults.items() if name not in told}


def taken_from_another(default: Any, spec: dict[str, Any]) -> bool:
    """Whether the description says where the default comes from: a template fits no number and no dictionary, and a
    default that does not fit its type is no documentation to antsibull-docs."""
    other = re.match(r"\{\{ (\w+) \|", str(default))
    text = " ".join(
        " ".join([spec["description"]] if isinstance(spec["description"], str) else spec["description"]).split()
    )
    of_text = spec["type"] == "str" or spec.get("elements") == "str"
    return other is not None and not of_text and f"By default C({other[1]})" in text


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
