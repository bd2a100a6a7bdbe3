#!/bin/sh
# A merchant shows a QR code, a customer scans and pays it, the till sees that it was paid.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

shop=$(merchant "$(new_phone)")
ann=$(verified "$(new_phone)")

step "The till makes a code for 25.50"
code=$(call POST /payments/merchant/qr "$shop" '{"amount_cents":2550}' | field code)
status() {
    curl -sS -G --data-urlencode "code=$code" -H "Authorization: Bearer $shop" \
        "$TALLYSTICK_URL/payments/merchant/qr_status" | field status
}
expect "status" active "$(status)"
printf 'The page to pay it in a browser: %s/pay/%s\n' "$TALLYSTICK_URL" "${code#*code=}"

step "The customer pays what was scanned"
call POST /payments/merchant/pay "$ann" "{\"code\":\"$code\",\"idempotency_key\":\"$(new_key)\"}" >/dev/null
expect "status" used "$(status)"

step "The merchant's statement: gross, fees, net"
call GET /payments/merchant/statement "$shop" >/dev/null
