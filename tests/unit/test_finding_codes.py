# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference of finding codes (docs/docsite/rst/findings.rst) names exactly the codes that the sources can report.

The collector below follows every code from where a finding is made back to the text that it is written as. What it
cannot follow fails the test, so that no code slips through because it was written in a new way.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/docsite/rst/findings.rst"
# How a code is documented: ``code`` : severities : modules
ENTRY = re.compile(r"^``(?P<code>[^`]+)`` : (?P<severities>.+) : (?P<modules>.+)$")
# Words of the reference for several modules at once.
GROUPS = {"engine modules"}
# A login's `code` is the server's own word, except where nobody has logged in.
SERVERS_OWN = ("Login", "UNTRIED")
HOLE = "\0"

FunctionDef = (ast.FunctionDef, ast.AsyncFunctionDef)


class UnfollowedError(Exception):
    """An expression whose values cannot be told."""


@dataclass
class Source:
    name: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)  # local name -> (module, name there)

    @classmethod
    def read(cls, path: Path, root: Path) -> Source:
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        at = cls(name, ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(at.tree):
            at.parents.update(dict.fromkeys(ast.iter_child_nodes(node), node))
            if isinstance(node, FunctionDef):
                at.functions[node.name] = node
            elif isinstance(node, ast.ClassDef):
                at.classes[node.name] = node
            elif isinstance(node, ast.ImportFrom):
                above = name.split(".")[: -node.level] if node.level else []
                module = ".".join([*above, *((node.module or "").split(".") if node.module else [])])
                module = module.rpartition("deploy.plugins.")[2]
                at.imports.update({alias.asname or alias.name: (module, alias.name) for alias in node.names})
        return at

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        while node in self.parents:
            node = self.parents[node]
            yield node

    def scopes(self, node: ast.AST) -> list[ast.AST]:
        """The functions around `node`, the nearest first, then the module."""
        return [at for at in (node, *self.above(node)) if isinstance(at, (*FunctionDef, ast.Module))]


@dataclass(frozen=True)
class Sink:
    """A function or class that one of its arguments makes a code: `template` says how."""

    position: int
    keyword: str
    template: str = HOLE


class Collector:
    """All codes that the Python files below `root` can report."""

    def __init__(self, root: Path) -> None:
        paths = sorted(root.rglob("*.py"))
        self.sources = {at.name: at for at in (Source.read(path, root) for path in paths)}
        self.codes: dict[str, set[str]] = {}  # code -> the places that report it
        self.unfollowed: set[str] = set()
        self.sinks: dict[tuple[str, str], set[Sink]] = {}
        for at in self.sources.values():
            for name, node in at.classes.items():
                fields = [entry.target.id for entry in node.body if isinstance(entry, ast.AnnAssign)]
                if "code" in fields:
                    self.sinks[at.name, name] = {Sink(fields.index("code"), "code")}
        calls = [(at, node) for at in self.sources.values() for node in ast.walk(at.tree) if isinstance(node, ast.Call)]
        before = -1
        while before != (before := sum(map(len, self.sinks.values()))):
            for at, call in calls:
                self._look(at, call)

    def _look(self, at: Source, call: ast.Call) -> None:
        called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        sinks = self._sinks(at, call, called)
        if called == "replace" and any(keyword.arg == "code" for keyword in call.keywords):
            sinks = {Sink(99, "code")}
        if called == SERVERS_OWN[0] and getattr(call.args[0], "id", "") != SERVERS_OWN[1]:
            return
        for sink in sinks:
            place = f"{at.name}:{call.lineno}"
            try:
                for text in self._argument(at, call, sink):
                    self._note(at, call, sink.template.replace(HOLE, text), place)
            except UnfollowedError as error:
                self.unfollowed.add(f"{place}: {error}")

    def _sinks(self, at: Source, call: ast.Call, called: str) -> set[Sink]:
        target = call.func.value if isinstance(call.func, ast.Attribute) else None
        if target is None or getattr(target, "id", "") in ("self", "cls"):
            here = called in at.functions or called in at.classes
            return self.sinks.get((at.name, called) if here else at.imports.get(called, ("", "")), set())
        if isinstance(target, ast.Name) and target.id in at.imports:
            return self.sinks.get((".".join(at.imports[target.id]), called), set())
        # A method of something: of whichever class has one of that name.
        return set().union(*(found for (_module, name), found in self.sinks.items() if name == called))

    def _note(self, at: Source, call: ast.Call, text: str, place: str) -> None:
        if HOLE not in text:
            if text:
                self.codes.setdefault(text, set()).add(place)
            return
        # The code, or a part of it, is an argument of this function: its callers have it.
        head, name, tail = text.split(HOLE)
        function = next(scope for scope in at.scopes(call) if name in _parameters(scope))
        position = _parameters(function).index(name)
        self.sinks.setdefault((at.name, function.name), set()).add(Sink(position, name, head + HOLE + tail))

    def _argument(self, at: Source, call: ast.Call, sink: Sink) -> set[str]:
        for keyword in call.keywords:
            if keyword.arg == sink.keyword:
                return self._texts(at, keyword.value)
        for position, argument in enumerate(call.args[: sink.position + 1]):
            if isinstance(argument, ast.Starred):
                return self._items(at, argument.value, sink.position - position)
        return self._texts(at, call.args[sink.position]) if sink.position < len(call.args) else set()

    # -- values of expressions --------------------------------------------------------------------------------------

    def _texts(self, at: Source, node: ast.AST) -> set[str]:
        """The texts that `node` can be; an argument of the function around it as HOLE name HOLE."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return {node.value}
        if isinstance(node, ast.Attribute) and node.attr == "code":
            return set()  # of a finding or verdict, and collected where that was made
        if isinstance(node, ast.JoinedStr):
            return set(map("".join, itertools.product(*(self._texts(at, part) for part in node.values))))
        if isinstance(node, ast.FormattedValue):
            return self._texts(at, node.value)
        if isinstance(node, ast.IfExp):
            return self._texts(at, node.body) | self._texts(at, node.orelse)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return self._items(at, node.value, node.slice.value)
        guarded = self._guarded(at, node)
        if guarded:
            return guarded
        if isinstance(node, ast.Name):
            return self._named(at, node)
        if isinstance(node, ast.Subscript):
            return set().union(*(self._texts(at, value) for value in self._table(at, node.value).values))
        raise UnfollowedError(ast.unparse(node))

    def _guarded(self, at: Source, node: ast.AST) -> set[str]:
        """What an `if NODE in (...)` around it leaves."""
        for above in at.above(node):
            test = getattr(above, "test", None) if isinstance(above, ast.If) else None
            if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.In):
                continue
            left = test.comparators[0]
            if ast.dump(test.left) == ast.dump(node) and isinstance(left, (ast.Tuple, ast.Set, ast.List)):
                return {value for entry in left.elts for value in self._texts(at, entry)}
        return set()

    def _named(self, at: Source, node: ast.Name) -> set[str]:
        try:
            return self._bound(at, node, lambda value: self._texts(at, value))
        except UnfollowedError:
            # Whatever it is, it must be a key of the table that is asked for it.
            keys = {
                text
                for asked in ast.walk(at.scopes(node)[0])
                if isinstance(asked, ast.Subscript) and ast.dump(asked.slice) == ast.dump(node)
                for text in self._keys(at, asked.value)
            }
            if not keys:
                raise
            return keys

    def _keys(self, at: Source, node: ast.AST) -> set[str]:
        try:
            return {text for key in self._table(at, node).keys for text in self._texts(at, key)}
        except UnfollowedError:
            return set()

    def _bound(self, at: Source, node: ast.Name, read) -> set[str]:
        """What `read` makes of the values that the name `node` is given."""
        for scope in at.scopes(node):
            if node.id in _parameters(scope):
                return {HOLE + node.id + HOLE}
            found: list[set[str]] = []
            for target, value, looped in _bindings(scope):
                for bound, path in _targets(target):
                    if bound.id == node.id:
                        found += [self._part(at, entry, path, read) for entry in self._elements(at, value, looped)]
            if found:
                return set().union(*found)
        raise UnfollowedError(node.id)

    def _elements(self, at: Source, value: ast.AST, looped: bool) -> list[ast.AST]:
        if not looped:
            return [value]
        if isinstance(value, ast.Name):
            value = self._constant(at, value)
        if not isinstance(value, (ast.Tuple, ast.List)):
            raise UnfollowedError(f"loop over {ast.unparse(value)}")
        return value.elts

    def _part(self, at: Source, value: ast.AST, path: tuple[int, ...], read) -> set[str]:
        if not path:
            return read(value)
        if len(path) > 1:
            raise UnfollowedError(ast.unparse(value))
        return self._items(at, value, path[0])

    def _items(self, at: Source, node: ast.AST, number: int) -> set[str]:
        """The texts that can stand at `number` in the tuple `node`."""
        if isinstance(node, ast.Tuple):
            return self._texts(at, node.elts[number])
        if isinstance(node, ast.IfExp):
            return self._items(at, node.body, number) | self._items(at, node.orelse, number)
        if isinstance(node, ast.Name):
            return self._bound(at, node, lambda value: self._items(at, value, number))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            return self._items(at, node.value, number + getattr(node.slice.lower, "value", 0))
        if isinstance(node, ast.Subscript):
            return set().union(*(self._items(at, value, number) for value in self._table(at, node.value).values))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            rows = [*self._table(at, node.func.value).values, *node.args[1:]]
            return set().union(*(self._items(at, row, number) for row in rows))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            module, name = at.imports.get(node.func.id, (at.name, node.func.id))
            other = self.sources.get(module)
            function = other.functions.get(name) if other else None
            if other and function:
                given = [entry.value for entry in ast.walk(function) if isinstance(entry, ast.Return) and entry.value]
                return set().union(*(self._items(other, value, number) for value in given))
        raise UnfollowedError(ast.unparse(node))

    def _table(self, at: Source, node: ast.AST) -> ast.Dict:
        table = self._constant(at, node) if isinstance(node, ast.Name) else node
        if not isinstance(table, ast.Dict):
            raise UnfollowedError(ast.unparse(node))
        return table

    def _constant(self, at: Source, node: ast.Name) -> ast.AST:
        """The literal that a name stands for."""
        for scope in at.scopes(node):
            for target, value, looped in _bindings(scope):
                if getattr(target, "id", "") == node.id and not looped:
                    return value
        raise UnfollowedError(node.id)


def _parameters(scope: ast.AST) -> list[str]:
    if not isinstance(scope, FunctionDef):
        return []
    names = [entry.arg for entry in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def _bindings(scope: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, bool]]:
    """(target, value, whether the target is each of the value's elements) of what is bound in `scope` itself."""
    waiting = list(ast.iter_child_nodes(scope))
    for node in waiting:
        if isinstance(node, (*FunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.Assign):
            yield from ((target, node.value, False) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            yield node.target, node.value, False
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield node.target, node.iter, True
        waiting += ast.iter_child_nodes(node)


def _targets(target: ast.AST, path: tuple[int, ...] = ()) -> Iterator[tuple[ast.Name, tuple[int, ...]]]:
    """The names in a target, each with where it stands in it."""
    if isinstance(target, ast.Name):
        yield target, path
    elif isinstance(target, (ast.Tuple, ast.List)):
        for number, entry in enumerate(target.elts):
            yield from _targets(entry, (*path, number))


def documented() -> list[re.Match[str]]:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(ENTRY.match, lines) if entry]


@pytest.fixture(scope="module")
def reported() -> Collector:
    return Collector(ROOT / "plugins")


# -- the reference -----------------------------------------------------------------------------------------------------


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


# -- the collector itself ----------------------------------------------------------------------------------------------

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
