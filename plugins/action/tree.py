# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of `tree`: first the manifest goes over, then, in one archive, what the target lacks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.action import ActionBase

from ansible_collections.shipshape.deploy.plugins.module_utils.files.manifest import pack, pack_contents, shown
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_diff import LARGEST, SOURCE, as_text
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_source import Source, pack_archive, read
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError, failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.masking import masked_sides
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report
from ansible_collections.shipshape.deploy.plugins.modules.tree import ARGUMENTS

MODULE = "shipshape.deploy.tree"
# A longer manifest goes over as a file: it would be compiled as part of the module's wrapper.
_INLINE = 256 * 1024
# What the target lacks can change between the look and the transfer, but not for ever.
_ROUNDS = 3
_HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


class ActionModule(ActionBase):
    # Files are transferred only when something changed, so no directory for them is made beforehand.
    TRANSFERS_FILES = False
    _supports_async = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._options()
        source: Source | None = None
        try:
            source = self._read(options)
            outcome = self._ship(options, source, task_vars or {})
            findings = [finding.as_dict() for finding in source.findings]
            outcome["findings"] = findings + outcome.get("findings", [])
            self._complete_diff(outcome, source)
        except ShipshapeError as error:
            outcome = {"failed": True, "files": {}, **Report().failed(error)}
        finally:
            for location in source.locations.values() if source else ():
                self._loader.cleanup_tmp_file(location)
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(outcome)
        result["invocation"] = {"module_args": _printable(options)}
        return result

    def _options(self) -> dict[str, Any]:
        if self._task.args.get("transfer") is not None:
            raise AnsibleActionFail(f"transfer is not yours to set: {MODULE} fills it in. Remove it from the task.")
        validated: dict[str, Any] = self.validate_argument_spec(argument_spec=ARGUMENTS)[1]
        return {name: value for name, value in validated.items() if name != "transfer"}

    def _read(self, options: dict[str, Any]) -> Source:
        src = str(options["src"])
        try:
            root = self._find_needle("files", src.rstrip("/") or "/")
        except AnsibleError as error:
            remedy = "Correct src, or put the directory there"
            raise failure(src, "source-missing", "is not found on the controller", remedy) from error
        if not os.path.isdir(root):
            raise failure(root, "source-missing", "is not a directory on the controller", "Correct src")
        return read(root, options["ignore"], _env_files(options["env_files"]), self._decrypted)

    def _decrypted(self, path: str) -> str:
        try:
            return str(self._loader.get_real_file(path))
        except AnsibleError as error:
            message = f"is encrypted with Ansible Vault and cannot be decrypted: {to_text(error)}"
            remedy = "Run with --vault-password-file or --ask-vault-pass"
            raise failure(shown(path), "vault-locked", message, remedy) from error

    def _ship(self, options: dict[str, Any], source: Source, task_vars: dict[str, Any]) -> dict[str, Any]:
        transfer: dict[str, str] = {}
        arguments = {**options, "env_files": {}, "transfer": transfer}
        manifest = pack(source.entries)
        if len(manifest) <= _INLINE:
            transfer["manifest"] = manifest
        else:
            transfer["manifest_file"] = self._send(manifest.encode("ascii"), "manifest")
        if source.rendered:
            transfer["rendered"] = pack_contents(source.rendered)
        for _round in range(_ROUNDS):
            outcome = self._execute_module(module_name=MODULE, module_args=dict(arguments), task_vars=task_vars)
            needed = outcome.pop("needed", None)
            if not needed:
                outcome.pop("invocation", None)
                if "resolved" in outcome:
                    outcome["dest"] = outcome.pop("resolved")
                return dict(outcome)
            transfer["archive"] = self._send_contents(source, needed)
        message = "something else changes it all the time"
        raise failure(str(options["dest"]), "target-changing", message, "Stop that, then run again")

    def _send_contents(self, source: Source, needed: list[int]) -> str:
        descriptor, path = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP, prefix="shipshape-tree-")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                pack_archive(source, (source.entries[place] for place in needed), stream)
            return self._send_file(path, "contents.tar")
        except OSError as error:
            message = f"cannot be collected on the controller: {error.strerror or error}"
            raise failure(path, "source-unreadable", message, "Free space there (df -h)") from error
        finally:
            os.unlink(path)

    def _send(self, content: bytes, name: str) -> str:
        descriptor, path = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP, prefix="shipshape-tree-")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            return self._send_file(path, name)
        finally:
            os.unlink(path)

    def _send_file(self, path: str, name: str) -> str:
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        remote = str(shell.join_path(shell.tmpdir, name))
        self._transfer_file(path, remote)
        self._fixup_perms2((shell.tmpdir, remote), execute=False)
        return remote

    def _complete_diff(self, outcome: dict[str, Any], source: Source) -> None:
        """Adds the new text of files, which the target does not know in check mode."""
        diff = outcome.get("diff")
        for part in diff if isinstance(diff, list) else ():
            place = part.pop(SOURCE, None)
            if place is None:
                continue
            entry = source.entries[place]
            if entry.size > LARGEST:
                part["after"] = f"({entry.size} bytes, too much to show)\n"
                continue
            with open(source.locations[entry.path], "rb") as stream:
                part["after"] = as_text(stream.read())
        for part in diff if isinstance(diff, list) else ():
            part["before"], part["after"] = masked_sides(part["before"], part["after"])


def _env_files(value: Mapping[Any, Any]) -> dict[str, Mapping[str, object]]:
    for name, variables in value.items():
        if not isinstance(variables, Mapping):
            message = "is not a dictionary of variables"
            raise failure(f"env_files: {name}", "env-file-name", message, "Give NAME: value pairs")
    return {str(name): variables for name, variables in value.items()}


def _printable(options: dict[str, Any]) -> dict[str, Any]:
    """The options as -vvv shows them."""
    hidden = {
        str(name): dict.fromkeys(map(str, variables), _HIDDEN) if isinstance(variables, Mapping) else _HIDDEN
        for name, variables in options["env_files"].items()
    }
    return {**options, "env_files": hidden}
