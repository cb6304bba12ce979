# SPDX-License-Identifier: GPL-3.0-or-later
"""The collector of finding codes itself (collector.py): what it finds, and what it says that it cannot."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from ansible_collections.shipshape.deploy.tests.unit.collector import Collector

FINDING = """
    @dataclass
    class Finding:
        severity: str
        subject: str
        code: str
        message: str

    def failure(subject, code, message):
        return ShipshapeError(Finding(CRITICAL, subject, code, message))
"""
HEAD = "from ..report.finding import Finding, failure\n"


def collected(tmp_path: Path, **files: str) -> Collector:
    """What is found in modules `area/NAME.py` with these texts."""
    (tmp_path / "report").mkdir()
    (tmp_path / "area").mkdir()
    (tmp_path / "report/finding.py").write_text(dedent(FINDING))
    for name, text in files.items():
        (tmp_path / f"area/{name}.py").write_text(HEAD + dedent(text))
    return Collector(tmp_path)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param("Finding(INFO, 's', 'in-place', '')", {"in-place"}, id="in its place"),
        pytest.param("Finding(INFO, 's', message='', code='by-name')", {"by-name"}, id="by keyword"),
        pytest.param("raise failure('s', 'raised', '')", {"raised"}, id="a failure"),
        pytest.param("replace(finding, code='put-in')", {"put-in"}, id="replaced"),
        pytest.param("failure('s', 'one' if x else 'two', '')", {"one", "two"}, id="either"),
        pytest.param("code = 'kept'\nfailure('s', code, '')", {"kept"}, id="a variable"),
        pytest.param("failure('s', finding.code, '')\nfailure('s', all[0].code, '')", set(), id="handed on"),
        pytest.param(
            "if now.status in ('dead', 'gone'):\n    failure('s', f'is-{now.status}', '')",
            {"is-dead", "is-gone"},
            id="a guarded f-string",
        ),
        pytest.param(
            "def make(kind):\n    for name in work(kind):\n        failure(name, f'{kind}-in-use', '')\n"
            "make('volume')\nmake(kind='network')",
            {"volume-in-use", "network-in-use"},
            id="an f-string with an argument",
        ),
        pytest.param(
            "def make():\n    for kind, n in at.items():\n        how = {'net': 1, 'vol': 2}[kind]\n"
            "        failure(n, f'{kind}-new', how)",
            {"net-new", "vol-new"},
            id="a key of a table",
        ),
        pytest.param(
            "class A:\n    def _note(self, severity, code):\n        Finding(severity, self.s, code, '')\n"
            "    def b(self):\n        self._note(INFO, 'method')\n"
            "def c(a):\n    a._note(INFO, 'from-outside')",
            {"method", "from-outside"},
            id="a method",
        ),
        pytest.param(
            "KNOWN = ((r'a', 'first', 'x'), (r'b', 'second', 'x'))\n"
            "def classified(said):\n    for pattern, code, how in KNOWN:\n        if pattern in said:\n"
            "            return code, how\n    return 'neither', ''\n"
            "def tell(said):\n    code, how = classified(said)\n    failure('s', code, how)",
            {"first", "second", "neither"},
            id="a classifier",
        ),
        pytest.param(
            "KNOWN = {1: ('known', 'x'), 2: ('known-too', 'y')}\n"
            "def tell(error):\n    other = ('unknown', 'z')\n    code, how = KNOWN.get(error, other)\n"
            "    failure('s', code, how)",
            {"known", "known-too", "unknown"},
            id="a table with something else",
        ),
        pytest.param(
            "def tell(notes):\n    table = {'a': (INFO, 'from-a', ''), 'b': (INFO, 'from-b', '')}\n"
            "    return [Finding(table[note][0], 's', *table[note][1:]) for note in notes]",
            {"from-a", "from-b"},
            id="the rest of a row",
        ),
        pytest.param(
            "CODES = {'a': 'looked-up', 'b': 'looked-up-too'}\ndef tell(kind):\n    failure('s', CODES[kind], '')",
            {"looked-up", "looked-up-too"},
            id="a value of a table",
        ),
        pytest.param(
            "def tell():\n    for code, n in (('empty', 1), ('full', 2)):\n        failure(n, code, '')",
            {"empty", "full"},
            id="a loop",
        ),
        pytest.param(
            "@dataclass\nclass Verdict:\n    outcome: str\n    code: str = ''\n"
            "Verdict(BAD, 'verdict')\nVerdict(GOOD)\nFinding(INFO, 's', said.code, '')",
            {"verdict"},
            id="another class with a code",
        ),
        pytest.param(
            "@dataclass\nclass Login:\n    outcome: str\n    code: str = ''\n"
            "Login(UNTRIED, 'not-tried')\nLogin(REFUSED, error.sqlstate)",
            {"not-tried"},
            id="what a server says is no code of ours",
        ),
    ],
)
def test_codes_are_found(text: str, codes: set[str], tmp_path: Path) -> None:
    found = collected(tmp_path, one=text)
    assert (set(found.codes), found.unfollowed) == (codes, set())


def test_codes_are_followed_from_file_to_file(tmp_path: Path) -> None:
    found = collected(
        tmp_path,
        words="def seen(severity, code):\n    return Finding(severity, 's', code, '')\n"
        "def two():\n    return 'through-a-return', ''\n",
        one="from .words import seen, two\nfrom . import words\nseen(INFO, 'imported')\nwords.seen(INFO, 'by-module')\n"
        "def f():\n    code, how = two()\n    failure('s', code, how)\n",
        # Another thing of the same name.
        two="def seen(a, b):\n    return a\nseen('x', 'no-code')\n",
    )
    assert set(found.codes) == {"imported", "by-module", "through-a-return"}
    assert found.codes["imported"] == {"area.one:4"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("failure('s', made_up(), '')", id="a call"),
        pytest.param("failure('s', f'container-{now.status}', '')", id="an unguarded f-string"),
        pytest.param("for code in codes():\n    failure('s', code, '')", id="an unknown loop"),
        pytest.param("failure('s', nowhere, '')", id="an unknown name"),
        pytest.param("failure('s', codes()[kind], '')", id="an unknown table"),
    ],
)
def test_what_cannot_be_followed_is_named(text: str, tmp_path: Path) -> None:
    found = collected(tmp_path, one=text)
    assert [entry.partition(":")[0] for entry in found.unfollowed] == ["area.one"]
    assert not found.codes
