# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells a transfer that is asked for once more from one that nobody may have: its token fits no row any more.

Who was killed after all was done, or lost the connection before the answer, runs the same again. The proof that is kept
opens nothing: it is the hash of a token that has been used up.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

from ..engine import memory

# The latest transfers of a pool: who runs one again does it soon.
_KEPT = 100


def proof(session_key: str, token: str) -> str:
    return hashlib.sha256(octets(f"{session_key} {token}")).hexdigest()


def octets(text: str) -> bytes:
    """Also of what is no text, and fits nothing: it is refused, and not a traceback that shows it."""
    return text.encode("utf-8", "surrogatepass")


class Receipts:
    """Of the transfers of the pool in `data_root`. A receipt says what was done, not that it is still so."""

    def __init__(self, data_root: str) -> None:
        self._path = memory.place("transfers-", os.path.realpath(data_root))

    def has(self, slot: int, account: str, shown: str) -> bool:
        kept = (str(held) for number, name, held in self._read() if (number, name) == (slot, account))
        return any(hmac.compare_digest(shown, held) for held in kept)

    def add(self, slot: int, account: str, shown: str) -> None:
        entry = [slot, account, shown]
        memory.write(self._path, [*(at for at in self._read() if at != entry), entry][-_KEPT:])

    def _read(self) -> list[list[Any]]:
        found = memory.read(self._path)
        return [at for at in found if isinstance(at, list) and len(at) == 3] if isinstance(found, list) else []
