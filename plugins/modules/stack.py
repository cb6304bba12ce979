#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module stack: converges a whole Compose project."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack
short_description: Converge a whole Docker Compose project, and prove that it runs
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - Brings a Compose project about in one task, all services at once. What is unchanged is left alone, what differs is
    replaced, what is new is created and started in the order of C(depends_on) and its conditions.
  - C(docker compose) decides what a container is, so every key of the Compose file means what it always means; this
    module decides when and how a new container replaces the old one. The old container is kept until the new one has
    been seen to run for O(stability) seconds. If it does not, the old one runs again, and the task fails and says why.
  - Afterwards C(docker compose ps), C(logs), C(exec) and C(down) work as ever, and C(docker compose up -d) finds
    nothing to do.
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.project.look
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.engine_group
attributes:
  check_mode:
    support: full
    details:
      - Says what would be done, container by container. Whether a pull or a build would bring a newer image is only
        known by doing it, so only missing images are announced.
  diff_mode:
    support: full
    details:
      - Names each difference in the words of the Compose file. The values of environment variables, configs and
        secrets are never shown, nor what variables with a secret's name (C(REDIS_PASSWORD)) put into a command, a label
        or a healthcheck, nor what stood there before.
options:
  state:
    description:
      - V(present) means everything runs as the Compose file says.
      - V(stopped) means nothing of the project runs, and nothing is removed.
      - V(absent) means its containers and networks are gone. Volumes stay unless O(remove_volumes) is true.
    type: str
    choices: [present, stopped, absent]
    default: present
  pull:
    description:
      - Which images are looked for in their registry. V(policy) does what C(pull_policy) says for each service, as
        Compose does. V(missing) pulls only what is not on the engine, V(always) asks for all, V(never) for none.
      - V(policy) by default, because the Compose file is the one source of truth.
    type: str
    choices: [policy, missing, always, never]
    default: policy
  build:
    description:
      - Which images of services with a C(build) section are built. V(auto) builds what is not on the engine, what was
        built from other files than those that lie there now, and what C(pull_policy=build) asks for. V(always) builds
        all of them; an unchanged result recreates nothing.
      - With V(never) a service that names an C(image) beside its C(build) section gets that image from its registry,
        according to O(pull). Otherwise what the project builds is never pulled, neither for the service that builds it
        nor for others that name the same image.
      - V(auto) by default, so that a changed source is never served by an old image, and nothing is built for nothing.
    type: str
    choices: [auto, always, never]
    default: auto
  recreate:
    description:
      - Which containers are replaced. V(auto) those that differ, V(always) all, V(never) none.
      - V(auto) by default; the others are for the rare case where something outside of what can be seen has changed.
    type: str
    choices: [auto, always, never]
    default: auto
  remove_orphans:
    description:
      - Remove containers of the project whose service is no longer in the Compose file.
      - Off by default, as with Compose, because such a container may belong to another file of the same project. They
        are reported as findings.
    type: bool
    default: false
  remove_volumes:
    description:
      - With O(state=absent), remove the project's volumes and the data in them as well.
      - Off by default, because there is no way back.
    type: bool
    default: false
  stability:
    description:
      - Seconds over which a new or started container must keep running without a restart to count as up.
      - The default finds the usual crash loops (a missing variable, a database that refuses the password) and keeps a
        deploy short. Services that nothing is done to are not waited for.
    type: float
    default: 10
  wait_timeout:
    description:
      - Seconds that a container may take to become healthy, and a dependency to meet its condition. Also how long to
        wait for another run on the same project to end.
      - The default leaves time for a database's first initialisation, and still ends while somebody is looking.
    type: float
    default: 300
  restarts_allowed:
    description:
      - How often the engine may restart a container while it is watched. The window of O(stability) begins anew with
        each restart.
      - None by default, because a restart is a crash. For applications that need a second try.
    type: int
    default: 0
  rollback:
    description:
      - When a service's new containers fail, put back those of its containers that were replaced before as well.
        A container whose own replacement failed is put back in any case. C(deploy.update_config.failure_action) of
        the Compose file says the same for one service.
      - On by default, so that a failed deploy leaves what ran before.
    type: bool
    default: true
  optional_services:
    description:
      - Services whose failure is a warning, and stops nobody.
      - None by default, because a service that may fail unnoticed is one that nobody needs.
    type: list
    elements: str
    default: []
  protected_services:
    description:
      - Services (a database, say) whose containers are never replaced, restarted or removed unasked. When they
        differ the task fails before anything is touched.
      - None by default, because only the owner knows which.
    type: list
    elements: str
    default: []
  allow_protected:
    description:
      - Protected services that this run may replace all the same.
      - None by default.
    type: list
    elements: str
    default: []
seealso:
  - module: shipshape.deploy.stack_info
  - module: shipshape.deploy.tree
"""

EXAMPLES = r"""
- name: Deploy the project
  shipshape.deploy.stack:
    project_src: /opt/studio
    env_files: [.env.production]

- name: Deploy with freshly built images, without what is no longer in the Compose file
  shipshape.deploy.stack:
    project_src: /opt/studio
    env_files: [.env.production]
    build: always
    remove_orphans: true

