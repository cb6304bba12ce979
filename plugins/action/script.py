# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of module script: reads the scripts and brings them to the target in one piece."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.action import ActionBase

from ansible_collections.shipshape.deploy.plugins.module_utils.files.payload import Slice, pack
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import Facts, inspect
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError, failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

MODULE = "shipshape.deploy.script"
# Up to this many bytes everything travels inside the module's arguments: a second round trip costs more than they do.
INLINE = 1024 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One script as read; its content lies in the spool at `offset`."""

    facts: Facts
    offset: int

    def as_argument(self, offset: int | None) -> dict[str, Any]:
        facts = self.facts
        return {
            "sha256": facts.sha256,
            "size": facts.size,
            "shebang": facts.shebang,
            "notes": list(facts.notes),
            "offset": offset,
        }


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False  # a temporary directory on the target is made only when it is needed

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        arguments = dict(self._task.args)
        entries = _entries(arguments)
        if entries is None:
            # The module itself says best what is wrong with the arguments.
            return {**result, **self._call(arguments, task_vars)}
        try:
            if "transfer" in arguments:
                what = "it is filled in by the action plugin"
                raise failure("transfer", "option-invalid", what, "Leave it out of the task")
            with tempfile.SpooledTemporaryFile(max_size=INLINE, dir=constants.DEFAULT_LOCAL_TMP) as spool:
                sources = [self._read(entry, arguments, spool) for entry in entries]
                result.update(self._place(_without_sources(arguments, entries), sources, spool, task_vars))
        except ShipshapeError as error:
            result.update({**Report().failed(error), "failed": True})
        return result

    def _place(
        self, arguments: dict[str, Any], sources: Sequence[Source], spool: IO[bytes], task_vars: Any
    ) -> dict[str, Any]:
        total = sum(source.facts.size for source in sources)
        if total <= INLINE:
            spool.seek(0)
            known = [source.as_argument(source.offset) for source in sources]
            return self._call({**arguments, "transfer": {"sources": known, "data": pack([spool.read()])}}, task_vars)
        known = [source.as_argument(None) for source in sources]
        outcome = self._call({**arguments, "transfer": {"sources": known}}, task_vars)
        missing = outcome.pop("missing", None)
        if not missing:
            return outcome
        known, remote = self._send(sources, missing, spool)
        return self._call({**arguments, "transfer": {"sources": known, "path": remote}}, task_vars)

    def _send(
        self, sources: Sequence[Source], missing: Sequence[int], spool: IO[bytes]
    ) -> tuple[list[dict[str, Any]], str]:
        """Transfers the contents at `missing` as one file, which goes with the task's temporary directory."""
        known = [source.as_argument(None) for source in sources]
        # The call before has made one already, unless it was piped to the interpreter; a second would be forgotten.
        directory = self._connection._shell.tmpdir or self._make_tmp_path()
        remote: str = self._connection._shell.join_path(directory, "scripts")
        with tempfile.NamedTemporaryFile(dir=constants.DEFAULT_LOCAL_TMP) as package:
            for number in missing:
                source = sources[number]
                known[number]["offset"] = package.tell()
                part = Slice(spool, source.offset, source.facts.size)  # type: ignore[arg-type]
                while chunk := part.read(_CHUNK):
                    package.write(chunk)
            package.flush()
            self._transfer_file(package.name, remote)
        self._fixup_perms2((directory, remote))
        return known, remote

    def _call(self, arguments: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        outcome: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        shown = outcome.get("invocation", {}).get("module_args")
        if isinstance(shown, dict):
            shown.pop("transfer", None)
        return outcome

    def _read(self, entry: dict[str, Any], arguments: dict[str, Any], spool: IO[bytes]) -> Source:
        """Appends one script, as it is to be placed, to the spool."""
        endings = entry.get("line_endings") or arguments.get("line_endings") or "lf"
        mode = entry.get("mode", arguments.get("mode"))
        if entry.get("content") is not None:
            content = _text(entry, mode)
        else:
            with self._source_file(entry) as path:
                content = _bytes(entry["src"], path)
                if mode == "preserve":
                    entry["mode"] = f"{os.stat(path).st_mode & 0o7777:04o}"
        content, facts = inspect(content, endings)
        offset = spool.tell()
        spool.write(content)
        return Source(facts, offset)

    @contextmanager
    def _source_file(self, entry: dict[str, Any]) -> Iterator[str]:
        """The file to read: found where a role or play keeps its files, decrypted when it is a vault."""
        src = str(entry["src"])
        try:
            found = self._find_needle("files", src)
            if os.path.isdir(found):
                what = "it is a directory on the controller"
                raise failure(src, "source-unreadable", what, "Name a file in src, or use shipshape.deploy.tree")
            real = self._loader.get_real_file(found, decrypt=True)
        except AnsibleError as error:
            raise _source_problem(src, error) from error
        try:
            yield real
        finally:
            self._loader.cleanup_tmp_file(real)


def _entries(arguments: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A copy of each script's options; None when they are not even of the right shape."""
    several = arguments.get("scripts")
    if several is None:
        entries = [dict(arguments)]
    elif isinstance(several, list) and all(isinstance(entry, dict) for entry in several) and "dest" not in arguments:
        entries = [dict(entry) for entry in several]
    else:
        return None
    for entry in entries:
        if (entry.get("src") is None) == (entry.get("content") is None) or not entry.get("dest"):
            return None
    return entries


def _without_sources(arguments: dict[str, Any], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The module's arguments: contents travel apart, where no output shows them."""
    cleaned = [{key: value for key, value in entry.items() if key != "content"} for entry in entries]
    if arguments.get("scripts") is None:
        return cleaned[0]
    return {**arguments, "scripts": cleaned}


def _text(entry: dict[str, Any], mode: Any) -> bytes:
    content = entry["content"]
    if not isinstance(content, str):
        kind = {dict: "mapping", list: "list"}
        name = next((name for known, name in kind.items() if isinstance(content, known)), "number or boolean")
        what = f"content is no text but a {name}"
        raise failure(str(entry["dest"]), "option-invalid", what, "Put it in quotes, or below `content: |`")
    if mode == "preserve":
        raise failure(str(entry["dest"]), "invalid-mode", "mode=preserve needs src", "Write the mode, such as '0755'")
    encoded: bytes = to_bytes(content, errors="surrogate_or_strict")
    return encoded


def _bytes(src: str, path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        what = f"cannot read it on the controller: {error.strerror}"
        raise failure(src, "source-unreadable", what, "Correct its permissions") from error


def _source_problem(src: str, error: AnsibleError) -> ShipshapeError:
    text = " ".join(to_text(error).split())
    if "vault" in text.lower():
        what = "it is encrypted and could not be decrypted"
        return failure(src, "source-unreadable", what, "Give the right vault password: --vault-id or --ask-vault-pass")
    return failure(
        src, "source-missing", text, "Correct src, or put the file into files/ of the role or beside the play"
    )
