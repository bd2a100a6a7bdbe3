#!/bin/sh
# Somebody asks somebody else for money, who accepts: paid once, whoever presses how often.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

anns_phone=$(new_phone)
ann=$(sign_in "$anns_phone")
bob=$(sign_in "$(new_phone)")

step "Bob asks Ann for 7.00"
body="{\"to_phone\":\"$anns_phone\",\"amount_cents\":700,\"metadata\":{\"for\":\"lunch\"}}"
id=$(call POST /requests "$bob" "$body" | field id)

step "Ann sees it, and accepts"
call GET /requests "$ann" >/dev/null
expect "answer" accepted "$(call POST "/requests/$id/accept" "$ann" | field detail)"
expect "again" "already accepted" "$(call POST "/requests/$id/accept" "$ann" | field detail)"
expect "status" accepted "$(call GET "/requests/$id" "$bob" | field status)"
