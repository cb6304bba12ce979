#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module visitor_pool: seeds, repairs, resizes, expires and resets a pool of anonymous accounts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: visitor_pool
short_description: Seed, repair, resize, expire and reset a pool of anonymous accounts
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - A slot of the pool is a user without a usable password, a project, its directory with a workspace in it, and a row
    in the table of allocations that says whether a session holds it. The application hands out free rows; this module
    sees to it that there are enough, and that each is whole and clean.
  - What is there is judged by database and disk, never by what the application says of itself. What is missing is
    made, and nothing else is touched.
  - A slot is offered again only after its directory was replaced by a new one and looked at. One that cannot be
    cleaned is quarantined.
  - Accounts of real people are never touched. A user that bears a slot's name and is a superuser, staff or able to log
    in with a password is reported, and is no slot.
  - Killed at any instant, one more run finishes what was begun.
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.pool
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.engine_group
attributes:
  check_mode:
    support: full
    details:
      - What follows O(seed_command) or an unfinished transfer cannot be foretold; only these are.
  diff_mode:
    support: full
    details:
      - Shows the slots that are worked on, before and after.
options:
  state:
    description:
      - V(present) makes what is missing, up to O(size), frees leases that no session can own, and removes slots beyond
        the size. Those that are leased stay until their lease has ended.
      - V(expired) frees slots whose lease has ended, clearing each first. Meant to be run by a timer.
      - V(reset) clears all slots, or some, whoever holds them, and makes the pool whole.
      - V(transferred) moves the project of a slot to the account that its visitor has signed up for, and makes the slot
        anew. The same once more finds it done, as long as the account has the project; for anybody else the token is
        used up.
      - Give all other options that say what the pool is the same values whatever the state, O(size) and O(workspace)
        among them. A slot that is cleared is made anew from them, and one above the size is removed.
      - V(present) by default, because it takes nothing from anybody.
    type: str
    choices: [present, expired, reset, transferred]
    default: present
  slots:
    description:
      - With O(state=reset) and O(state=expired), numbers of the slots that are meant. A number that is no slot's is an
        error, and nothing is done.
      - All of them by default.
    type: list
    elements: int
    default: []
  expired_only:
    description:
      - With O(state=reset), clears only slots whose lease has ended.
      - Off by default, because a reset is meant to begin anew.
    type: bool
    default: false
  environment:
    description:
      - What this deployment is. In V(production) nothing is reset without O(force).
      - Empty by default, because the play knows it, and the module does not.
    type: str
    default: ''
  force:
    description:
      - Resets in production, too.
      - Off by default, because visitors lose their work.
    type: bool
    default: false
  slot:
    description:
      - With O(state=transferred), the number of the slot.
    type: int
  session_key:
    description:
      - With O(state=transferred), the key of the session that holds the slot.
    type: str
  token:
    description:
      - With O(state=transferred), the token that this session was given. It is compared in constant time with an
        active lease of this very slot and session that has not ended.
    type: str
  to_user:
    description:
      - With O(state=transferred), the name of the account. It must be there, and must have no project of that name.
    type: str
  seed_command:
    description:
      - The application's own command that makes slots, as a list of arguments. It is run once, in a container of
        O(service) of its own, when something is missing; then everything is looked at, and what is still missing is
        made.
      - None by default, because the module makes slots itself.
    type: list
    elements: str
    default: []
  git_url:
    description:
      - A git server with Gitea's API, on which each slot is to have an account and a repository. What it refuses is a
        warning, and the slots work without it.
      - None by default, because a workspace needs no server.
    type: str
  git_token:
    description:
      - Token of an administrator of O(git_url).
    type: str
  git_required:
    description:
      - Fails when the git server does not do its part. The slots are made all the same.
      - Off by default, because visitors can work without it.
    type: bool
    default: false
requirements:
  - "psycopg >= 3.1 on the target, for PostgreSQL"
  - "git on the target, for a template that is a repository"
seealso:
  - module: shipshape.deploy.visitor_pool_info
"""

EXAMPLES = r"""
- name: Have 64 slots, in the database and in the volume of the application
  shipshape.deploy.visitor_pool:
    project_src: /opt/studio
    env_files: [.env.production]
    service: web
    data_service: web
    data_root: /data/users
    size: 64
    workspace:
      path: scitex/writer
      marker: 01_manuscript
      template: /opt/studio/workspace

