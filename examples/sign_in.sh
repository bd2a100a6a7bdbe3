#!/bin/sh
# Signing in by a code sent to the phone, and what a sign-in is: seen, used, ended.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

phone=$(new_phone)

step "A code is sent, and is good for one sign-in"
token=$(sign_in "$phone")

step "The token opens the wallet"
expect "phone" "$phone" "$(call GET /wallet "$token" | field phone)"

step "Every sign-in is listed, and can be ended"
call GET /auth/sessions "$token" >/dev/null
call POST /auth/logout "$token" >/dev/null

step "A token of a sign-in that was ended opens nothing"
code=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $token" "$TALLYSTICK_URL/wallet")
expect "status" 401 "$code"
