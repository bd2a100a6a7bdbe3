#!/bin/sh
# A payment link: for an amount it is paid once, without one as often as anybody likes.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

shop=$(verified "$(new_phone)")
ann=$(verified "$(new_phone)")

step "A link over 12.00, for an hour"
link=$(call POST /payments/links "$shop" '{"amount_cents":1200,"expires_in_minutes":60}' | field code)
printf 'The page to pay it in a browser: %s/pay/%s\n' "$TALLYSTICK_URL" "${link#*code=}"
call POST /payments/links/pay "$ann" "{\"code\":\"$link\",\"idempotency_key\":\"$(new_key)\"}" >/dev/null

step "A link without an amount: a tip jar"
link=$(call POST /payments/links "$shop" '{}' | field code)
for amount in 100 250; do
    body="{\"code\":\"$link\",\"amount_cents\":$amount,\"idempotency_key\":\"$(new_key)\"}"
    expect "paid" "$amount" "$(call POST /payments/links/pay "$ann" "$body" | field amount_cents)"
done
