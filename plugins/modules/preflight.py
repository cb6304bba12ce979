#!/usr/bin/python
# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module preflight: everything that can be known to fail before anything is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Find what a deploy would fail on, before anything is touched
version_added: 0.1.0
author: The shipshape.deploy founders (@shipshape-deploy)
description:
  - Looks at a Compose project, its env files, its images, the engine and the machine, all in one task, and changes
    nothing. Each thing that is wrong is a finding of its own with a stable code and a remedy; none stops the others.
  - What would make the deploy fail is V(critical) and fails the task, after everything has been looked at. What only
    concerns services of O(optional_services) is a warning.
  - The project. V(compose-file-missing), V(compose-file-invalid) and the other codes of what Compose refuses;
    V(profile-unknown); V(dependency-not-selected) (it belongs to a profile that is not enabled),
    V(dependency-undefined), V(condition-never-met); V(variable-required), V(variable-unset), V(variable-empty);
    V(healthcheck-missing), V(healthcheck-vacuous); V(container-name-replicas), V(container-name-start-first).
  - Images, for this machine's architecture. V(image-name-invalid), V(image-not-found), V(image-wrong-architecture),
    V(registry-login-required), V(registry-login-refused), V(registry-forbidden), V(registry-rate-limited),
    V(registry-unreachable), V(registry-certificate), V(registry-failed), V(registry-unexpected),
    V(credential-helper-failed), V(docker-configuration-unreadable). Registries are asked for what the deploy would
    pull, by the manifest alone; no layer is downloaded.
  - The machine. V(port-in-use), V(port-conflict), V(disk-space-low), V(disk-inodes-low), V(memory-limit-invalid),
    V(memory-limit-above-machine), V(memory-overcommitted), V(bind-source-missing), V(bind-source-is-directory);
    V(external-missing), V(subnet-in-use). A port that the engine itself holds for a container which it is starting is
    waited for.
  - Env files. V(env-file-missing), V(env-file-invalid), V(env-file-world-readable), V(env-file-crlf),
    V(env-file-duplicate), V(env-file-unquoted-space), V(env-missing), V(env-empty), V(env-placeholder).
  - Scripts that services start with, mounted or about to be built in. V(script-not-executable), V(script-crlf),
    V(script-no-interpreter), V(script-interpreter-missing).
  - The engine. V(engine-not-running) and the other codes of one that cannot be reached, V(engine-too-old),
    V(engine-api-version), V(storage-driver), V(compose-plugin-missing), V(compose-too-old), and V(clock-off) when its
    clock is more than 5 seconds off the controller's.
extends_documentation_fragment:
  - shipshape.deploy.docker
  - shipshape.deploy.project
  - shipshape.deploy.attributes
  - shipshape.deploy.attributes.info_module
  - shipshape.deploy.attributes.engine_group
notes:
  - Where the engine is on another machine than the target, what can only be seen there is left out. That is its disk,
    its sockets, the sources of mounts, and scripts.
  - To see what programs an image has a container of it is created, never started, and removed again.
  - The Docker Hub counts a manifest request as a pull.
options:
  registry_auth:
    description:
      - Logins for registries. They come before those of the user's Docker configuration (E(DOCKER_CONFIG), else
        C(~/.docker/config.json)) and its credential helpers.
      - None by default, because the pull that follows logs in with the Docker configuration as well.
    type: list
    elements: dict
    default: []
    suboptions:
      registry:
        description: Name of the registry, as it stands in images' names; C(docker.io) for the Docker Hub.
        type: str
        required: true
      username:
        description: Name of the user.
        type: str
        required: true
      password:
        description: Password, or token.
        type: str
        required: true
  require_env:
    description:
      - Variables that must have a value. V(NAME) must be set for some service, or for the Compose file, and wherever it
        is named; V(SERVICE:NAME) in that service's environment. A value that was never filled in (C(changeme),
        C(<...>), C(TODO)) is none.
      - None by default, because only the owner knows what the application needs.
    type: list
    elements: str
    default: []
  disk_free:
    description:
      - How much must stay free on the engine's disk after images were pulled, with a unit (V(500MB), V(2GB)).
      - The default leaves a database room to write what it holds before it ends.
    type: str
    default: 1GB
  optional_services:
    description:
      - Services whose failure is a warning, and stops nobody; as in M(shipshape.deploy.stack).
      - None by default, because a service that may fail unnoticed is one that nobody needs.
    type: list
    elements: str
    default: []
  pull:
    description:
      - Which images the deploy will look for in their registry; as in M(shipshape.deploy.stack).
      - V(policy) by default, because the Compose file is the one source of truth.
    type: str
    choices: [policy, missing, always, never]
    default: policy
  build:
    description:
      - Which images the deploy will build; as in M(shipshape.deploy.stack).
      - V(auto) by default, as there.
    type: str
    choices: [auto, always, never]
    default: auto