- name: Start only the database, and what it depends on
  shipshape.deploy.stack:
    project_src: /opt/studio
    env_files: [.env.production]
    services: [db]

- name: A project without files
  shipshape.deploy.stack:
    project_name: hello
    definition:
      services:
        web:
          image: caddy:2
          ports: ["127.0.0.1:8081:80"]

- name: Remove the project, and keep its data
  shipshape.deploy.stack:
    project_src: /opt/studio
    state: absent
"""

RETURN = r"""
services:
  description: The services of the project and how their containers were found at the end.
  returned: always
  type: dict
  contains:
    state:
      description: The state of the service's worst-off container, or V(completed) for a job that has done its work.
      type: str
      sample: running
    containers:
      description: The service's containers.
      type: list
      elements: dict
      contains:
        name: {description: Name of the container., type: str, sample: studio-web-1}
        id: {description: First twelve digits of its id., type: str, sample: 3f5c2a1b9d0e}
        state: {description: The engine's word for its state., type: str, sample: running}
        health: {description: "What its healthcheck says, empty without one.", type: str, sample: healthy}
        restarts: {description: How often the engine has restarted it., type: int, sample: 0}
        started_at: {description: When it was started last., type: str, sample: "2026-11-23T05:58:11.1Z"}
        log_since:
          description:
            - From when on its log is of that start, as C(docker logs --since) takes it. A container may have said its
              first lines a little before the engine notes that it was started.
          type: str
          sample: "1795413490.962000000"
        exit_code: {description: The code that it ended with last., type: int, sample: 0}
        image: {description: The image's name., type: str, sample: studio-web}
        image_id: {description: First twelve digits of the image's id., type: str, sample: 9b8a7c6d5e4f}
drift:
  description: Every difference between the Compose file and what was found before anything was done.
  returned: always
  type: list
  elements: dict
  contains:
    service: {description: Name of the service., type: str, sample: web}
    container: {description: Name of the container., type: str, sample: studio-web-1}
    kind:
      description:
        - One of V(desired) (the definition changed), V(image) (its name means another image now), V(baked) (a file of
          O(baked_files) differs), V(content) (a mounted file changed, or was replaced and is still the old one inside),
          V(runtime) (changed by hand), V(filesystem) (something below O(watch_paths) changed), V(state), V(missing),
          V(orphan).
      type: str
      sample: desired
    field: {description: What differs in the words of the Compose file., type: str, sample: environment.DEBUG}
    wanted: {description: What the Compose file says; V(***) for what may be secret., type: raw, sample: "***"}
    found: {description: What was found., type: raw, sample: "***"}
    action: {description: What ends the difference., type: str, sample: recreate}
actions:
  description: What was done, in the order in which it was finished; in check mode, what would be done.
  returned: always
  type: list
  elements: dict
  contains:
    action: {description: What was done., type: str, sample: recreate}
    target: {description: To what., type: str, sample: studio-web-1}
    reason: {description: Why., type: str, sample: environment.DEBUG changed}
    seconds: {description: How long it took; V(0) in check mode., type: float, sample: 10.4}
findings:
  description: What else was seen.
  returned: always
  type: list
  elements: dict
  contains:
    severity: {description: "V(critical), V(warning) or V(info).", type: str, sample: warning}
    subject: {description: What it is about., type: str, sample: web}
    code: {description: A stable name for this kind of finding., type: str, sample: orphan}
    message: {description: What was seen., type: str, sample: container studio-old-1 belongs to no service any more}
    remedy: {description: What to do about it., type: str, sample: "Set remove_orphans: true to remove it"}
logs:
  description: The last lines of the containers that are to blame, secrets masked.
  returned: on failure
  type: dict
  sample: {"studio-web-1": ["ModuleNotFoundError: No module named 'studio'"]}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.arguments import (
    DOCKER_OPTIONS,
    LOOK_OPTIONS,
    PROJECT_OPTIONS,
    PROJECT_RULES,
    invocation,
    order,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.opening import open_stack
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DOCKER_OPTIONS,
            **PROJECT_OPTIONS,
            **LOOK_OPTIONS,
            "state": {"type": "str", "choices": ["present", "stopped", "absent"], "default": "present"},
            "pull": {"type": "str", "choices": ["policy", "missing", "always", "never"], "default": "policy"},
            "build": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "recreate": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "remove_orphans": {"type": "bool", "default": False},
            "remove_volumes": {"type": "bool", "default": False},
            "stability": {"type": "float", "default": 10},
            "wait_timeout": {"type": "float", "default": 300},
            "restarts_allowed": {"type": "int", "default": 0},
            "rollback": {"type": "bool", "default": True},
            "optional_services": {"type": "list", "elements": "str", "default": []},
            "protected_services": {"type": "list", "elements": "str", "default": []},
            "allow_protected": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
        **PROJECT_RULES,
    )
    report = Report()
    try:
        stack = open_stack(module, report)
        if module.params["state"] == "present":
            stack.present(order(module))
        else:
            stack.take_down(module.params["state"], order(module))
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(module.params), **report.failed(error))
    module.exit_json(invocation=invocation(module.params), **report.as_dict())


if __name__ == "__main__":
    main()
