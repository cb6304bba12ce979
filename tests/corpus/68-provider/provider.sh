#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A provider of something outside the engine: it says what its dependents get into their environment. Called as
# `compose --project-name NAME up|down --option=value... SERVICE`; Compose 2.40.3 panics when `down` sets anything.
case " $* " in
*" up "*) printf '{"type": "setenv", "message": "URL=s3://bucket"}\n' ;;
esac