seealso:
  - module: shipshape.deploy.stack
  - module: shipshape.deploy.credentials
  - module: shipshape.deploy.image
"""

EXAMPLES = r"""
- name: Look at everything before the deploy
  shipshape.deploy.preflight:
    project_src: /opt/studio
    env_files: [.env.production]
    require_env: [DATABASE_URL, "web:DJANGO_SECRET_KEY"]

- name: Look with a login of one's own, and let the console be missing
  shipshape.deploy.preflight:
    project_src: /opt/studio
    profiles: [infra]
    optional_services: [console]
    registry_auth:
      - registry: registry.example.com:5000
        username: deploy
        password: "{{ vault_registry_password }}"
"""

RETURN = r"""
findings:
  description: Everything that was found, worst first.
  returned: always
  type: list
  elements: dict
  contains:
    severity: {description: "V(critical), V(warning) or V(info).", type: str, sample: critical}
    subject: {description: What it is about., type: str, sample: worker}
    code: {description: A stable name for this kind of finding., type: str, sample: dependency-not-selected}
    message:
      description: What was seen.
      type: str
      sample: "it depends on coturn, which is left out: it belongs to profile turn"
    remedy: {description: What to do about it., type: str, sample: Enable profile turn (profiles)}
images:
  description: The image that each service resolves to.
  returned: always
  type: dict
  contains:
    image: {description: Its name., type: str, sample: registry.example.com/studio/web:3}
    source:
      description: Where the deploy takes it from, V(local), V(pull), V(build), or V(missing) for nowhere.
      type: str
      sample: pull
    digest:
      description: What the registry calls it; empty for one that was not asked for.
      type: str
      sample: "sha256:3f5c"
    platforms: {description: Which machines it is for., type: list, elements: str, sample: [linux/amd64, linux/arm64]}
engine:
  description: What the engine says of itself; empty texts where it does not answer.
  returned: always
  type: dict
  contains:
    version: {description: Its version., type: str, sample: 26.1.5}
    api_version: {description: The newest interface that it speaks., type: str, sample: "1.45"}
    compose_version: {description: Version of the Compose plugin., type: str, sample: 2.26.1}
    storage_driver: {description: How it stores layers., type: str, sample: overlay2}
    platform: {description: What machine it runs on., type: str, sample: linux/amd64}
    time: {description: What its clock said., type: str, sample: "2026-11-23T05:58:11.123456789Z"}
actions:
  description: Always empty, because this module does nothing; here for those who treat all modules alike.
  returned: always
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.arguments import (
    DOCKER_OPTIONS,
    PROJECT_OPTIONS,
    PROJECT_RULES,
    invocation,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.opening import open_project
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.order import Order
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry_login import Logins, configuration
from ansible_collections.shipshape.deploy.plugins.module_utils.preflight.run import Preflight, Wishes
from ansible_collections.shipshape.deploy.plugins.module_utils.preflight.seen import verdict
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError, failure
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

ARGUMENTS = {
    **DOCKER_OPTIONS,
    **PROJECT_OPTIONS,
    "registry_auth": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,  # the passwords in it are
        "options": {
            "registry": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
        },
    },
    # Names, not values.
    "require_env": {"type": "list", "elements": "str", "default": []},
    "disk_free": {"type": "str", "default": "1GB"},
    "optional_services": {"type": "list", "elements": "str", "default": []},
    "pull": {"type": "str", "choices": ["policy", "missing", "always", "never"], "default": "policy"},
    "build": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
}


def _wishes(options: Mapping[str, Any]) -> Wishes:
    try:
        keep = human_to_bytes(options["disk_free"])
    except ValueError as error:
        remedy = "Give a number with a unit: 500MB, 2GB"
        raise failure("disk_free", "option-invalid", f"{options['disk_free']!r} is no size", remedy) from error
    return Wishes(
        order=Order(pull=options["pull"], build=options["build"]),
        optional_services=tuple(options["optional_services"]),
        require_env=tuple(options["require_env"]),
        disk_free=keep,
    )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True, **PROJECT_RULES)

    def logins() -> Any:
        return Logins(
            module.params["registry_auth"],
            configuration(),
            lambda argv, text: module.run_command(list(argv), data=text, handle_exceptions=False),
        )

    report = Report()
    try:
        wishes = _wishes(module.params)
        Preflight(*open_project(module), logins, wishes).look(report)
    except ShipshapeError as error:
        module.fail_json(invocation=invocation(module.params), **report.failed(error))
    critical = verdict(report.findings)
    if critical:
        module.fail_json(
            msg=report.masker.text(critical), logs={}, invocation=invocation(module.params), **report.as_dict()
        )
    module.exit_json(invocation=invocation(module.params), **report.as_dict())


if __name__ == "__main__":
    main()
