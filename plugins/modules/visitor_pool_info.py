#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module visitor_pool_info: looks at a pool of anonymous accounts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: visitor_pool_info
short_description: Count the slots of a pool of anonymous accounts, and name what is wrong with them
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - Takes the same look as M(shipshape.deploy.visitor_pool), by database and disk, and changes nothing in either.
  - Says what state each slot is in, why nothing can be handed out if that is so, whether the pool is nearly full, and
    how large it should be.
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.pool
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.info_module
  - shipshape.deploy.attributes.engine_group
options:
  migrate_command:
    description:
      - Taken so that both modules can be given the same options. Nothing is run.
    type: list
    elements: str
    default: []
  visitors_per_day:
    description:
      - How many visitors come in a day. With it RV(recommended_size) is told.
      - By default nothing is recommended.
    type: float
  session_hours:
    description:
      - How long one keeps his slot, on average. Then the size follows from how many are there at once, so that on
        average 80 % of the slots are leased, and at most one visitor in 100 finds none.
      - By default the setup guide's rule of thumb is used, 32 slots up to 500 visitors a day, 64 up to 1,000, 128
        beyond.
    type: float
  conversion:
    description:
      - What part of the visitors signs up, from 0 to 1. They free their slots early, on average half-way through.
      - None by default, which is the careful guess.
    type: float
    default: 0
  parse:
    description:
      - Text of a log, of a console or of a status command. What it tells of a visitor pool is returned as
        RV(events). Without O(database_url) and O(service) nothing else is done.
      - None by default, because what is printed proves nothing.
    type: str
  state_dir:
    description:
      - Directory on the target in which it is kept whether the last look found the pool nearly full, so that the alert
        is raised once.
      - By default C(/var/lib/shipshape), or C(~/.local/state/shipshape) of a user who is not root.
    type: path
requirements:
  - "psycopg >= 3.1 on the target, for PostgreSQL"
seealso:
  - module: shipshape.deploy.visitor_pool
"""

EXAMPLES = r"""
- name: Look at the pool
  shipshape.deploy.visitor_pool_info:
    project_src: /opt/studio
    env_files: [.env.production]
    service: web
    data_service: web
    data_root: /data/users
    visitors_per_day: 700
    session_hours: 1.5
    conversion: 0.1
  register: pool

- name: Fail when nobody can be let in
  ansible.builtin.assert:
    that: pool.cause == ''
    fail_msg: "{{ pool.cause }}: {{ pool.remedy }}"

- name: What did the application say when it started?
  shipshape.deploy.visitor_pool_info:
    parse: "{{ log.stdout }}"
  register: said
"""

RETURN = r"""
slots:
  description: How many slots are in which state, counted in database and on disk. The states add up to the total.
  returned: always, unless only O(parse) was asked for
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
  returned: always, unless only O(parse) was asked for
  type: str
  sample: ok
cause:
  description:
    - Why nothing can be handed out, V(unprovisioned), V(saturated), V(quarantined) or V(schema), each with a
      remedy of its own. Empty when something can.
  returned: always, unless only O(parse) was asked for
  type: str
  sample: ''
remedy:
  description: What to do about RV(cause).
  returned: always, unless only O(parse) was asked for
  type: str
  sample: ''
status_text:
  description: The same counts as applications print them.
  returned: always, unless only O(parse) was asked for
  type: str
  sample: "\n=== Visitor Pool Status ===\nTotal slots: 32\nAllocated: 2\nFree: 30\nExpired: 0\n"
utilisation:
  description: What part of the usable slots is leased, from 0 to 1; quarantined and incomplete ones are not counted.
  returned: always, unless only O(parse) was asked for
  type: float
  sample: 0.8125
alert:
  description: Whether strictly more than 80 % of the usable slots are leased.
  returned: always, unless only O(parse) was asked for
  type: dict
  contains:
    active: {description: It is so now., type: bool, sample: true}
    raised: {description: The last look did not find it so; it is time to tell somebody., type: bool, sample: true}
    cleared: {description: It is not so any more., type: bool, sample: false}
recommended_size:
  description: The size to give the pool; none without O(visitors_per_day).
  returned: always, unless only O(parse) was asked for
  type: int
  sample: 64
events:
  description:
    - What O(parse) tells, in its order. RV(events[].event) is V(status), V(allocated), V(project-id), V(project),
      V(activity), V(initializing) or V(ready); the other keys depend on it.
  returned: when O(parse) is given
  type: list
  elements: dict
  contains:
    event: {description: What happened., type: str, sample: allocated}
    user: {description: The slot's user., type: str, sample: visitor-015}
    slot: {description: Its number., type: int, sample: 15}
    project_id: {description: Of V(project-id)., type: int, sample: 101}
    project: {description: Of V(project)., type: str, sample: default-project}
    component: {description: "Of V(activity), which part of the application spoke.", type: str, sample: Writer}
    message: {description: "Of V(activity), what it said.", type: str, sample: Saving 5 sections for manuscript}
    total: {description: Of V(status)., type: int, sample: 32}
    allocated: {description: Of V(status)., type: int, sample: 0}
    free: {description: Of V(status)., type: int, sample: 32}
    expired: {description: Of V(status)., type: int, sample: 0}
actions:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
findings:
  description:
    - What is to be said of the slots. The codes V(user-missing), V(project-missing), V(directory-missing),
      V(workspace-missing), V(allocation-missing), V(user-inactive), V(user-flag-wrong),
      V(project-flag-wrong), V(directory-blocked), V(directory-denied), V(data-root-denied),
      V(lease-phantom), V(lease-ended), V(lease-endless), V(lease-unreadable), V(slot-not-cleared),
      V(slot-resetting), V(slot-quarantined), V(slot-draining), V(slot-surplus),
      V(slots-absent), V(user-not-a-visitor), V(pool-nearly-full), V(alert-not-kept),
      V(transfer-unfinished); of the database
      V(table-missing), V(column-missing), V(column-type), V(column-without-value), V(not-unique),
      V(rows-hidden), V(database-pooled).
  returned: always
  type: list
  elements: dict
  contains:
    severity: {description: "V(critical), V(warning) or V(info).", type: str, sample: warning}
    subject: {description: What it is about., type: str, sample: visitor-007}
    code: {description: A stable name for this kind of finding., type: str, sample: user-not-a-visitor}
    message: {description: What was seen., type: str, sample: the user called visitor-007 is a superuser}
    remedy: {description: What to do about it., type: str, sample: Give that account another name}
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
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.info import look
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DOCKER_OPTIONS,
            **PROJECT_OPTIONS,
            **POOL_OPTIONS,
            "visitors_per_day": {"type": "float"},
            "session_hours": {"type": "float"},
            "conversion": {"type": "float", "default": 0},
            "parse": {"type": "str"},
            "state_dir": {"type": "path"},
        },
        mutually_exclusive=[("definition", "files")],
        required_one_of=[("database_url", "service", "parse")],
        required_by={"definition": ("project_name",)},
        supports_check_mode=True,
    )
    options = module.params
    report = Report()
    try:
        if options["parse"] is not None:
            from ansible_collections.shipshape.deploy.plugins.module_utils.pool.console import events

            report.values["events"] = events(options["parse"])
        if options["database_url"] or options["service"]:
            with closing(opened(module, report, reach, write=False)) as pool:
                look(pool, remember=not module.check_mode)
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(options), **report.failed(error))
    module.exit_json(invocation=invocation(options), **report.as_dict())


if __name__ == "__main__":
    main()
