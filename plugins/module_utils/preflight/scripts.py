# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts that services start with, as they lie in the project: about to be mounted, or built into an image."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.connection import Connection, EngineRefusedError
from ..engine.contents import opened
from ..engine.context import context_of, place
from ..engine.disk import open_regular
from ..engine.dockerfile import recipe
from ..engine.dockerfile import touches as changes
from ..engine.model import Service
from ..report.finding import CRITICAL, WARNING
from .seen import Seen, seen

_SHELLS = re.compile(r"^(/\S*/)?(ba|da|a|k|z)?sh$")
_INIT = frozenset({"tini", "dumb-init", "docker-init", "gosu", "su-exec", "exec", "env"})
_HEAD = 1 << 16


@dataclass(frozen=True)
class Script:
    """A script on its way into a container. `path` is its place there, `source` where it lies in the project;
    `by_name` says that it is run as a program and not handed to a shell."""

    service: str
    path: str
    source: str
    by_name: bool
    mounted: bool
    mode: int
    head: bytes
    mode_set: bool = False  # a Dockerfile sets its mode, or may
    text_set: bool = False  # a Dockerfile changes its text, or may

    @property
    def interpreter(self) -> str:
        """The program that its first line asks for; '' for none."""
        words = self.head.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
        parts = words[2:].split() if words.startswith("#!") else []
        if parts and posixpath.basename(parts[0]) == "env":
            return next((word for word in parts[1:] if not word.startswith("-") and "=" not in word), parts[0])
        return parts[0] if parts else ""


def look(service: Service, image: Mapping[str, Any]) -> list[Script]:
    """The scripts of the project that `service` starts with; `image` is its image's configuration, as far as known."""
    found = [*_mounted(service, image), *_baked(service)]
    return list({script.path: script for script in reversed(found)}.values())


def _mounted(service: Service, image: Mapping[str, Any]) -> Iterator[Script]:
    command = started(service, image)
    directory = str(service.definition.get("working_dir") or image.get("WorkingDir") or "/")
    for at, path in programs(command, directory):
        for mount in service.file_mounts:
            below = posixpath.relpath(path, mount.target)
            if below == "." or not below.startswith(".."):
                source = mount.source if below == "." else os.path.join(mount.source, below)
                script = _read(service.name, path, source, by_name=at == 0, mounted=True)
                if script is not None:
                    yield script


def _baked(service: Service) -> Iterator[Script]:
    context = context_of(service) if service.builds else None
    if context is None or context.text is None:
        return
    made = recipe(context.text, context.target, context.args)
    own = service.definition.get("entrypoint") or service.definition.get("command")
    command = started(service, {"Entrypoint": list(made.programs)}) if own else list(made.programs)
    wanted = {path: at for at, path in programs(command, str(service.definition.get("working_dir") or "/"))}
    bare = {word for word in command if "/" not in word}
    lines = context.text.split("\n")
    for copy in made.copies:
        after = [ran.command for ran in made.runs if ran.at > copy.at]
        for placed in place(context, copy)[0]:
            path = next((at for at in (placed.path, placed.into) if at in wanted), "")
            if not path and posixpath.basename(placed.path) in bare and "/bin/" in placed.path:
                path = placed.path
            if not path or placed.text is not None:
                continue
            script = _read(service.name, path, placed.source, by_name=wanted.get(path, 0) == 0, mounted=False)
            if script is not None:
                line = lines[copy.line - 1] if copy.line <= len(lines) else ""
                named = [ran for ran in after if posixpath.basename(path) in ran or posixpath.dirname(path) in ran]
                yield Script(
                    **{
                        **vars(script),
                        "mode_set": "--chmod" in line or any("chmod" in ran or "install" in ran for ran in named),
                        "text_set": any(changes(ran, path) for ran in after),
                    }
                )


