#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Bring a project directory to its stable path on a target
version_added: 0.1.0
description:
  - Makes a directory on the target equal to a directory on the controller, with one manifest and one transfer of what
    changed, whatever the number of files. When nothing changed, the manifest is all that is sent.
  - Every file arrives whole or not at all. All contents are written beside their destinations first, so that a full
    disk changes nothing; then they are renamed, directories first, then files, then symbolic links, then Compose
    files, so that a new Compose file never names what is not there yet; removals come last.
  - A file that was shipped before and is gone from O(src) is removed. What was not shipped (data, uploads, files that
    the application makes) is never touched. What was shipped is recorded in C(.shipshape/manifest.json) below
    O(dest).
  - Killed at any instant, the next run finishes the work.
  - Content that this module did not ship itself (a file that was there before, or was modified on the target) is kept
    in C(.shipshape/backup) below O(dest) before it is replaced or removed, also without O(backup).
options:
  src:
    description:
      - The directory on the controller. A relative path is searched as for M(ansible.builtin.copy), in C(files) of
        the role or beside the playbook. Whether it ends in a slash makes no difference, its content goes to O(dest).
      - Modes and symbolic links are kept as they are, empty directories too; hard links become files. Sockets, pipes
        and devices are skipped with a finding. Files encrypted with Ansible Vault arrive decrypted.
      - Patterns in a file C(.shipshapeignore) in this directory leave out what they match; they mean what they mean
        in a C(.gitignore). That file itself and C(.git) are never shipped.
    type: str
    required: true
  dest:
    description:
      - The absolute path on the target. It is made when missing, and its parents too.
      - It may be, or be reached through, a symbolic link. Below it no symbolic link is ever followed.
    type: path
    required: true
  env_files:
    description:
      - "Env files to render: for each relative path below O(dest) a dictionary of variables."
      - Written with mode 0600 and a quoting that C(docker compose) reads back identically, both from C(env_file) of a
        service and from C(--env-file). Never shown, not in a diff either, which names variables only.
      - Text, whole numbers and booleans (as V(true) and V(false)) are taken. Null, numbers with a fraction, lists and
        dictionaries are refused, because what Compose would read is not what was meant.
      - A variable's name begins with a letter or V(_) and goes on with letters, digits, V(_), V(.) or V(-). The last
        two reach a container, but Compose interpolates no C(${...}) with them.
      - A file of the same name in O(src) is not shipped. One that was rendered before and is left out now is removed.
    type: dict
    default: {}
  ignore:
    description:
      - More patterns to leave out, read after those in C(.shipshapeignore).
      - Already shipped files that come to match are removed from the target.
    type: list
    elements: str
    default: []
  files:
    description:
      - The Compose files of the project, relative to O(dest), for RV(bind_mounts).
      - Without it Compose's own names are looked for.
    type: list
    elements: str
  owner:
    description:
      - Who shall own what is shipped.
      - By default new files belong to the user that the module runs as, and replaced ones keep their owner.
    type: str
  group:
    description: As O(owner), for the group.
    type: str
  backup:
    description:
      - Whether to keep everything that is replaced or removed, each run in a directory of its own in
        C(.shipshape/backup) below O(dest).
      - Off by default, because what was shipped can be shipped again from version control; what was not is kept
        anyway.
    type: bool
    default: false
  backup_keep:
    description: How many backups to keep. Five reach back a few deploys and cannot fill a disk unnoticed.
    type: int
    default: 5
  lock_timeout:
    description:
      - How many seconds to wait while another run ships to the same O(dest).
      - A minute is enough for usual projects to arrive.
    type: int
    default: 60
  transfer:
    description:
      - Filled in by the action plugin. Leave it out.
    type: dict
    suboptions:
      manifest:
        description: Everything that shall be there.
        type: str
      manifest_file:
        description: The file on the target with the same, when it is long.
        type: path
      rendered:
        description: The content of the env files.
        type: str
      archive:
        description: The file on the target with the contents that it asked for.
        type: path
