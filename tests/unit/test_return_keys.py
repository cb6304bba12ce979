# SPDX-License-Identifier: GPL-3.0-or-later
"""A password may well be `server` or `value`: masking must not touch the names of what a module returns."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.shipshape.deploy.plugins.module_utils.report.masking import CONTRACT

MODULES = sorted((Path(__file__).parents[2] / "plugins" / "modules").glob("*.py"))


def returned(module: Path) -> dict[str, Any]:
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "RETURN":
            assert isinstance(node.value, ast.Constant)
            return dict(yaml.safe_load(str(node.value.value)) or {})
    return {}


def keys(described: Mapping[str, Any]) -> Iterator[str]:
    """The names in a RETURN block, and those of samples where `contains` does not go on."""
    for name, entry in described.items():
        yield name
        yield from keys(entry.get("contains") or {})
        samples = entry.get("sample")
        for sample in samples if isinstance(samples, list) else [samples]:
            if entry["type"] in ("dict", "list") and isinstance(sample, dict) and "contains" not in entry:
                yield from sample


def ours(name: str) -> bool:
    """Names of services, files and containers are the user's own."""
    return name.isidentifier() and name not in ("web", "db", "proxy")


@pytest.mark.parametrize("module", MODULES, ids=lambda at: at.stem)
def test_every_key_that_a_module_returns_is_left_alone(module: Path) -> None:
    described = returned(module)
    assert described
    assert {name for name in keys(described) if ours(name)} - CONTRACT == set()