- name: Free the slots whose lease has ended
  shipshape.deploy.visitor_pool:
    database_url: "{{ studio_database_url }}"
    data_root: /srv/studio/users
    size: 64
    workspace: {path: scitex/writer, marker: 01_manuscript, template: /opt/studio/workspace}
    state: expired

- name: Clear two slots, also in production
  shipshape.deploy.visitor_pool:
    database_url: "{{ studio_database_url }}"
    data_root: /srv/studio/users
    size: 64
    workspace: {path: scitex/writer, marker: 01_manuscript, template: /opt/studio/workspace}
    state: reset
    slots: [3, 7]
    environment: production
    force: true

- name: Move what the visitor of slot 15 has written to the account that he has made
  shipshape.deploy.visitor_pool:
    database_url: "{{ studio_database_url }}"
    data_root: /srv/studio/users
    size: 64
    workspace: {path: scitex/writer, marker: 01_manuscript, template: /opt/studio/workspace}
    state: transferred
    slot: 15
    session_key: "{{ visit.session_key }}"
    token: "{{ visit.token }}"
    to_user: alice

- name: A pool for an application that has no tables for it
  shipshape.deploy.visitor_pool:
    database_url: sqlite:////srv/notes/visitors.db
    schema: builtin
    data_root: /srv/notes/users
    workspace: {path: notes, marker: welcome.txt, template: /srv/notes/template}

- name: An application with names of its own
  shipshape.deploy.visitor_pool:
    database_url: "{{ shop_database_url }}"
    data_root: /srv/shop/users
    workspace_flag: ready
    schema:
      users:
        table: accounts.account
        columns: {username: login, is_superuser: admin, is_staff: null, is_active: null}
        constants: {email: "{username}@example.com", created: now()}
      projects:
        table: board
        columns: {owner_id: account_id, name: title}
        constants: {}
      allocations:
        table: visitor_slot
        columns: {visitor_number: number, allocation_token: token_digest}

- name: Tables in a schema of their own, with quoted names, and keys that the application makes (Prisma, UUIDs)
  shipshape.deploy.visitor_pool:
    database_url: "{{ board_database_url }}"
    data_root: /srv/board/users
    workspace_flag: ""
    schema:
      users:
        table: app.User
        columns: {username: userName, password: passwordHash, is_superuser: null, is_staff: null, is_active: isActive}
        constants: {id: uuid(), role: MEMBER, updatedAt: now()}
      projects:
        table: app.Project
        columns: {owner_id: ownerId}
        constants: {id: uuid(), settings: {theme: dark}, updatedAt: now()}
      allocations:
        table: app.VisitorSlot
        columns:
          visitor_number: number
          session_key: sessionKey
          allocation_token: tokenDigest
          allocated_at: allocatedAt
          expires_at: expiresAt
          is_active: isActive
        constants: {id: uuid()}
"""

RETURN = r"""
slots:
  description: How many slots are in which state, counted in database and on disk. The states add up to the total.
  returned: always, once the pool could be looked at
  type: dict
  contains:
    total: {description: "Slots of which anything is there, be it a directory.", type: int, sample: 32}
    allocatable: {description: Whole and free., type: int, sample: 30}
    leased: {description: Held by a session., type: int, sample: 2}
    expired: {description: "Held by a session whose lease has ended.", type: int, sample: 0}
    resetting: {description: "Being cleaned, or left so by who was killed.", type: int, sample: 0}
    quarantined: {description: Could not be cleaned., type: int, sample: 0}
    missing: {description: Something of it is not there; so it cannot be handed out., type: int, sample: 0}
    wanted: {description: The size., type: int, sample: 32}
    absent: {description: Slots up to the size of which nothing is there., type: int, sample: 0}
health:
  description:
    - V(failed) when nothing can be handed out and waiting does not help, see RV(cause).
    - V(degraded) when the pool is V(saturated), or when a finding about a slot is critical or a warning.
    - V(ok) otherwise.
  returned: always, once the pool could be looked at
  type: str
  sample: ok
