#!/usr/bin/env bash
# Make the secrets that docker-compose.yml reads, those that are missing: secrets.sh [FOLDER]
#
# The folder is its owner's alone. Its files can be read by anybody who is in it, since the users of the containers have
# numbers that this machine does not know. Files that are there stay: to rotate one, see ops/secrets/ROTATION.md.
set -euo pipefail

folder=${1:-${SECRETS_DIR:-.secrets}}
umask 077
mkdir -p "$folder"
# Further secrets of the service, and addresses of Alertmanager's receivers. The containers' users go in.
install -d -m 755 "$folder/service" "$folder/alertmanager"

keep() { # NAME: standard input becomes the secret, unless there is one
    if [ -e "$folder/$1" ]; then
        cat >/dev/null
        return
    fi
    cat >"$folder/$1"
    chmod 444 "$folder/$1"
    echo "made $folder/$1" >&2
}

random() { openssl rand -hex 32; }

random | keep postgres_password
printf 'postgresql://tallystick:%s@postgres:5432/tallystick\n' "$(cat "$folder/postgres_password")" | keep database_url
# The login of API and worker, which the job `migrate` makes.
printf 'postgresql://tallystick_service:%s@postgres:5432/tallystick\n' "$(random)" | keep service_database_url
random | keep admin_token
# Prometheus shows one token, and that file may hold two.
tr -d '\r' <"$folder/admin_token" | tr ',' '\n' | sed '/^[[:space:]]*$/d' | head -n 1 | keep prometheus_token
random | keep grafana_password
if [ ! -e "$folder/tls_certificate" ]; then
    name=${TLS_NAME:-localhost}
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj "/CN=$name" \
        -addext "subjectAltName=DNS:$name,IP:127.0.0.1" \
        -keyout "$folder/tls_key.new" -out "$folder/tls_certificate.new" 2>/dev/null
    keep tls_key <"$folder/tls_key.new"
    keep tls_certificate <"$folder/tls_certificate.new"
    rm "$folder/tls_key.new" "$folder/tls_certificate.new"
    echo "The certificate is signed by itself: put that of your authority and its key in the place of both." >&2
fi
