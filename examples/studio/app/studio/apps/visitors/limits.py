# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and figures that rows, disk and pages have to agree on; modules that look after the pool know them, too."""

from __future__ import annotations

import re
from datetime import UTC, datetime

PREFIX = "visitor-"
PROJECT = "default-project"
WORKSPACE = ("scitex", "writer")
MARKER = "01_manuscript"
SECTIONS = ("sections", "manuscript")

# What a row's session key says while nobody may have its slot, and until when: no expiry of anybody's touches it.
RESETTING = "shipshape:resetting"
QUARANTINED = "shipshape:quarantined"
HELD_BACK = (RESETTING, QUARANTINED)
FAR = datetime(9999, 12, 31, tzinfo=UTC)

# Key of the advisory locks on PostgreSQL ("SHIP"); the second key is the slot's number, 0 for the whole pool, and -1
# for whoever removes what has ended.
LOCK = 1397246288
UPKEEP = -1

# What may become a directory below the data root: any user's name of Django's that does not begin with a dot.
ACCOUNT = re.compile(r"[\w@+-][\w.@+-]{0,149}")
# What a new account may be called.
NEW_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9_-]{0,29}")
SECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
SECTION_CHARACTERS = 200_000
# A page of five full sections, as a browser sends it: four bytes a character at most, and three for each byte ("%F0").
FORM_BYTES = 5 * SECTION_CHARACTERS * 4 * 3 + 10_000

# A visit waits this long for a slot that is just being cleaned or lent, before it is told that there is none.
PATIENCE_SECONDS = 5.0
CROWDED = 0.8


def username(number: int) -> str:
    return f"{PREFIX}{number:03d}"


def number_of(name: str) -> int | None:
    """The slot's number, or None for whatever is no slot's name."""
    digits = name.removeprefix(PREFIX)
    if name == digits or not (digits.isascii() and digits.isdigit()):
        return None
    number = int(digits)
    return number if number > 0 and username(number) == name else None