def started(service: Service, image: Mapping[str, Any]) -> list[str]:
    """The command line that a container of `service` starts with. Pure."""
    entrypoint = service.definition.get("entrypoint")
    command = service.definition.get("command")
    if entrypoint is None:
        entrypoint = image.get("Entrypoint")
        command = image.get("Cmd") if command is None else command
    return [str(word) for word in (*(entrypoint or ()), *(command or ()))]


def programs(command: Sequence[str], directory: str) -> list[tuple[int, str]]:
    """The paths in a command line that may be the script it begins with: (0, path) where it is run by its own name,
    (1, path) where a shell reads it. Pure."""
    found: list[tuple[int, str]] = []
    shell = False
    for word in command:
        if posixpath.basename(word) in _INIT or (word.startswith("-") and not _is_text(word)):
            if shell and word.lstrip("-").endswith("c"):
                return found  # a command line of its own follows
            continue
        if _SHELLS.match(word) and not shell:
            shell = True
            continue
        if "/" in word and not re.search(r"\s", word):
            found.append((1 if shell else 0, posixpath.normpath(posixpath.join(directory, word))))
        return found
    return found


def _is_text(word: str) -> bool:
    return bool(re.search(r"\s", word))


def _read(service: str, path: str, source: str, *, by_name: bool, mounted: bool) -> Script | None:
    try:
        with open_regular(source) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            head = stream.read(_HEAD)
    except OSError:
        return None  # a missing source is told by the check of the mounts
    if b"\0" in head[:8192]:
        return None  # a program, and no script
    return Script(service, path, source, by_name, mounted, mode, head)


def judged(script: Script, has_interpreter: bool | None) -> Iterator[Seen]:
    """What would keep a script from being run. Pure. `has_interpreter`: None where the image is not known yet."""
    where = f"{script.source} ({'mounted' if script.mounted else 'built in'} at {script.path})"
    first = script.head.split(b"\n", 1)[0]
    if script.by_name and not script.mode & 0o111 and not script.mode_set:
        what = f"its script {where} is not executable: the container could not start"
        yield seen(CRITICAL, script.service, "script-not-executable", what, f"chmod +x {script.source}")
    if b"\r\n" in script.head and not script.text_set:
        what = f"the lines of its script {where} end with CR and LF: " + (
            "its interpreter would not be found"
            if first.startswith(b"#!") and script.by_name
            else "the shell takes the CR for part of each command"
        )
        how = "Save it with Unix line endings (dos2unix, and `*.sh text eol=lf` in .gitattributes)"
        yield seen(CRITICAL, script.service, "script-crlf", what, how)
    if script.by_name and not first.startswith(b"#!") and not script.text_set:
        what = f"its script {where} does not begin with #! and the program that runs it: the engine cannot start it"
        yield seen(CRITICAL, script.service, "script-no-interpreter", what, "Begin it with #!/bin/sh, say")
    if script.by_name and script.interpreter and has_interpreter is False:
        what = f"its script {where} asks for {script.interpreter}, which its image does not have"
        how = "Name a program that is in the image, or install that one in it"
        # What is built in comes with an image that is still to be built: that may bring it.
        severity = CRITICAL if script.mounted else WARNING
        yield seen(severity, script.service, "script-interpreter-missing", what, how)


def interpreters(connection: Connection, document: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, bool]:
    """Which of the programs the image with inspect document `document` has. It is never started."""
    search = next(
        (at[5:] for at in (document.get("Config") or {}).get("Env") or () if at.startswith("PATH=")),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    with opened(connection, document) as container:
        return {
            program: any(
                _has(connection, container, path)
                for path in ([program] if "/" in program else [f"{at}/{program}" for at in search.split(":")])
            )
            for program in set(wanted)
        }


def _has(connection: Connection, container: str, path: str) -> bool:
    try:
        return bool(connection.read(f"/containers/{container}/archive", lambda _stream: True, path=path))
    except EngineRefusedError as refused:
        if refused.status in (400, 404):
            return False
        raise
