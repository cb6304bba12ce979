#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
exec curl -fsS -o /dev/null http://127.0.0.1:18471/
