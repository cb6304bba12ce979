# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes shared by the modules' documentation."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Returns details of what has changed, or in C(check_mode) would change, when in diff mode.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
seealso:
  - ref: ansible_collections.shipshape.deploy.docsite.findings
    description:
      What each code in RV(findings) means, and what to do next; C(docs/docsite/rst/findings.rst) in the collection.
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
"""

    ENGINE_GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/shipshape.deploy.deploy) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - shipshape.deploy.deploy
"""