extends_documentation_fragment:
  - shipshape.deploy.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows text files up to 100 KB. Env files show names of variables only; files named C(.env*) or C(*.env), files
        that only their owner may read, and files encrypted with Ansible Vault are not shown.
  platform:
    support: full
    platforms: posix
notes:
  - A directory keeps the mode and owner that something else than this module gave it. An application that closed its
    data directory, or has it with its own user, is left in peace. A directory that was there before is not removed.
  - C(.shipshape) below O(dest) is closed to other users (mode 0700), because backups of env files lie there, too.
  - A path that shall be a file and is a directory with foreign files, or a symbolic link that was not shipped, is an
    error, and nothing is changed.
  - Needs Python 3.9 or later on the target, nothing else. C(docker compose) there is used for RV(bind_mounts).
  - Over SSH it is fastest with pipelining. The connection compresses by default, so the transfer itself does not.
seealso:
  - module: shipshape.deploy.script
  - module: ansible.builtin.copy
author:
  - The shipshape.deploy founders (@shipshape-deploy)
"""

EXAMPLES = r"""
- name: Bring the project to the target
  shipshape.deploy.tree:
    src: shop
    dest: /srv/shop

- name: The same with its secrets, and without its tests
  shipshape.deploy.tree:
    src: shop
    dest: /srv/shop
    ignore:
      - /tests/
      - "*.md"
    env_files:
      .env.production:
        DATABASE_URL: "postgresql://shop:{{ database_password | urlencode }}@db/shop"
        SECRET_KEY: "{{ secret_key }}"
        DEBUG: false

- name: Keep what is replaced, and tell what it means for running services
  shipshape.deploy.tree:
    src: shop
    dest: /srv/shop
    backup: true
    backup_keep: 10
  register: shipped

- name: Show which services mount something that changed
  ansible.builtin.debug:
    var: shipped.bind_mounts
"""

RETURN = r"""
dest:
  description: The directory on the target, links resolved.
  returned: success
  type: str
  sample: /srv/shop
files:
  description:
    - The files and symbolic links that were, or in check mode would be, touched. Paths are relative to O(dest); bytes
      that are not UTF-8 are shown as escapes. Directories are in RV(actions).
  returned: always
  type: dict
  contains:
    added:
      description: Files that were not there.
      type: list
      elements: str
      sample: [compose.yml]
    changed:
      description: Files with other content, mode or owner.
      type: list
      elements: str
      sample: [proxy/Caddyfile]
    removed:
      description: Files that were shipped before and are gone from O(src).
      type: list
      elements: str
      sample: [proxy/old.conf]
bind_mounts:
  description:
    - "Service: those of the files added, changed or removed that it mounts, directly, by a directory above them, or
      as a C(configs) or C(secrets) file. A container goes on with the old content of a file that it mounts directly
      until it is started again."
    - Empty when nothing changed, and with an informational finding when C(docker compose config) cannot tell.
  returned: success
  type: dict
  sample:
    proxy: [proxy/Caddyfile]
backup_dir:
  description: Where this run kept what it replaced or removed. Null when it kept nothing.
  returned: success
  type: str
  sample: /srv/shop/.shipshape/backup/20250102T030405.678901Z
actions:
  description:
    - What was done, in this order; in check mode, what would be done.
    - RV(actions[].action) is one of C(create) (a directory), C(add), C(change), C(set attributes), C(remove),
      C(record), C(remove backup).
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: What.
      type: str
      sample: change
    target:
      description: The path, relative to O(dest).
      type: str
      sample: proxy/Caddyfile
    reason:
      description: Why.
      type: str
      sample: modified on the target
    seconds:
      description: How long it took.
      type: float
      sample: 0.001
