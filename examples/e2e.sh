#!/bin/sh
# All in one go: sign in, verify, top up, pay a person, pay a merchant's code, ask for money.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

anns_phone=$(new_phone) bobs_phone=$(new_phone)

step "Ann and Bob sign in, and are verified"
ann=$(verified "$anns_phone")
bob=$(verified "$bobs_phone")

step "Ann tops up, and pays Bob"
call POST /wallet/topup "$ann" "{\"amount_cents\":50000,\"idempotency_key\":\"$(new_key)\"}" | grep -q '"status":"completed"'
body="{\"to_phone\":\"$bobs_phone\",\"amount_cents\":1500,\"idempotency_key\":\"$(new_key)\"}"
call POST /wallet/transfer "$ann" "$body" | grep -q '"status":"completed"'

step "Bob becomes a merchant, and Ann pays his code"
call POST /payments/dev/become_merchant "$bob" >/dev/null
code=$(call POST /payments/merchant/qr "$bob" '{"amount_cents":2500}' | field code)
body="{\"code\":\"$code\",\"idempotency_key\":\"$(new_key)\"}"
call POST /payments/merchant/pay "$ann" "$body" | grep -q '"status":"completed"'

step "Bob asks Ann for 5.00, and she accepts"
id=$(call POST /requests "$bob" "{\"to_phone\":\"$anns_phone\",\"amount_cents\":500}" | field id)
call POST "/requests/$id/accept" "$ann" | grep -q '"detail":"accepted"'

echo "Everything went through."
