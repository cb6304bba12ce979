# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of command line options."""

from __future__ import annotations

from argparse import ArgumentTypeError


def at_least_one(text: str) -> int:
    """A number from 1 on. Whatever else is given is refused before anything is touched."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
