# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of command line options."""

from __future__ import annotations

from argparse import ArgumentTypeError

# What fits into the column of a slot's number.
LARGEST = 2**31 - 1


def at_least_one(text: str) -> int:
    """A number from 1 on. Whatever else is given is refused before anything is touched."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LARGEST):
        raise ArgumentTypeError(f"{text!r} is no number from 1 to {LARGEST}")
    return int(text)
