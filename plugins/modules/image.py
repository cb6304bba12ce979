#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image: says which layer of a project's images is stale; builds, pulls and prunes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Say which layer is stale (source, image or container), build, pull and prune a project's images
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - Compares every file that the images of a Compose project are built with, by content, in its source, in the image
    and in each running container, and names the layer that holds an old one. An image that was not built again is
    stale, and so is a container that was only restarted after the build.
  - The files are found in the Dockerfiles of the services, in their C(COPY) and C(ADD) lines, or named in
    O(baked_files). An image is read without running it.
  - A file that the build itself alters (a C(RUN sed -i), say) is no stale one. What a build makes of it is remembered
    once O(state=present) or M(shipshape.deploy.stack) has built the image; until then it is only reported.
  - What an image was built from, and which images ran well, is remembered in a small file on the target
    (C(/var/lib/shipshape), or below C(XDG_STATE_HOME) or C(~/.local/state) for another user than root).
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.engine_group
attributes:
  check_mode:
    support: full
    details:
      - Whether a build or a pull brings another image is only known by doing it. Announced are those of images that are
        missing, and builds of images in which a file is stale.
  diff_mode:
    support: none
    details:
      - Which files differ, and in which layer, is in RV(services) with and without it.
options:
  state:
    description:
      - V(verified) looks, changes nothing, and fails when something is stale.
      - V(present) builds and pulls as M(shipshape.deploy.stack) does, and builds as well what it finds stale. It
        replaces no container, so one that lags behind is only a warning.
      - V(pruned) removes old images of the project that no container uses and no name of somebody else's refers to,
        except the last O(keep) of each service that ran well.
      - V(verified) by default, because nothing is changed unless that is asked for.
    type: str
    choices: [verified, present, pruned]
    default: verified
  baked_files:
    description:
      - Files that an image is built with, and that have to be the same in source, image and container. A service that
        is named here is judged by these files alone.
      - None by default, because the Dockerfiles tell.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: The service whose image and containers are looked into.
        type: str
        required: true
      path:
        description: Absolute path of the file in the container.
        type: str
        required: true
      src:
        description: The file that it is made from, relative to O(project_src).
        type: path
        required: true
  version_marker:
    description:
      - Regular expression that finds the version in a baked file; its first group is the version, or else all that it
        matches. The version is read from source, image and container, and from the container's log since its last
        start, where a line with the bare version will do when the expression itself finds none.
      - None by default, because only the owner knows what such a line looks like.
    type: str
  required_patterns:
    description:
      - What files in running containers must hold.
      - None by default.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: The service whose containers are looked into.
        type: str
        required: true
      path:
        description: Absolute path of the file in the container.
        type: str
        required: true
      pattern:
        description: Regular expression that has to match somewhere in the file. C(^) and C($) mean a line's ends.
        type: str
        required: true
  build:
    description:
      - With O(state=present), which images of services with a C(build) section are built. V(auto) builds what is not on
        the engine, what is stale, what was built from other files than those that lie there now, and what
        C(pull_policy=build) asks for. V(always) builds all of them; an unchanged result changes nothing. With V(never)
        an C(image) that is named beside a C(build) section is looked for in its registry, according to O(pull).
      - V(auto) by default, so that a changed source is never served by an old image, and nothing is built for nothing.
    type: str
    choices: [auto, always, never]
    default: auto
  pull:
    description:
      - With O(state=present), which images are looked for in their registry. V(policy) does what C(pull_policy) says
        for each service, V(missing) pulls only what is not on the engine, V(always) asks for all, V(never) for none.
      - V(policy) by default, because the Compose file is the one source of truth.
    type: str
    choices: [policy, missing, always, never]
    default: policy
  keep:
    description:
      - With O(state=pruned), how many images of each service that ran well are kept, the one that runs now included.
        Where fewer are known to have run well, the youngest others are kept in their place.
      - The default leaves four deploys to go back to.
    type: int
    default: 5
  wait_timeout:
    description:
      - Seconds to wait for another run on the same project to end, before anything is built or pruned.
      - The default leaves time for a deploy, and still ends while somebody is looking.
    type: float
    default: 300
notes:
  - "Codes of findings: C(baked-file-stale), C(baked-file-doubtful) (a RUN may have changed it), C(baked-file-hidden)
    (by something that is mounted there), C(baked-file-unknown) (a line of a Dockerfile that cannot be followed),
    C(baked-source-missing), C(container-outdated), C(image-not-found), C(image-in-use), C(version-missing),
    C(version-mismatch), C(version-not-logged), C(log-unreadable), C(container-missing), C(container-not-running),
    C(file-missing), C(pattern-missing), C(pattern-invalid), C(service-unknown), C(keep-invalid), C(build-pending),
    C(history-not-kept)."
seealso:
  - module: shipshape.deploy.stack
"""

EXAMPLES = r"""
- name: Fail when anything that runs is not what lies in the project
  shipshape.deploy.image:
    project_src: /opt/studio
    env_files: [.env.production]

- name: The same for one file, and the version that it names
  shipshape.deploy.image:
    project_src: /opt/studio
    env_files: [.env.production]
    baked_files:
      - {service: web, path: /app/entrypoint.sh, src: app/entrypoint.sh}
    version_marker: 'ENTRYPOINT_VERSION=([\d.]+)'
    required_patterns:
      - {service: web, path: /app/entrypoint.sh, pattern: '^exec '}

