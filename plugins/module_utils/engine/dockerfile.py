# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Dockerfile copies into an image, and where to: as much of its language as that takes. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .dockerfile_text import Instruction, expanded, instructions, words

_SHELL_WORD = re.compile(r"[^\s;&|()'\"]+")
_URL = re.compile(r"^(https?://|git@|git://|ssh://)|\.git(#.*)?$")


@dataclass(frozen=True)
class Base:
    """An image that a Dockerfile starts from, as far as that matters: None for what is not known of it."""

    workdir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    onbuild: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy:
    """One COPY or ADD. `dest` is absolute; `into` says that it is a directory for sure, otherwise the image tells.
    `texts` are the files that stand in the Dockerfile itself. `at` orders it among the other instructions."""

    at: int
    line: int
    sources: tuple[str, ...]
    dest: str
    into: bool
    unpacks: bool = False
    texts: tuple[tuple[str, str], ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ran:
    """One RUN: a command that may change what was copied before it."""

    at: int
    line: int
    command: str


@dataclass(frozen=True)
class Recipe:
    """What an image is made of. `programs` are the words of ENTRYPOINT and CMD; `skipped` says what cannot be
    followed: (line, why)."""

    copies: tuple[Copy, ...] = ()
    runs: tuple[Ran, ...] = ()
    programs: tuple[str, ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()


@dataclass
class _Stage:
    name: str
    base: str
    steps: list[Instruction] = field(default_factory=list)


@dataclass
class _State:
    """What has been read of one chain of stages so far."""

    given: Mapping[str, str]
    top: Mapping[str, str]
    workdir: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    runs: list[Ran] = field(default_factory=list)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    skipped: list[tuple[int, str]] = field(default_factory=list)
    onbuild: list[Instruction] = field(default_factory=list)
    at: int = 0

    def value(self, name: str) -> str | None:
        return self.env.get(name, self.args.get(name))

    def text(self, word: str) -> str:
        return expanded(word, self.value)


def bases(text: str, target: str = "", given: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The images outside of the Dockerfile that the wanted stage starts from: none or one."""
    stages, _dummy = _stages(text, given or {})
    chain = _chain(stages, target)
    return (chain[0].base,) if chain and chain[0].base != "scratch" else ()


def recipe(
    text: str,
    target: str = "",
    given: Mapping[str, str] | None = None,
    base: Base = Base(),
) -> Recipe:
    """What the image holds that is built from the Dockerfile `text` up to stage `target` (the last by default), with
    the build arguments `given`, on `base`."""
    stages, top = _stages(text, given or {})
    chain = _chain(stages, target)
    state = _State(given or {}, top, workdir=base.workdir, env=dict(base.env))
    if chain and chain[0].base == "scratch":
        state.workdir = "/"
    state.onbuild = [step for trigger in base.onbuild for step in instructions(trigger)[0]]
    for stage in chain:
        state.args = {}
        triggers, state.onbuild = state.onbuild, []
        for step in [*triggers, *stage.steps]:
            _STEPS.get(step.name, _nothing)(state, step)
            state.at += 1
    return Recipe(tuple(state.copies), tuple(state.runs), (*state.entrypoint, *state.command), tuple(state.skipped))


def touches(command: str, path: str) -> bool:
    """Whether the shell command of a RUN may change the file at `path`, or take it away. A guess, on the safe side:
    it only makes a difference doubtful instead of certain."""
    names = {path, posixpath.basename(path)}
    return any(
        word in names or _matches(word, path)
        for part in re.split(r"&&|\|\||;|\n|(?<!>)\|", command)
        for word in _changed_by(part)
    )


def _changed_by(command: str) -> list[str]:
    """The words of one simple command that may name a file which it changes."""
    targets = _REDIRECTED.findall(command)
    found = [word for word in _SHELL_WORD.findall(_REDIRECTED.sub("", command)) if not word.startswith("--mount=")]
    verb, rest = (posixpath.basename(found[0]), found[1:]) if found else ("", [])
    if verb in ("find", "xargs"):
        inner = [at for at, word in enumerate(rest) if _CHANGES.fullmatch(word) or word == "-delete"]
        return [*targets, *rest] if inner else targets
    in_place = verb not in ("sed", "perl") or any(_IN_PLACE.match(word) for word in rest)
    if _CHANGES.fullmatch(verb) and in_place:
        return [*targets, *rest]
    return [*targets, *rest[-1:]] if verb in ("cp", "install", "ln") else targets


_CHANGES = re.compile(r"dos2unix|gzip|mv|patch|perl|rm|sed|strip|tee|truncate|unix2dos")
_IN_PLACE = re.compile(r"-[a-zA-Z]*i|--in-place")
_REDIRECTED = re.compile(r">>?\s*([^\s;&|<>]+)")


def _matches(word: str, path: str) -> bool:
    """A directory above the path, or a pattern that the shell would fill in."""
    if word.startswith("/") and path.startswith(f"{word.rstrip('/')}/") and word != "/":
        return True
    if not any(sign in word for sign in "*?["):
        return word.removeprefix("./") == path.lstrip("/")
    pattern = re.escape(word).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return bool(re.fullmatch(f"(.*/)?{pattern.lstrip('/')}", path))


def _stages(text: str, given: Mapping[str, str]) -> tuple[list[_Stage], dict[str, str]]:
    """The stages, and the arguments that stand before the first of them."""
    top: dict[str, str] = {}
    stages: list[_Stage] = []
    for step in instructions(text)[0]:
        if step.name == "FROM":
            parts = [word for word in step.rest.split() if not word.startswith("--")]
            named = len(parts) > 2 and parts[1].lower() == "as"
            base = expanded(parts[0], top.get) if parts else ""
            stages.append(_Stage(parts[2].lower() if named else "", base))
        elif stages:
            stages[-1].steps.append(step)
        elif step.name == "ARG":
            for name, value in _pairs(step.rest):
                top[name] = given.get(name, expanded(value or "", top.get))
    return stages, top


def _chain(stages: Sequence[_Stage], target: str) -> list[_Stage]:
    """The wanted stage, after those that it starts from."""
    index = len(stages) - 1
    if target:
        wanted = [at for at, stage in enumerate(stages) if target.lower() in (stage.name, str(at))]
        index = wanted[-1] if wanted else index
    chain: list[_Stage] = []
    while 0 <= index < len(stages):
        chain.insert(0, stages[index])
        name = stages[index].base.lower()
        earlier = [at for at in range(index) if stages[at].name == name]
        index = earlier[-1] if earlier else -1
    return chain


def _pairs(rest: str) -> list[tuple[str, str | None]]:
    """`a=1 b` as names and values."""
    found = []
    for word in words(rest):
        name, sign, value = word.partition("=")
        found.append((name, value if sign else None))
    return found


def _arg(state: _State, step: Instruction) -> None:
    for name, value in _pairs(step.rest):
        wanted = state.given.get(name, state.top.get(name) if value is None else state.text(value))
        if wanted is not None:
            state.args[name] = wanted


def _env(state: _State, step: Instruction) -> None:
    head, _dummy, tail = step.rest.partition(" ")
    if "=" not in head:  # the old way: one name, and the rest of the line
        state.env[head] = state.text(tail.strip())
        return
    # All of one line see what was there before it.
    found = {name: state.text(value or "") for name, value in _pairs(step.rest)}
    state.env.update(found)


def _workdir(state: _State, step: Instruction) -> None:
    path = state.text(step.rest.strip())
    if not path.startswith("/") and state.workdir is None:
        return  # relative to one that is not known
    state.workdir = posixpath.normpath(posixpath.join(state.workdir or "/", path))


def _run(state: _State, step: Instruction) -> None:
    body = "\n".join([step.rest, *(text.body for text in step.texts)])
    state.runs.append(Ran(state.at, step.line, body))


def _entrypoint(state: _State, step: Instruction) -> None:
    state.entrypoint, state.command = _program(step.rest), ()


def _command(state: _State, step: Instruction) -> None:
    state.command = _program(step.rest)


def _program(rest: str) -> tuple[str, ...]:
    listed = _json_list(rest)
    return tuple(rest.split()) if listed is None else tuple(listed)


def _onbuild(state: _State, step: Instruction) -> None:
    name, _dummy, rest = step.rest.partition(" ")
    state.onbuild.append(replace(step, name=name.upper(), rest=rest.strip()))


def _copy(state: _State, step: Instruction) -> None:
    flags, rest = _flags(step.rest)
    if "from" in flags:
        return  # out of another stage or image: no file of the project
    if "parents" in flags:
        state.skipped.append((step.line, "--parents is not followed"))
        return
    listed = _json_list(rest)
    given = rest.split() if listed is None else listed
    texts = {text.word: text for text in step.texts}
    found = [word if word in texts else state.text(word) for word in given]
    if len(found) < 2 or not all(found):
        state.skipped.append((step.line, "its source or its place is empty"))
        return
    *sources, dest = found
    if not dest.startswith("/") and state.workdir is None:
        state.skipped.append((step.line, "its place depends on the WORKDIR of the image that it starts from"))
        return
    remote = [word for word in sources if step.name == "ADD" and _URL.search(word)]
    if remote:
        state.skipped.append((step.line, f"{remote[0]} is not in the project"))
    place = posixpath.join(state.workdir or "/", dest)
    state.copies.append(
        Copy(
            state.at,
            step.line,
            tuple(word for word in sources if word not in texts and word not in remote),
            posixpath.normpath(place) if place.strip("/") else "/",
            dest.endswith(("/", "/.", "/..")) or dest in (".", "..") or len(sources) > 1,
            step.name == "ADD",
            tuple(
                (texts[word].name, expanded(texts[word].body, state.value, quotes=False))
                if texts[word].expands
                else (texts[word].name, texts[word].body)
                for word in sources
                if word in texts
            ),
            tuple(flags.get("exclude", ())),
        )
    )


def _flags(rest: str) -> tuple[dict[str, list[str]], str]:
    """The flags at the beginning of a COPY, and the remainder."""
    flags: dict[str, list[str]] = {}
    while rest.startswith("--"):
        word, _dummy, rest = rest.partition(" ")
        name, _dummy, value = word[2:].partition("=")
        flags.setdefault(name, []).append(value)
        rest = rest.lstrip()
    return flags, rest


def _json_list(rest: str) -> list[str] | None:
    if not rest.lstrip().startswith("["):
        return None
    try:
        found = json.loads(rest)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(entry, str) for entry in found) else None


def _nothing(_state: _State, _step: Instruction) -> None:
    return None


_STEPS: Mapping[str, Callable[[_State, Instruction], None]] = {
    "ARG": _arg,
    "ENV": _env,
    "WORKDIR": _workdir,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "ENTRYPOINT": _entrypoint,
    "CMD": _command,
    "ONBUILD": _onbuild,
}


def scripts(programs: Iterable[str], paths: Iterable[str], workdir: str) -> set[str]:
    """Those of `paths` that an image starts with: named by ENTRYPOINT or CMD, by their place, relative to the working
    directory, or by a bare name that is looked for in PATH."""
    named = {posixpath.normpath(posixpath.join(workdir or "/", word)) for word in programs if "/" in word}
    bare = {word for word in programs if "/" not in word and not word.startswith("-")}
    return {
        path
        for path in paths
        if path in named or (posixpath.basename(path) in bare and posixpath.dirname(path).endswith("/bin"))
    }
