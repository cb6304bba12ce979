# SPDX-License-Identifier: GPL-3.0-or-later
"""Every finding code that the sources can report, followed from where a finding is made back to the text that it is
written as. What it cannot follow it names."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