- name: Build what is stale or missing, and replace no container yet
  shipshape.deploy.image:
    project_src: /opt/studio
    env_files: [.env.production]
    state: present

- name: Remove old images, and keep three to go back to
  shipshape.deploy.image:
    project_src: /opt/studio
    env_files: [.env.production]
    state: pruned
    keep: 3
"""

RETURN = r"""
services:
  description: The services of the project, each with its image and what is stale. Empty with O(state=pruned).
  returned: always
  type: dict
  contains:
    image: {description: The image's name., type: str, sample: studio-web}
    image_id: {description: "First twelve digits of its id, empty for none.", type: str, sample: 9b8a7c6d5e4f}
    containers:
      description: The service's containers, each with the first twelve digits of its image's id.
      type: dict
      sample: {studio-web-1: 9b8a7c6d5e4f}
    compared: {description: How many files were compared., type: int, sample: 20}
    stale:
      description: The files of which a layer holds an old one.
      type: list
      elements: dict
      contains:
        path: {description: Its path in the container., type: str, sample: /app/entrypoint.sh}
        src: {description: Its source in the project., type: str, sample: /opt/studio/app/entrypoint.sh}
        layers:
          description: Which of V(image) and V(container) are stale.
          type: list
          elements: str
          sample: [image, container]
        source: {description: SHA-256 and lines of the source., type: dict, sample: {checksum: 1f0c, lines: 124}}
        image: {description: The same of the image., type: dict, sample: {checksum: 77aa, lines: 114}}
        containers:
          description: The same of each container.
          type: dict
          sample: {studio-web-1: {checksum: 77aa, lines: 114}}
    versions:
      description: What O(version_marker) found, a file each.
      type: list
      elements: dict
      contains:
        path: {description: The file's path in the container., type: str, sample: /app/entrypoint.sh}
        source: {description: The version in its source., type: str, sample: 2.0.0-beta}
        image: {description: The version in the image., type: str, sample: 2.0.0-beta}
        containers: {description: The version in each container., type: dict, sample: {studio-web-1: 2.0.0-beta}}
        logs: {description: The version in each container's log., type: dict, sample: {studio-web-1: 2.0.0-beta}}
actions:
  description: What was built, pulled and removed; in check mode, what would be.
  returned: always
  type: list
  elements: dict
  contains:
    action: {description: "One of V(build), V(pull) and V(remove).", type: str, sample: build}
    target: {description: To what., type: str, sample: image studio-web}
    reason: {description: Why., type: str, sample: there is a newer one}
    seconds: {description: How long it took; V(0) in check mode., type: float, sample: 10.4}
findings:
  description: What was seen; the codes are in the notes.
  returned: always
  type: list
  elements: dict
  contains:
    severity: {description: "V(critical), V(warning) or V(info).", type: str, sample: critical}
    subject: {description: The service that it is about., type: str, sample: web}
    code: {description: A stable name for this kind of finding., type: str, sample: baked-file-stale}
    message: {description: What was seen., type: str, sample: /app/entrypoint.sh is stale in image studio-web}
    remedy: {description: What to do about it., type: str, sample: Build the image and replace the container}
logs:
  description: The last lines of a build that failed, secrets masked.
  returned: on failure
  type: dict
  sample: {"docker compose build": ["failed to solve: process did not complete successfully"]}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.arguments import (
    DOCKER_OPTIONS,
    LOOK_OPTIONS,
    PROJECT_OPTIONS,
    PROJECT_RULES,
    invocation,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.baked import declared
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.image import ImageWork, Wish
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.opening import open_project
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.versions import Required
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

_REQUIRED = {
    "service": {"type": "str", "required": True},
    "path": {"type": "str", "required": True},
    "pattern": {"type": "str", "required": True},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DOCKER_OPTIONS,
            **PROJECT_OPTIONS,
            "state": {"type": "str", "choices": ["verified", "present", "pruned"], "default": "verified"},
            "baked_files": LOOK_OPTIONS["baked_files"],
            "version_marker": {"type": "str"},
            "required_patterns": {"type": "list", "elements": "dict", "default": [], "options": _REQUIRED},
            "build": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "pull": {"type": "str", "choices": ["policy", "missing", "always", "never"], "default": "policy"},
            "keep": {"type": "int", "default": 5},
            "wait_timeout": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
        **PROJECT_RULES,
    )
    options = module.params
    wish = Wish(
        baked_files=declared(options["baked_files"], options["project_src"] or ""),
        version_marker=options["version_marker"],
        required_patterns=tuple(Required(**entry) for entry in options["required_patterns"]),
        check=module.check_mode,
        **{name: options[name] for name in ("build", "pull", "keep", "wait_timeout")},
    )
    report = Report()
    try:
        work = ImageWork(*open_project(module), report, wish)
        {"verified": work.verified, "present": work.present, "pruned": work.pruned}[options["state"]]()
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(module.params), **report.failed(error))
    module.exit_json(invocation=invocation(module.params), **report.as_dict())


if __name__ == "__main__":
    main()
