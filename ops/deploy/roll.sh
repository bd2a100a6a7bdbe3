#!/usr/bin/env bash
# Put another image in the place of the running one, while requests go on: roll.sh IMAGE
#
# New processes of the API start beside the old ones, and nginx keeps to the old ones. When all of the new ones are ready,
# nginx is told to use these alone; when nothing is under way at the old ones any more, they end. The worker comes last: its
# work waits meanwhile. A new process that does not become ready is taken away, and the old ones go on. COMPOSE_FILE and
# COMPOSE_PROJECT_NAME are read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export TALLYSTICK_IMAGE=${1:?name the image, as in: ops/deploy/roll.sh registry.example/tallystick:1.2.0}
ready_within=${READY_WITHIN_SECONDS:-120}
# Longer than worker_shutdown_timeout of nginx.conf.
drained_within=70

say() { echo "roll: $*" >&2; }

is_ready() { # CONTAINER
    docker exec "$1" python -IS /app/ops/deploy/healthy.py 8080 /ready 2>/dev/null
}

address() { # CONTAINER: its address in the network that nginx is in
    docker inspect --format \
        '{{range $name, $network := .NetworkSettings.Networks}}{{$name}} {{$network.IPAddress}}{{"\n"}}{{end}}' "$1" |
        awk '$1 ~ /_edge$/ {print $2}'
}

tell_nginx() { # standard input becomes the list of servers; requests in progress end at the old ones
    docker compose exec -T nginx sh -c '
        cat >/tmp/upstream.new && mv /tmp/upstream.new /tmp/upstream.conf
        nginx -q -t -c /etc/nginx/tallystick/nginx.conf && nginx -c /etc/nginx/tallystick/nginx.conf -s reload' </dev/stdin
}

wait_for_old_workers() {
    for ((waited = 0; waited < drained_within; waited++)); do
        # The reload takes a moment to reach the workers, so the first look comes after one.
        sleep 1
        docker compose exec -T nginx sh -c 'grep -qs "[s]hutting down" /proc/[0-9]*/cmdline' || return 0
    done
}

only() { # CONTAINER...: the list of servers with these in the place of the name
    local addresses=()
    for container; do addresses+=("$(address "$container")"); done
    awk -v addresses="${addresses[*]}" '
        match($0, /server api:[0-9]+ resolve/) {
            split(substr($0, RSTART + 11), port, " ")
            rest = substr($0, RSTART + RLENGTH)
            n = split(addresses, each, " ")
            for (i = 1; i <= n; i++) print "    server " each[i] ":" port[1] rest
            next
        }
        {print}' ops/nginx/upstream.conf
}

mapfile -t old < <(docker compose ps --quiet api)
if ((${#old[@]} == 0)); then
    say "no process of the API runs here; start it with docker compose up"
    exit 1
fi

say "migrations"
docker compose run --rm --no-deps migrate

# The name stands for every container, also for one that is just starting.
only "${old[@]}" | tell_nginx
# However this ends, the name is right again: a container that is started anew gets another address.
trap 'tell_nginx <ops/nginx/upstream.conf' EXIT
say "${#old[@]} new processes beside ${#old[@]} old ones"
docker compose up --detach --no-build --no-deps --no-recreate --scale "api=$((2 * ${#old[@]}))" api
give_up_at=$((SECONDS + ready_within))
mapfile -t new < <(docker compose ps --quiet api | grep --invert-match --fixed-strings "$(printf '%s\n' "${old[@]}")")
for container in "${new[@]}"; do
    until is_ready "$container"; do
        # One that ends is started again by Docker, so a second start means that it cannot run.
        if ((SECONDS > give_up_at)) || [ "$(docker inspect --format '{{.RestartCount}}' "$container")" != 0 ]; then
            docker inspect --format '{{json .State}}' "$container" >&2
            docker logs --tail 5 "$container" >&2
            docker rm --force "${new[@]}" >/dev/null
            say "a new process is not ready; the old ones go on"
            exit 1
        fi
        sleep 0.5
    done
done

say "nginx uses the new ones"
only "${new[@]}" | tell_nginx
wait_for_old_workers

say "the old ones end"
docker stop --time 30 "${old[@]}" >/dev/null
docker rm "${old[@]}" >/dev/null

say "the worker"
docker compose up --detach --no-build --no-deps worker
say "done after $SECONDS s"
