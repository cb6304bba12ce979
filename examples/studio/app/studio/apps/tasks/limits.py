# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures that the form, the worker and the healthcheck have to agree on."""

from __future__ import annotations

PAYLOAD_CHARACTERS = 20_000
COUNTDOWN_SECONDS = 20
# A lease outlives several renewals, which come every second of a long task.
LEASE_SECONDS = 60
MAX_ATTEMPTS = 3
POLL_SECONDS = 1.0
SHOWN = 12
