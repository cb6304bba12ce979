# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference of finding codes (docs/docsite/rst/findings.rst) names exactly the codes that the sources can report.

What the collector (collector.py) cannot follow fails the test, so that no code slips through because it was written in
a new way.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.shipshape.deploy.tests.unit.collector import Collector

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/docsite/rst/findings.rst"
# How a code is documented: ``code`` : severities : modules
ENTRY = re.compile(r"^``(?P<code>[^`]+)`` : (?P<severities>.+) : (?P<modules>.+)$")
# Words of the reference for several modules at once.
GROUPS = {"engine modules"}


def documented() -> list[re.Match[str]]:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(ENTRY.match, lines) if entry]


@pytest.fixture(scope="module")
def reported() -> Collector:
    return Collector(ROOT / "plugins")


def test_every_code_can_be_followed_to_where_it_is_written(reported: Collector) -> None:
    assert reported.unfollowed == set()
    assert len(reported.codes) > 150


def test_codes_are_kebab_case(reported: Collector) -> None:
    assert [code for code in reported.codes if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)] == []


def test_exactly_the_codes_that_can_be_reported_are_documented(reported: Collector) -> None:
    told = {entry["code"] for entry in documented()}
    missing = {code: sorted(places) for code, places in reported.codes.items() if code not in told}
    assert missing == {}, "not in the reference"
    assert told - set(reported.codes) == set(), "in the reference, and nothing reports it any more"


def test_each_code_is_documented_once_with_severities_modules_and_what_to_do() -> None:
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")} | GROUPS
    text = REFERENCE.read_text(encoding="utf-8")
    codes = [entry["code"] for entry in documented()]
    assert sorted(codes) == sorted(set(codes))
    for entry in documented():
        assert set(entry["severities"].split(", ")) <= {"critical", "warning", "info"}, entry["code"]
        assert set(entry["modules"].split(", ")) <= modules, entry["code"]
        body = re.split(r"\n(?=\S)", text.partition(f"\n{entry[0]}\n")[2], maxsplit=1)[0]
        assert re.search(r"\A    \S.*\.\s+\*Next:\*\s.*\.\s*\Z", body, re.DOTALL), entry["code"]


def test_codes_stand_in_order_below_each_heading() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for part in re.split(r"\n-{5,}\n", text):
        codes = [entry["code"] for entry in map(ENTRY.match, part.splitlines()) if entry]
        assert codes == sorted(codes)


@pytest.mark.parametrize("module", ["preflight", "script"])
def test_the_codes_that_a_module_lists_itself_are_among_them(module: str) -> None:
    tree = ast.parse((ROOT / f"plugins/modules/{module}.py").read_text(encoding="utf-8"))
    text = next(
        str(node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION"
    )
    document = yaml.safe_load(text)
    said = " ".join([*document["description"], *document.get("notes", ())])
    codes = set(re.findall(r"V\(([a-z]+(?:-[a-z]+)+)\)", said))
    assert codes
    assert codes - {entry["code"] for entry in documented()} == set()
