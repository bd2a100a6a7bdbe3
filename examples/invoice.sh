#!/bin/sh
# An invoice, and a mandate under which the next ones are paid when they are due.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

shops_phone=$(new_phone) anns_phone=$(new_phone)
shop=$(merchant "$shops_phone")
ann=$(verified "$anns_phone")

step "The merchant writes an invoice, and Ann pays it"
body="{\"payer_phone\":\"$anns_phone\",\"amount_cents\":9900,\"due_in_days\":14,\"reference\":\"2026-0042\"}"
id=$(call POST /invoices "$shop" "$body" | field id)
paid=$(call POST "/invoices/$id/pay" "$ann" '' -H "Idempotency-Key: $(new_key)" | field transfer_id)
expect "paid again" "$paid" "$(call POST "/invoices/$id/pay" "$ann" | field transfer_id)"

step "Ann lets this merchant take up to 100.00 by itself"
body="{\"issuer_phone\":\"$shops_phone\",\"autopay\":true,\"max_amount_cents\":10000}"
call POST /invoices/mandates "$ann" "$body" >/dev/null
body="{\"payer_phone\":\"$anns_phone\",\"amount_cents\":4200,\"due_in_days\":0}"
id=$(call POST /invoices "$shop" "$body" | field id)

step "It is due: the worker pays it, or whoever asks for it now"
call POST /invoices/process_due "$ann" >/dev/null
expect "status" paid "$(call GET /invoices "$ann" | sed "s/.*\"id\":\"$id\"//" | field status)"
