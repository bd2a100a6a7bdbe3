#!/bin/sh
# From person to person, by phone number. The same key pays once, however often it is sent.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

ann=$(sign_in "$(new_phone)")
bobs_phone=$(new_phone)
bob=$(sign_in "$bobs_phone")
before=$(balance "$bob")
key=$(new_key)
body="{\"to_phone\":\"$bobs_phone\",\"amount_cents\":2500,\"idempotency_key\":\"$key\"}"

step "Ann pays Bob"
first=$(call POST /wallet/transfer "$ann" "$body")

step "Her phone lost the answer, and asks again: the same transfer, byte for byte"
expect "answer" "$first" "$(call POST /wallet/transfer "$ann" "$body")"
expect "Bob has more, in cents" 2500 "$(($(balance "$bob") - before))"

step "Bob's lines"
call GET '/wallet/transactions/page?page_size=1' "$bob" >/dev/null
