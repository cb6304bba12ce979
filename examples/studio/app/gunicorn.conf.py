# SPDX-License-Identifier: GPL-3.0-or-later
"""How gunicorn serves the application."""

from __future__ import annotations

import os

bind = "0.0.0.0:8000"
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 4
timeout = 30
# Below the stop_grace_period of compose.yaml: requests under way end before the engine would kill.
graceful_timeout = 20
keepalive = 5
# Heartbeats of workers on a disk can block for seconds; this is memory, and writable under a read-only root.
worker_tmp_dir = "/dev/shm"
accesslog = "-"
access_log_format = '%(t)s "%(r)s" %(s)s %(b)s %(M)sms'
errorlog = "-"
