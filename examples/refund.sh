#!/bin/sh
# A refund: a part, then the rest, and never more than was paid.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

shop=$(merchant "$(new_phone)")
ann=$(verified "$(new_phone)")

step "Ann pays 30.00"
code=$(call POST /payments/merchant/qr "$shop" '{"amount_cents":3000}' | field code)
body="{\"code\":\"$code\",\"idempotency_key\":\"$(new_key)\"}"
paid=$(call POST /payments/merchant/pay "$ann" "$body" | field transfer_id)

step "The merchant gives back 10.00, then 20.00"
for amount in 1000 2000; do
    body="{\"original_transfer_id\":\"$paid\",\"amount_cents\":$amount}"
    call POST /refunds "$shop" "$body" -H "Idempotency-Key: $(new_key)" >/dev/null
done

step "There is nothing left to give back"
status=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $shop" \
    -H 'Content-Type: application/json' -d "{\"original_transfer_id\":\"$paid\",\"amount_cents\":1}" "$TALLYSTICK_URL/refunds")
expect "status" 400 "$status"