cause:
  description:
    - Why nothing can be handed out, V(unprovisioned), V(saturated) or V(quarantined). Empty when something can.
  returned: always, once the pool could be looked at
  type: str
  sample: ''
remedy:
  description: What to do about RV(cause).
  returned: always, once the pool could be looked at
  type: str
  sample: ''
status_text:
  description: The same counts as applications print them.
  returned: always, once the pool could be looked at
  type: str
  sample: "\n=== Visitor Pool Status ===\nTotal slots: 32\nAllocated: 2\nFree: 30\nExpired: 0\n"
cleared:
  description: How many slots were cleared; in check mode, how many would be.
  returned: unless O(state=transferred)
  type: int
  sample: 0
actions:
  description: What was done, in the order in which it was finished; in check mode, what would be done.
  returned: always
  type: list
  elements: dict
  contains:
    action: {description: What was done., type: str, sample: create-workspace}
    target: {description: To what., type: str, sample: visitor-017}
    reason: {description: Why., type: str, sample: it is missing}
    seconds: {description: "How long it took; V(0) in check mode.", type: float, sample: 0.002}
findings:
  description:
    - What is still to be said of the slots. The codes V(user-missing), V(project-missing), V(directory-missing),
      V(workspace-missing), V(allocation-missing), V(user-inactive), V(user-flag-wrong),
      V(project-flag-wrong), V(directory-blocked), V(directory-denied), V(data-root-denied),
      V(lease-phantom), V(lease-ended), V(lease-endless), V(lease-unreadable), V(slot-not-cleared),
      V(slot-resetting), V(slot-quarantined), V(slot-draining), V(slot-surplus),
      V(slots-absent), V(slot-busy), V(slot-not-made), V(user-not-a-visitor), V(leftovers-kept),
      V(transfer-two-projects), V(transfer-mark-old); of the database
      V(table-missing), V(column-missing), V(column-type), V(column-without-value), V(not-unique),
      V(rows-hidden), V(database-pooled); of the git server V(git-unreachable), V(git-refused).
  returned: always
  type: list
  elements: dict
  contains:
    severity: {description: "V(critical), V(warning) or V(info).", type: str, sample: warning}
    subject: {description: What it is about., type: str, sample: visitor-007}
    code: {description: A stable name for this kind of finding., type: str, sample: user-not-a-visitor}
    message: {description: What was seen., type: str, sample: the user called visitor-007 is a superuser}
    remedy: {description: What to do about it., type: str, sample: Give that account another name}
logs:
  description: The last lines of a command of the application that failed, secrets masked.
  returned: on failure
  type: dict
  sample: {"docker compose run": ["no such table"]}
"""

from contextlib import closing

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.database import reach
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.arguments import (
    DOCKER_OPTIONS,
    PROJECT_OPTIONS,
    invocation,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.arguments import POOL_OPTIONS, opened
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.operate import Operation
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DOCKER_OPTIONS,
            **PROJECT_OPTIONS,
            **POOL_OPTIONS,
            "state": {
                "type": "str",
                "choices": ["present", "expired", "reset", "transferred"],
                "default": "present",
            },
            "slots": {"type": "list", "elements": "int", "default": []},
            "expired_only": {"type": "bool", "default": False},
            "environment": {"type": "str", "default": ""},
            "force": {"type": "bool", "default": False},
            "slot": {"type": "int"},
            "session_key": {"type": "str", "no_log": True},
            "token": {"type": "str", "no_log": True},
            "to_user": {"type": "str"},
            "seed_command": {"type": "list", "elements": "str", "default": []},
            "git_url": {"type": "str"},
            "git_token": {"type": "str", "no_log": True},
            "git_required": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("definition", "files")],
        required_one_of=[("database_url", "service")],
        required_by={"definition": ("project_name",)},
        required_if=[("state", "transferred", ("slot", "session_key", "token", "to_user"))],
        supports_check_mode=True,
    )
    report = Report()
    try:
        with closing(opened(module, report, reach)) as pool:
            Operation(pool, module._diff).run()
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(module.params), **report.failed(error))
    module.exit_json(invocation=invocation(module.params), **report.as_dict())


if __name__ == "__main__":
    main()
