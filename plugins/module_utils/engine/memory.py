# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small documents that a target keeps between two runs. None of them is the truth of anything: one that is lost, or
cannot be read, costs some work or an alert, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from typing import Any


def state_directory() -> str:
    """Where what is remembered on a target outlives a restart of the machine, for whoever runs this."""
    own = os.environ.get("XDG_STATE_HOME")
    if own:
        return os.path.join(own, "shipshape")
    return "/var/lib/shipshape" if os.getuid() == 0 else os.path.expanduser("~/.local/state/shipshape")


def place(kind: str, *about: str, folder: str = "") -> str:
    """The file of the document that is `about` these words."""
    name = hashlib.sha256(" ".join(about).encode()).hexdigest()[:16]
    return os.path.join(folder or state_directory(), f"{kind}{name}.json")


def read(path: str) -> Any:
    """The document; None where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def write(path: str, document: Any) -> bool:
    """Puts `document` in place of the one before, as a whole; whether that went well. The caller holds a lock, so that
    one name for the new file is enough: whatever a killed run left there is written over."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, separators=(",", ":"), sort_keys=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(f"{path}.new", path)
    except OSError:
        with suppress(OSError):
            os.unlink(f"{path}.new")
        return False
    return True
