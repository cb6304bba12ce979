#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Is the studio application well? One JSON object on stdout, and an exit code for cron, monitoring and people:
#   0 ok   1 degraded: it serves, but something needs a look   2 down   3 unknown: it could not be looked at
#
# usage: health-check.sh [--project NAME] [--url URL] [--window SECONDS]
#
# It looks at outcomes: the application's own report through the proxy, and two looks at every container with a
# moment between them, because a container in a crash loop says "running" most of the time.
# Needs the docker command, and curl or python3.
set -u
export LC_ALL=C

project=studio
url=http://127.0.0.1:8080/healthz
window=3
# Services that must be there, and those whose failure does not stop the site.
required='db web worker proxy'
optional='worker console'

# Reads any text, prints it as a JSON string. Bytes outside ASCII become "?", so the output is JSON whatever comes in.
json_string() {
    tr -c '\11\12\40-\176' '?' | awk '
        BEGIN { ORS = ""; print "\"" }
        NR > 1 { print "\\n" }
        { gsub(/\\/, "&&"); gsub(/"/, "\\\""); gsub(/\t/, "\\t"); print }
        END { print "\"" }'
}

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# unknown MESSAGE: nothing can be said about the application.
unknown() {
    printf '{"status": "unknown", "checked_at": "%s", "message": %s}\n' "$(now)" "$(printf %s "$1" | json_string)"
    exit 3
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --project | --url | --window)
                [ $# -ge 2 ] || unknown "usage: $1 needs a value"
                case $1 in
                    --project) project=$2 ;;
                    --url) url=$2 ;;
                    --window) window=$2 ;;
                esac
                shift 2
                ;;
            *) unknown "usage: unknown argument '$1'; expected [--project NAME] [--url URL] [--window SECONDS]" ;;
        esac
    done
    case $project in
        '' | [!a-z0-9]* | *[!a-z0-9_-]*) unknown "usage: '$project' is no name of a Compose project" ;;
    esac
    case $url in
        http://?* | https://?*) ;;
        *) unknown "usage: '$url' is no http:// or https:// URL" ;;
    esac
    case $window in
        [1-9] | [1-5][0-9] | 60) ;;
        *) unknown "usage: --window takes 1 to 60 seconds, not '$window'" ;;
    esac
}

# One line a container: service, name, id, restarts, started at, state, exit code, health, restart policy.
look() {
    ids=$(docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$project" \
        --filter label=com.docker.compose.oneoff=False 2>&1) || return 1
    [ -n "$ids" ] || return 0
    health='{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}'
    # A container may go between the list and the look; the others are still worth a line.
    # shellcheck disable=SC2086 # one word an id
    docker inspect --format "{{index .Config.Labels \"com.docker.compose.service\"}} {{.Name}} {{.ID}} {{.RestartCount}} \
{{.State.StartedAt}} {{.State.Status}} {{.State.ExitCode}} $health {{or .HostConfig.RestartPolicy.Name \"no\"}}" $ids 2>/dev/null || :
}

# Asks the application in words for a shell: the status code on the first line, then what it answered.
ask() {
    if command -v curl >/dev/null 2>&1; then
        answer=$(curl -sS -m 15 -H 'Accept: text/plain' -w '\n%{http_code}' "$url" 2>&1)
        printf '%s\n' "$answer" | tail -n 1
        printf '%s\n' "$answer" | sed '$d'
    else
        python3 - "$url" <<'PYTHON'
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Accept": "text/plain"})
try:
    answer = urllib.request.urlopen(request, timeout=15)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    print(f"000\n{error}")
    sys.exit()
print(f"{answer.status}\n{answer.read(4000).decode('ascii', 'replace')}")
PYTHON
    fi
}

judge_answer() {
    code=$(printf '%s\n' "$asked" | head -n 1)
    said=$(printf '%s\n' "$asked" | sed 1d | head -c 2000)
    case "$code $said" in
        '200 ok'*) site=ok ;;
        '200 degraded'*) site=degraded ;;
        *) site=down ;;
    esac
}

# Two looks in, a line "VERDICT JSON" a container out. Services that should be there and are not have a line, too.
judge_containers() {
    recently=$(date -u -d '60 seconds ago' +%Y-%m-%dT%H:%M:%S)
    { printf '%s\n' "$first" | sed 's/^/1 /'; printf '%s\n' "$second" | sed 's/^/2 /'; } | awk \
        -v required="$required" -v optional=" $optional " -v recently="$recently" -v window="$window" '
        function verdict(level, why) {
            if (level == "down" && index(optional, " " service " ")) level = "degraded"
            printf "%s {\"service\": \"%s\", \"container\": \"%s\", \"state\": \"%s\", \"health\": \"%s\", ", level, service, name, state, health
            printf "\"restarts\": %d, \"verdict\": \"%s\", \"reason\": \"%s\"}\n", restarts, level, why
        }
        NF < 10 { next }
        $1 == 1 { before[$4] = $5 " " $6; next }
        {
            service = $2; name = substr($3, 2); id = $4; restarts = $5; started = $6; state = $7; code = $8; health = $9
            if (state == "created") { waiting[service] = name; next }
            seen[service] = 1
            if (state == "exited" && code == 0 && $10 == "no") verdict("ok", "ran once and ended well")
            else if (state == "exited" || state == "dead") verdict("down", state " with code " code)
            else if (state != "running") verdict("down", "is " state ", last exit code " code)
            else if (id in before && before[id] != restarts " " started) verdict("down", "restarted within " window " s: a crash loop")
            else if (health == "unhealthy") verdict("down", "its healthcheck fails")
            else if (restarts > 0 && started > recently) verdict("degraded", "restarted " restarts " times, last within a minute")
            else if (health == "starting") verdict("degraded", "is still starting")
            else verdict("ok", "")
        }
        END {
            name = health = ""; restarts = 0
            for (service in waiting) {
                name = waiting[service]; state = "created"
                if (service in seen) verdict("degraded", "was made to replace another and never started")
                else verdict("down", "was never started")
                seen[service] = 1
            }
            name = state = ""
            count = split(required, names, " ")
            for (i = 1; i <= count; i++) if (!(names[i] in seen)) { service = names[i]; verdict("down", "has no container") }
        }'
}

read_arguments "$@"
command -v docker >/dev/null 2>&1 || unknown 'the docker command is not installed or not in PATH'
first=$(look) || unknown "the engine cannot be asked: $(docker ps 2>&1 | head -n 3)"
asked=$(ask)
sleep "$window"
second=$(look) || unknown "the engine went away during the check: $(docker ps 2>&1 | head -n 3)"
judge_answer
services=$(judge_containers)

worst=ok code_out=0
if printf '%s\n%s\n' "$site" "$services" | grep -q '^degraded\b'; then worst=degraded code_out=1; fi
if printf '%s\n%s\n' "$site" "$services" | grep -q '^down\b'; then worst=down code_out=2; fi
rows=$(printf '%s\n' "$services" | sed 's/^[a-z]* /    /; $!s/$/,/')
cat <<JSON
{
  "status": "$worst",
  "checked_at": "$(now)",
  "project": "$project",
  "site": {
    "url": $(printf %s "$url" | json_string),
    "verdict": "$site",
    "http": $(printf '%s\n' "$code" | sed 's/^0*//; s/^$/0/; /[^0-9]/s/.*/0/'),
    "answer": $(printf %s "$said" | json_string)
  },
  "services": [
$rows
  ]
}
JSON
exit "$code_out"
