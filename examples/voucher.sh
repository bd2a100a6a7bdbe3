#!/bin/sh
# A voucher: paid for by whoever makes it, good once for whoever has the code.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

ann=$(sign_in "$(new_phone)")
bob=$(sign_in "$(new_phone)")

step "Ann makes a voucher over 10 (whole units: 1000 cents)"
code=$(call POST /vouchers "$ann" '{"amount_syp":10}' | field code)

step "Bob redeems it; the fee stays with the platform"
expect "status" redeemed "$(call POST "/vouchers/$code/redeem" "$bob" | field status)"

step "A second time it is worth nothing"
again=$(curl -s -o /dev/null -w '%{http_code}' -X POST -H "Authorization: Bearer $ann" "$TALLYSTICK_URL/vouchers/$code/redeem")
expect "status" 400 "$again"
