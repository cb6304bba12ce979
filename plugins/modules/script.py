#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: script
short_description: Put scripts in place atomically, checked before and after, and run them
version_added: 0.1.0
description:
  - Brings one or many scripts from the controller to their place on the target, all of them in one task and one
    transfer.
  - A script arrives whole or not at all. It is written to a temporary file beside its destination, synced to the
    disk, closed, read back and compared, checked for syntax, given its mode, owner and group, and only then renamed
    over the destination. Somebody who executes the script all the while sees the old or the new one, never a part
    and never C(Text file busy).
  - Of several scripts none is changed before all of them are complete and found good.
  - O(run) executes what was just placed as a step of its own, after its checksum was verified on the target once more.
options:
  src:
    description:
      - File on the controller; a relative path is looked for in C(files/) of the role or beside the play, as with
        M(ansible.builtin.copy).
      - It is not a template; for one, use O(content) with P(ansible.builtin.template#lookup).
      - A file encrypted with Ansible Vault is decrypted.
    type: str
  content:
    description:
      - The script itself, instead of O(src).
      - Like with M(ansible.builtin.copy), C(--diff) shows it. If there are secrets in it, set C(diff=false) on the
        task, or C(no_log=true).
    type: str
  dest:
    description:
      - Absolute path of the script on the target, the file name included. Its directory must exist.
      - A symbolic link stays one, and the file that it points to is replaced. A dangling link, a directory, a
        device is an error.
      - Other hard links of the file keep the old content.
    type: path
  scripts:
    description:
      - Several scripts at once, instead of O(dest).
      - O(mode), O(owner), O(group), O(validate) and O(line_endings) of the task are what an entry has that does not
        name its own.
    type: list
    elements: dict
    suboptions:
      src:
        description: As O(src).
        type: str
      content:
        description: As O(content).
        type: str
      dest:
        description: As O(dest).
        type: path
        required: true
      mode:
        description: As O(mode).
        type: raw
      owner:
        description: As O(owner).
        type: str
      group:
        description: As O(group).
        type: str
      validate:
        description: As O(validate).
        type: raw
      line_endings:
        description: As O(line_endings).
        type: str
        choices: [lf, keep]
      run:
        description: As O(run). Scripts are run in the order of the list, after all of them are in place.
        type: list
        elements: str
  mode:
    description:
      - The permissions, in quotes (V("0755")), as V(u+x), or V(preserve) for those of O(src).
      - By default an existing script keeps its own, and a new one gets V("0755"), since scripts are there to be
        executed.
    type: raw
  owner:
    description: The user who shall own the script. By default an existing one keeps its owner.
    type: str
  group:
    description: The group of the script. By default an existing one keeps its group.
    type: str
  validate:
    description:
      - How to check a script before it takes its place.
      - V(auto) goes by the C(#!) line. The interpreter must exist on the target and be executable; shells check the
        syntax with C(-n), Python compiles the script without leaving a C(.pyc), Node.js checks it. Other languages
        have no check that executes nothing (C(perl -c) runs C(BEGIN) blocks); that is said in RV(findings).
      - V(none) checks nothing, for instance of a script for inside a container, whose interpreter is there only.
      - A list is a command of your own, with V(%s) for the file to check. It must not change anything, because
        check mode runs it too.
    type: raw
    default: auto
  line_endings:
    description:
      - V(lf), the default because no kernel finds an interpreter named C(bash) with a carriage return behind it,
        makes Windows line endings Unix ones, removes a UTF-8 byte order mark, and says so in RV(findings). A file
        with NUL bytes is binary and never touched.
      - V(keep) leaves the content as it is.
    type: str
    choices: [lf, keep]
    default: lf
  backup:
    description: Keep the replaced script beside the new one, as C(NAME.UTCTIME~). Off by default, since the
      controller has the history.
    type: bool
    default: false
  backup_keep:
    description: How many backups of a script to keep; older ones are removed when a new one is made. Five reach
      back over a bad week.
    type: int
    default: 5
  busy_timeout:
    description:
      - How many seconds to wait while another process has the script open for writing, before replacing it and
        before running it. Then the task fails and names the process. Long enough for a slow upload, short enough
        for somebody who waits.
    type: float
    default: 30
  run:
    description:
      - Execute the script once it is in place, with these arguments; an empty list runs it without any.
        A list whose first item is O(dest) itself is taken as the whole command line.
      - It is run every time, and so the task is always C(changed), as with M(ansible.builtin.command);
        RV(scripts[].changed) tells whether the file changed, for C(changed_when). Check mode reports the action
        C(run) and does not run it.
      - It runs in the script's directory, without standard input. An exit code other than 0 fails the task.
    type: list
    elements: str
  run_timeout:
    description: After how many seconds a run is stopped, its children included. Ten minutes, so that a hanging
      script does not hang a deploy.
    type: float
    default: 600
  transfer:
    description: What the action plugin read on the controller. Not for playbooks.
    type: dict
    suboptions:
      sources:
        description: What is known of each script.
        type: list
        elements: dict
        required: true
        suboptions:
          sha256:
            description: Checksum of the content.
            type: str
            required: true
          size:
            description: Its length in bytes.
            type: int
            required: true
          shebang:
            description: Its first line.
            type: str
            default: ''
          notes:
            description: What was seen in it.
            type: list
            elements: str
            default: []
          offset:
            description: Where it begins in what was transferred; nothing when it stayed on the controller.
            type: int
      data:
        description: The contents, when they are small.
        type: str
      path:
        description: File on the target with the contents, when they are large.
        type: path
extends_documentation_fragment:
  - shipshape.deploy.attributes
attributes:
  check_mode:
    support: full
    details:
      - The syntax is checked in check mode too, on a copy in a temporary directory.
      - A directory, interpreter, user or group that is missing is a warning in check mode, because an earlier task
        may be about to create it.
  diff_mode:
    support: full
    details:
      - Content above 104448 bytes and binary data are not shown.
  platform:
    platforms: posix
notes:
  - The target needs Linux and Python 3.9 or later.
  - When a rename fails although everything was prepared (the destination is a mount point, say), scripts that were
    replaced before it stay replaced; RV(actions) and RV(scripts[].changed) tell which.
  - An existing script hands on its ACL, SELinux context and C(user.*) extended attributes.
  - Temporaries are named C(.shipshape-NAME-RANDOM.tmp). One is left only by a run that was killed, and the next run
    removes it.
  - "Codes in RV(findings) that fail the task: V(invalid-script), V(interpreter-missing), V(no-interpreter),
    V(empty-script), V(open-for-writing), V(run-failed), V(run-timeout), V(not-executable), V(checksum-differs),
    V(content-corrupt), V(disk-corrupt), V(source-missing), V(source-unreadable), V(option-invalid),
    V(invalid-mode), V(invalid-name), V(duplicate-destination), V(destination-is-directory),
    V(destination-not-a-file), V(destination-mounted), V(dangling-link), V(symlink-loop), V(missing-parent),
    V(not-a-directory), V(no-rights), V(read-only), V(immutable), V(disk-full), V(file-too-large), V(name-too-long),
    V(unknown-owner), V(unknown-group), V(too-many-open-files), V(input-output-error), V(write-failed)."
  - "Codes that only tell something: V(line-endings-converted), V(byte-order-mark-removed), V(line-endings-kept),
    V(byte-order-mark-kept), V(utf-16), V(no-interpreter), V(empty-script), V(not-validated), V(leftover-removed)."
seealso:
  - module: ansible.builtin.copy
  - module: ansible.builtin.script
  - module: shipshape.deploy.tree
author:
  - the shipshape.deploy founders (@shipshape-deploy)
"""

EXAMPLES = r"""
- name: Put the health check in place
  shipshape.deploy.script:
    src: health-check.sh
    dest: /usr/local/bin/health-check.sh
    owner: root
    group: root
    mode: "0755"

- name: Put all scripts in place, in one transfer, and keep what they replace
  shipshape.deploy.script:
    scripts:
      - src: backup.sh
        dest: /usr/local/bin/backup.sh
      - src: rotate.py
        dest: /usr/local/bin/rotate.py
      - content: |
          #!/bin/sh
          exec /usr/local/bin/backup.sh --daily
        dest: /etc/cron.daily/backup
    mode: "0755"
    backup: true

- name: Place the health check and run it; exit code 1 is a warning there
  shipshape.deploy.script:
    src: health-check.sh
    dest: /usr/local/bin/health-check.sh
    run: [--json]
    run_timeout: 60
  register: health
  changed_when: health.scripts[0].changed
  failed_when: health.run is not defined or health.run is none or health.run.rc > 1

- name: Check a configuration file with its own program before it is used
  shipshape.deploy.script:
    content: |
      Defaults use_pty
    dest: /etc/sudoers.d/pty
    mode: "0440"
    validate: [visudo, -cf, "%s"]
"""

RETURN = r"""
scripts:
  description: What became of each script, in the order given.
  returned: when the scripts could be looked at
  type: list
  elements: dict
  contains:
    dest:
      description: The script's path.
      type: str
      sample: /usr/local/bin/health-check.sh
    checksum:
      description: SHA-256 of what lies there in the end (line endings converted); none when there is nothing.
      type: str
      sample: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    changed:
      description: Whether the file changed, by content, mode, owner or group.
      type: bool
      sample: true
    backup_file:
      description: Where the replaced script is kept; none when there is no backup.
      type: str
      sample: /usr/local/bin/health-check.sh.20261123T060140123456Z~
    run:
      description: What came of running it; none when it was not run.
      type: dict
      contains:
        rc:
          description: Its exit code; negative when a signal killed it.
          type: int
          sample: 0
        stdout:
          description: What it printed. Of more than 64 KiB the middle is left out; passwords in URLs are masked.
          type: str
          sample: '{"status": "ok"}'
        stderr:
          description: What it printed on standard error, likewise.
          type: str
          sample: ''
dest:
  description: As in RV(scripts[].dest).
  returned: with O(dest)
  type: str
  sample: /usr/local/bin/health-check.sh
checksum:
  description: As in RV(scripts[].checksum).
  returned: with O(dest)
  type: str
  sample: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
backup_file:
  description: As in RV(scripts[].backup_file).
  returned: with O(dest)
  type: str
  sample: /usr/local/bin/health-check.sh.20261123T060140123456Z~
run:
  description: As in RV(scripts[].run).
  returned: with O(dest)
  type: dict
  sample: {rc: 0, stdout: '{"status": "ok"}', stderr: ''}
mode:
  description: The permissions that the file has in the end, as other modules that place files return them.
  returned: with O(dest), when the file exists
  type: str
  sample: "0755"
owner:
  description: The name of its owner.
  returned: with O(dest), when the file exists
  type: str
  sample: root
group:
  description: The name of its group.
  returned: with O(dest), when the file exists
  type: str
  sample: root
uid:
  description: The number of its owner.
  returned: with O(dest), when the file exists
  type: int
  sample: 0
gid:
  description: The number of its group.
  returned: with O(dest), when the file exists
  type: int
  sample: 0
size:
  description: Its length in bytes.
  returned: with O(dest), when the file exists
  type: int
  sample: 1220
state:
  description: What it is; V(link) when O(dest) is a symbolic link.
  returned: with O(dest), when the file exists
  type: str
  sample: file
actions:
  description:
    - What was done, or in check mode would be done, in order.
    - The actions are C(backup), C(create), C(replace), C(adjust) (mode, owner or group only), C(remove-backup) and
      C(run).
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: Its name.
      type: str
      sample: replace
    target:
      description: The file.
      type: str
      sample: /usr/local/bin/health-check.sh
    reason:
      description: Why.
      type: str
      sample: its content differs
    seconds:
      description: How long it took; 0.0 in check mode.
      type: float
      sample: 0.001
findings:
  description: What was noticed.
  returned: always
  type: list
  elements: dict
  contains:
    severity:
      description: V(critical), V(warning) or V(info).
      type: str
      sample: info
    subject:
      description: The file.
      type: str
      sample: /usr/local/bin/health-check.sh
    code:
      description: Stable name of the observation; see the notes.
      type: str
      sample: line-endings-converted
    message:
      description: What was seen.
      type: str
      sample: Windows line endings (CRLF) were made Unix ones (LF)
    remedy:
      description: What to do about it; empty when there is nothing to do.
      type: str
      sample: ''
logs:
  description: The last lines of a script whose run failed, by its path.
  returned: on failure
  type: dict
  sample: {/usr/local/bin/health-check.sh: ["db: connection refused"]}
"""

import os
import stat
from typing import Any, BinaryIO

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.files.attributes import Attributes, parse_mode
from ansible_collections.shipshape.deploy.plugins.module_utils.files.payload import Slice, unpack
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_call import Call, Content
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_place import place
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_plan import Script
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import Facts, inspect
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError, failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

_SHARED = ("mode", "owner", "group", "validate", "line_endings")


def specification() -> dict[str, Any]:
    source: dict[str, Any] = {"src": {"type": "str"}, "content": {"type": "str", "no_log": True}}
    attributes: dict[str, Any] = {"mode": {"type": "raw"}, "owner": {"type": "str"}, "group": {"type": "str"}}
    run: dict[str, Any] = {"type": "list", "elements": "str"}
    endings: dict[str, Any] = {"type": "str", "choices": ["lf", "keep"]}
    entry = {
        **source,
        **attributes,
        "dest": {"type": "path", "required": True},
        "validate": {"type": "raw"},
        "line_endings": endings,
        "run": run,
    }
    known = {
        "sha256": {"type": "str", "required": True},
        "size": {"type": "int", "required": True},
        "shebang": {"type": "str", "default": ""},
        "notes": {"type": "list", "elements": "str", "default": []},
        "offset": {"type": "int"},
    }
    transfer = {
        "sources": {"type": "list", "elements": "dict", "required": True, "options": known},
        "data": {"type": "str", "no_log": True},
        "path": {"type": "path"},
    }
    return {
        **source,
        **attributes,
        "dest": {"type": "path"},
        "scripts": {
            "type": "list",
            "elements": "dict",
            "options": entry,
            "mutually_exclusive": [("src", "content")],
        },
        "validate": {"type": "raw", "default": "auto"},
        "line_endings": {**endings, "default": "lf"},
        "backup": {"type": "bool", "default": False},
        "backup_keep": {"type": "int", "default": 5},
        "busy_timeout": {"type": "float", "default": 30},
        "run": run,
        "run_timeout": {"type": "float", "default": 600},
        "transfer": {"type": "dict", "options": transfer},
    }


def wanted(module: AnsibleModule) -> tuple[list[Script], list[Content | None]]:
    """The scripts asked for, and where to read each one's content."""
    params = module.params
    if params["backup_keep"] < 1:
        raise failure("backup_keep", "option-invalid", "it is less than 1", "Keep at least one, or set backup=false")
    entries = params["scripts"] if params["scripts"] is not None else [params]
    transfer = params["transfer"]
    if transfer and len(transfer["sources"]) != len(entries):
        raise failure("transfer", "option-invalid", "it does not belong to these scripts", "Leave transfer out")
    stream = _stream(transfer) if transfer else None
    scripts: list[Script] = []
    contents: list[Content | None] = []
    for number, entry in enumerate(entries):
        own = {**entry, **{name: params[name] for name in _SHARED if entry[name] is None}}
        if transfer:
            facts, content = _transferred(transfer["sources"][number], stream)
        else:
            facts, content = _given(own)
        scripts.append(_script(own, facts))
        contents.append(content)
    return scripts, contents


def _stream(transfer: dict[str, Any]) -> BinaryIO | None:
    if transfer["path"]:
        return open(transfer["path"], "rb")
    return unpack(transfer["data"]) if transfer["data"] else None


def _transferred(source: dict[str, Any], stream: BinaryIO | None) -> tuple[Facts, Content | None]:
    facts = Facts(source["sha256"], source["size"], source["shebang"], tuple(source["notes"]))
    offset = source["offset"]
    if stream is None or offset is None:
        return facts, None
    return facts, lambda: Slice(stream, offset, facts.size)


def _given(entry: dict[str, Any]) -> tuple[Facts, Content]:
    """Without the action plugin there is only `content`."""
    if entry["content"] is None:
        what = "there is neither src nor content" if entry["src"] is None else "src is read on the controller only"
        raise failure(entry["dest"], "option-invalid", what, "Give src or content in a playbook's task")
    content, facts = inspect(entry["content"].encode("utf-8", "surrogateescape"), entry["line_endings"])
    return facts, lambda: unpacked(content)


def unpacked(content: bytes) -> Slice:
    import io

    return Slice(io.BytesIO(content), 0, len(content))


def _script(entry: dict[str, Any], facts: Facts) -> Script:
    dest = entry["dest"]
    if not os.path.isabs(dest):
        raise failure(dest, "option-invalid", "the destination is a relative path", "Give dest an absolute path")
    mode = parse_mode(dest, entry["mode"])
    if isinstance(mode, str):
        mode = _symbolic(dest, mode)
    run = None if entry["run"] is None else tuple(entry["run"])
    attributes = Attributes(mode, entry["owner"] or None, entry["group"] or None)
    return Script(dest, facts, attributes, _validation(dest, entry["validate"]), run)


def _symbolic(dest: str, mode: str) -> int:
    """What `u+x` comes to, starting from the present mode, or from that of a new script."""
    try:
        present = os.stat(dest)
    except OSError:
        present = os.stat_result((stat.S_IFREG | 0o755, *[0] * 9))
    try:
        number: int = AnsibleModule._symbolic_mode_to_octal(present, mode)
    except ValueError:
        raise failure(dest, "invalid-mode", f"there is no mode {mode!r}", 'Write it as in "0755" or "u+x"') from None
    return number


def _validation(dest: str, validate: Any) -> str | tuple[str, ...]:
    if validate in ("auto", "none"):
        return str(validate)
    if isinstance(validate, list) and any("%s" in str(word) for word in validate):
        return tuple(map(str, validate))
    what = f"validate is {validate!r}"
    raise failure(dest, "option-invalid", what, "Use auto, none, or a list such as [visudo, -cf, '%s']")


def main() -> None:
    module = AnsibleModule(
        argument_spec=specification(),
        mutually_exclusive=[
            ("src", "content"),
            ("dest", "scripts"),
            ("src", "scripts"),
            ("content", "scripts"),
            ("run", "scripts"),
        ],
        required_one_of=[("dest", "scripts")],
        supports_check_mode=True,
    )
    report = Report()
    missing: list[int] = []
    error: ShipshapeError | None = None
    try:
        scripts, contents = wanted(module)
        call = Call(
            report,
            check=module.check_mode,
            diff=module._diff,
            backup=module.params["backup"],
            backup_keep=module.params["backup_keep"],
            busy_timeout=module.params["busy_timeout"],
            run_timeout=module.params["run_timeout"],
            scratch=module.tmpdir if module.check_mode else "",
        )
        missing = place(scripts, contents, call)
    except ShipshapeError as caught:
        error = caught
    if module.params["scripts"] is None and report.values.get("scripts"):
        report.values.update(report.values["scripts"][0])
        report.values.pop("changed")
    if missing:
        report.values["missing"] = missing  # the action plugin sends these and calls again
    if error is not None:
        module.fail_json(**report.failed(error))
    module.exit_json(**report.as_dict())


if __name__ == "__main__":
    main()
