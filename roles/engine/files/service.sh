#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Starts, restarts or reloads Docker Engine, whatever there is to do it with, and waits until it answers.
#   service.sh start|restart|reload SECONDS
# systemd where it is PID 1; else the init script; else dockerd itself, detached from this session.
set -u
PATH=$PATH:/usr/sbin:/sbin
action=$1
seconds=$2
pidfile=/var/run/docker.pid
log=/var/log/docker.log

# dockerd's own API and not `docker info`: a DOCKER_HOST or context of this user must not answer in its place.
answers() {
    DOCKER_HOST='' DOCKER_CONTEXT='' docker --host unix:///var/run/docker.sock version >/dev/null 2>&1
}

# Gives up early on an engine that has ended: its pid file is among the first things that dockerd writes.
wait_for_answer() {
    waited=0
    dead=0
    while ! answers; do
        if engine_pid >/dev/null; then dead=0; else dead=$((dead + 1)); fi
        if [ "$waited" -ge "$1" ] || [ "$dead" -ge 8 ]; then return 1; fi
        sleep 1
        waited=$((waited + 1))
    done
}

alive() { kill -0 "$1" 2>/dev/null; }

# dockerd whose pid file this is. An old pid file may name a process that has nothing to do with it.
engine_pid() {
    pid=$(cat "$pidfile" 2>/dev/null) || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && echo "$pid"
}

stop_engine() {
    pid=$(engine_pid) || return 0
    kill -TERM "$pid"
    waited=0
    while alive "$pid"; do
        if [ "$waited" -ge "$seconds" ]; then
            echo "dockerd (process $pid) did not stop within $seconds s" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

start_without_systemd() {
    if [ -x /etc/init.d/docker ]; then
        /etc/init.d/docker start </dev/null >/dev/null 2>&1
        # A shorter wait: where the init script does not manage, dockerd itself may.
        if wait_for_answer 15; then return 0; fi
        if engine_pid >/dev/null; then return 0; fi
    fi
    setsid dockerd --pidfile "$pidfile" </dev/null >>"$log" 2>&1 &
}

main() {
    has_systemd=false
    [ -d /run/systemd/system ] && has_systemd=true
    case $action in
    start)
        if answers; then exit 0; fi
        if $has_systemd; then
            systemctl enable --now docker.service >&2
        else
            start_without_systemd
        fi
        ;;
    restart)
        if $has_systemd; then
            systemctl restart docker.service >&2
        else
            stop_engine
            start_without_systemd
        fi
        ;;
    reload)
        pid=$(engine_pid) || { echo "no running dockerd is named by $pidfile" >&2; exit 1; }
        kill -HUP "$pid"
        sleep 1
        ;;
    esac

    if ! wait_for_answer "$seconds"; then
        echo "the engine does not answer at /var/run/docker.sock after the $action ($waited s); its last lines:" >&2
        if $has_systemd; then
            journalctl --unit docker.service --lines 6 --no-pager --output cat >&2
        else
            tail -n 6 "$log" >&2
        fi
        exit 1
    fi
}

# This script may itself come over stdin: nothing that it runs must read from there.
main </dev/null
