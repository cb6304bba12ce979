#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module stack_info: looks at a whole Compose project."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_info
short_description: Look at a whole Docker Compose project, and name what differs
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - Takes the same look as M(shipshape.deploy.stack) and changes nothing. Says of each service how its containers are,
    and names every difference between the Compose file and what runs.
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.project.look
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.info_module
  - shipshape.deploy.attributes.engine_group
seealso:
  - module: shipshape.deploy.stack
"""

EXAMPLES = r"""
- name: Look at the project
  shipshape.deploy.stack_info:
    project_src: /opt/studio
    env_files: [.env.production]
  register: studio

- name: Fail when it is not as the Compose file says
  ansible.builtin.assert:
    that: studio.drift == []
"""

RETURN = r"""
services:
  description: The services of the project and how their containers were found.
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
  description: Every difference between the Compose file and what runs; M(shipshape.deploy.stack) would end them.
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
      sample: state
    field: {description: What differs in the words of the Compose file., type: str, sample: state}
    wanted: {description: What the Compose file says; V(***) for what may be secret., type: raw, sample: running}
    found: {description: What was found., type: raw, sample: exited (1)}
    action: {description: What would end the difference., type: str, sample: start}
actions:
  description: Always empty, because this module does nothing; here for those who treat all modules alike.
  returned: always
  type: list
  elements: dict
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
        argument_spec={**DOCKER_OPTIONS, **PROJECT_OPTIONS, **LOOK_OPTIONS}, supports_check_mode=True, **PROJECT_RULES
    )
    report = Report()
    try:
        open_stack(module, report).look_only(order(module))
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(module.params), **report.failed(error))
    report.diff = None
    module.exit_json(invocation=invocation(module.params), **report.as_dict())


if __name__ == "__main__":
    main()
