# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs in the roles' files, which are run on targets by their text and are in no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROLES = Path(__file__).resolve().parents[2] / "roles"


def program(role: str, file: str) -> ModuleType:
    """The file of a role as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"{role}_{Path(file).stem}", ROLES / role / "files" / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