findings:
  description:
    - What was noticed.
    - "Codes of warnings: V(special-file-skipped), V(link-leaves-tree), V(left-alone). Of informational ones:
      V(env-file-replaces-source), V(directory-kept), V(bind-mounts-unknown)."
    - "Codes of errors: V(path-in-the-way), V(locked), V(disk-full), V(no-rights), V(read-only), V(invalid-dest),
      V(dest-not-a-directory), V(dangling-link), V(state-directory-blocked), V(manifest-unreadable),
      V(source-missing), V(source-unreadable), V(source-changed), V(vault-locked), V(env-file-name),
      V(env-name-invalid), V(env-value-missing), V(env-value-ambiguous), V(env-value-not-text), V(archive-incomplete),
      V(archive-damaged), V(content-corrupt) and others that the file system gives reason to."
  returned: always
  type: list
  elements: dict
  contains:
    severity:
      description: V(critical), V(warning) or V(info).
      type: str
      sample: warning
    subject:
      description: The path.
      type: str
      sample: uploads/current
    code:
      description: What it is, for programs.
      type: str
      sample: link-leaves-tree
    message:
      description: What was seen.
      type: str
      sample: is a symbolic link that leaves the directory (/mnt/uploads), shipped as it is
    remedy:
      description: What to do about it.
      type: str
      sample: Make sure that the target has what it points to
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.files.manifest import unpack, unpack_contents
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree import Request, Run, converge
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError, failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

# The action plugin checks the task against this, too.
ARGUMENTS: dict[str, Any] = {
    "src": {"type": "str", "required": True},
    "dest": {"type": "path", "required": True},
    "env_files": {"type": "dict", "default": {}, "no_log": True},
    "ignore": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "backup": {"type": "bool", "default": False},
    "backup_keep": {"type": "int", "default": 5},
    "lock_timeout": {"type": "int", "default": 60},
    "transfer": {
        "type": "dict",
        "options": {
            # Not secret, but a megabyte that nobody wants in the target's syslog.
            "manifest": {"type": "str", "no_log": True},
            "manifest_file": {"type": "path"},
            "rendered": {"type": "str", "no_log": True},
            "archive": {"type": "path"},
        },
    },
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    report = Report()
    try:
        needed = converge(_request(module), report, _runner(module))
    except ShipshapeError as error:
        module.fail_json(**report.failed(error))
    if needed:
        module.exit_json(changed=False, needed=needed)
    module.exit_json(**report.as_dict())


def _request(module: AnsibleModule) -> Request:
    options = module.params
    transfer = options["transfer"] or dict.fromkeys(ARGUMENTS["transfer"]["options"])
    manifest = transfer["manifest"]
    if transfer["manifest_file"]:
        with open(transfer["manifest_file"], encoding="ascii") as stream:
            manifest = stream.read()
    if manifest is None:
        message = "was called without its action plugin, which reads src on the controller"
        raise failure("tree", "no-manifest", message, "Use it as a task: shipshape.deploy.tree")
    if options["backup_keep"] < 1 or options["lock_timeout"] < 0:
        message = "backup_keep is at least 1, lock_timeout at least 0"
        raise failure("tree", "option-invalid", message, "Correct the task")
    return Request(
        dest=options["dest"],
        wanted=unpack(manifest),
        rendered=unpack_contents(transfer["rendered"]) if transfer["rendered"] else {},
        archive=transfer["archive"],
        owner=options["owner"],
        group=options["group"],
        backup=options["backup"],
        backup_keep=options["backup_keep"],
        lock_timeout=options["lock_timeout"],
        files=options["files"],
        check=module.check_mode,
        diff=module._diff,
    )


def _runner(module: AnsibleModule) -> Run:
    """Runs `docker ...`; exit code 127 where there is none."""

    def run(words: Sequence[str]) -> tuple[int, str]:
        docker = module.get_bin_path(words[0])
        if docker is None:
            return 127, ""
        code, out = module.run_command([docker, *words[1:]])[:2]
        return code, out

    return run


if __name__ == "__main__":
    main()
