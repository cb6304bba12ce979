# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a healthcheck can fail at all. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ALWAYS_WELL = re.compile(
    r"""^(
        (/usr)?(/bin/)?true | : | exit(\s+0)? | echo(\s[^|;&]*)?            # the shell's ways to do nothing
      | node\s+(-e|--eval)\s+["']?process\.exit\(0?\);?["']?       # and those of other languages
      | python3?\s+-c\s+["']?(pass|exit\(0?\)|(import\s+sys;\s*)?sys\.exit\(0?\))["']?
      | (.*\|\|\s*(exit\s+0|true|:))                               # whatever happens, the end is well
    )\s*;?$""",
    re.VERBOSE,
)
_SHELL = re.compile(r"^(/\S*/)?(ba|da|a)?sh$")


def vacuous(healthcheck: Mapping[str, Any]) -> bool:
    """Whether `healthcheck` (of the resolved model) passes whatever state the service is in."""
    test = healthcheck.get("test") or []
    if healthcheck.get("disable") or not test or test[0] == "NONE":
        return False
    words = [str(word) for word in test[1:]]
    if test[0] == "CMD" and len(words) > 2 and _SHELL.match(words[0]) and words[1] == "-c":
        words = words[2:]
    return bool(_ALWAYS_WELL.match(" ".join(words).strip()))
