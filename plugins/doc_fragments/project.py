# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say which Compose project is meant, with the words of C(docker compose)."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  project_src:
    description:
      - Directory on the target that holds the Compose project.
      - Required unless O(definition) is given, or O(project_name) where a Compose file is not needed.
    type: path
  files:
    description:
      - Compose files, relative to O(project_src), as with C(docker compose --file).
      - By default Compose looks for its usual names itself, so that a project needs no list.
    type: list
    elements: path
  env_files:
    description:
      - Files with variables for the Compose file, relative to O(project_src), as with C(docker compose --env-file).
      - By default Compose reads C(.env) where there is one.
    type: list
    elements: path
  profiles:
    description:
      - Profiles to enable, as with C(docker compose --profile).
      - None by default, so that services bound to a profile stay out unless asked for.
    type: list
    elements: str
    default: []
  project_name:
    description:
      - Name of the project, as with C(docker compose --project-name).
      - By default Compose takes it from the file, or from the directory.
    type: str
  definition:
    description:
      - The Compose project itself, in place of files. Relative paths in it start at O(project_src) when that is given.
      - Mutually exclusive with O(files). Needs O(project_name), because there is no directory to name it after.
    type: dict
  services:
    description:
      - Only these services, and those that they depend on.
      - All services of the enabled profiles by default.
    type: list
    elements: str
    default: []
"""

    LOOK = r"""
options:
  baked_files:
    description:
      - Files that an image is built with, to be compared with their sources in the project. A file in a container that
        is not the one in the project means that the image or the container is stale.
      - None by default, because only the owner knows which files are copied where.
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
      src:
        description: The file that it is made from, relative to O(project_src).
        type: path
        required: true
  watch_paths:
    description:
      - Paths in containers below which nothing may change after the container was created.
      - None by default, because most applications write somewhere in their own container.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: The service whose containers are looked into.
        type: str
        required: true
      paths:
        description: Absolute paths of files or directories in the container.
        type: list
        elements: str
        required: true
"""
