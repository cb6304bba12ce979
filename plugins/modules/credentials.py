#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module credentials: compares database credentials in all places, and by real login; rotates a password."""

from __future__ import annotations

DOCUMENTATION = r"""
module: credentials
short_description: Compare database credentials in file, Compose, container and by real login; rotate a password
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - For every service and every variable that holds a database's connection URL, says what the env file, Compose after
    its own precedence, and the running container hold, logs in to the database with it, and names the odd one out.
  - A login goes over TCP to the address that the service itself would use, resolved through the project's networks;
    never over the local socket or a loopback that trusts everybody. PostgreSQL, Redis and MySQL or MariaDB are logged
    in to, other schemes are compared only.
  - Passwords are never shown. A fingerprint beside each masked value tells equal passwords from different ones; it is
    made with a key of this one run.
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.engine_group
attributes:
  check_mode:
    support: full
    details:
      - With O(state=rotated), says what would be altered, rewritten and recreated.
  diff_mode:
    support: full
    details:
      - Names the variables of the env files that change, never their values.
options:
  state:
    description:
      - V(verified) looks, and changes nothing. It fails when a credential will not work with what the next container
        gets.
      - V(rotated) gives the database role of O(variables) a new password, rewrites it in the env files, recreates the
        services that use it, logs in with the new one and is refused with the old one. PostgreSQL only. Killed at any
        instant, the same task run again finishes it; until then old and new password are kept in a file of mode 0600
        beside the env file.
      - V(verified) by default, because looking harms nobody.
    type: str
    choices: [verified, rotated]
    default: verified
  variables:
    description:
      - Names of the variables to look at, in whatever service has them.
      - By default all whose value is, or was meant to be, a URL of C(postgresql), C(redis), C(mysql), C(mariadb) or
        C(amqp), so that a C(DIRECT_URL) beside C(DATABASE_URL) is not forgotten.
      - With O(state=rotated) one of them is enough; other variables with the same role on the same server follow.
    type: list
    elements: str
    default: []
  password:
    description:
      - The new password for O(state=rotated). When everything holds it already, nothing is done.
      - By default one of 32 random characters is made, which then stands in the env file only. Set it when the env file
        is rendered from variables of yours, or the next deploy brings the old one back.
    type: str
  stability:
    description:
      - With O(state=rotated), seconds over which a recreated container must keep running, as in
        M(shipshape.deploy.stack).
      - The default is that module's.
    type: float
    default: 10
  wait_timeout:
    description:
      - With O(state=rotated), seconds that a recreated container may take to become healthy, and to wait for another
        run on the same project.
      - The default is that of M(shipshape.deploy.stack).
    type: float
    default: 300
requirements:
  - "psycopg >= 3.1 on the target, for PostgreSQL"
  - "redis >= 5.0 on the target, for Redis"
  - "PyMySQL >= 1.1 on the target, for MySQL and MariaDB"
seealso:
  - module: shipshape.deploy.stack
"""

EXAMPLES = r"""
- name: Will the credentials of the next containers work?
  shipshape.deploy.credentials:
    project_src: /opt/studio
    env_files: [.env.production]

- name: Give the application's database role the password of the vault
  shipshape.deploy.credentials:
    project_src: /opt/studio
    env_files: [.env.production]
    state: rotated
    variables: [DATABASE_URL]
    password: "{{ studio_db_password }}"
"""

RETURN = r"""
credentials:
  description: Each credential, what every place says of it, and the verdict.
  returned: always
  type: list
  elements: dict
  contains:
    service: {description: Name of the service., type: str, sample: web}
    variable: {description: Name of the variable., type: str, sample: DATABASE_URL}
    verdict:
      description:
        - V(ok), or what to mend first, one of V(placeholder), V(malformed), V(login-refused), V(database-missing),
          V(unreachable), V(file-differs) and V(container-stale).
      type: str
      sample: container-stale
    verdicts:
      description: The codes of all findings about it, the worst first.
      type: list
      elements: str
      sample: [container-stale]
    sources:
      description: What each place says.
      type: dict
      contains:
        compose:
          description: What the next container gets, and which place decides it.
          type: dict
          sample: {"where": ".env.production", "value": "postgresql://app:***@db:5432/app", "fingerprint": "5c1f"}
        file:
          description: What the env file says, where one names the variable.
          type: dict
          sample: {"where": ".env.production", "value": "postgresql://app:***@db:5432/app", "fingerprint": "5c1f"}
        containers:
          description: What the running containers have.
          type: list
          elements: dict
          sample:
            - {"where": "container studio-web-1", "value": "postgresql://app:***@db:5432/app", "fingerprint": "91d3"}
        login:
          description: How the login with what the next container gets ended, with the server's own code and words.
          type: dict
          sample: {"address": "172.18.0.2", "server": "studio-db-1", "outcome": "ok", "code": "", "words": ""}
actions:
  description: What was done, in the order in which it was finished; in check mode, what would be done.
  returned: always
  type: list
  elements: dict
  contains:
    action: {description: What was done., type: str, sample: alter-role}
    target: {description: To what., type: str, sample: app at studio-db-1}
    reason: {description: Why., type: str, sample: a new password}
    seconds: {description: How long it took; V(0) in check mode., type: float, sample: 0.1}
findings:
  description: What else was seen. Beside the verdicts the codes V(login-not-tried), V(login-library-missing) and
    V(password-not-asked).
  returned: always
  type: list
  elements: dict
  contains:
    severity: {description: "V(critical), V(warning) or V(info).", type: str, sample: warning}
    subject: {description: What it is about., type: str, sample: web DATABASE_URL}
    code: {description: A stable name for this kind of finding., type: str, sample: container-stale}
    message: {description: What was seen., type: str, sample: container studio-web-1 runs with what was true before}
    remedy: {description: What to do about it., type: str, sample: Recreate it}
logs:
  description: The last lines of the containers that are to blame, secrets masked.
  returned: on failure
  type: dict
  sample: {"studio-web-1": ["password authentication failed"]}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.database.verify import Verifier
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.arguments import (
    DOCKER_OPTIONS,
    PROJECT_OPTIONS,
    PROJECT_RULES,
    invocation,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.opening import open_project
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DOCKER_OPTIONS,
            **PROJECT_OPTIONS,
            "state": {"type": "str", "choices": ["verified", "rotated"], "default": "verified"},
            "variables": {"type": "list", "elements": "str", "default": []},
            "password": {"type": "str", "no_log": True},
            "stability": {"type": "float", "default": 10},
            "wait_timeout": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
        **PROJECT_RULES,
    )
    options = module.params
    report = Report()
    report.values["credentials"] = []
    try:
        verifier = Verifier(*open_project(module), report)
        if options["state"] == "verified":
            verifier.verified(options["variables"])
        else:
            _rotate(module, verifier)
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(options), **report.failed(error))
    module.exit_json(invocation=invocation(options), **report.as_dict())


def _rotate(module: AnsibleModule, verifier: Verifier) -> None:
    from ansible_collections.shipshape.deploy.plugins.module_utils.database.rotate import Rotation, Wish
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.atomic import Attributes, write

    def put(path: str, content: bytes, mode: int | None) -> None:
        write(path, content, Attributes(mode=mode))

    options = module.params
    wish = Wish(
        variables=tuple(options["variables"]),
        password=options["password"],
        stability=options["stability"],
        wait_timeout=options["wait_timeout"],
        check=module.check_mode,
    )
    Rotation(verifier, wish, put).run()


if __name__ == "__main__":
    main()
