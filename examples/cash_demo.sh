#!/bin/sh
# Cash in and out through an agent: 200.00 in, 150.00 out.
set -eu
# shellcheck source=examples/lib.sh
. "$(dirname "$0")/lib.sh"

agent=$(verified "$(new_phone)")
ann=$(verified "$(new_phone)")
call POST /cash/agents/dev/become_agent "$agent" >/dev/null
before=$(balance "$ann")

step "Ann brings 200.00 in cash; the agent takes it and accepts"
id=$(call POST /cash/cashin/request "$ann" '{"amount_cents":20000}' | field id)
expect "cash-in" completed "$(call POST "/cash/requests/$id/accept" "$agent" | field detail)"
expect "Ann has more, in cents" 20000 "$(($(balance "$ann") - before))"

step "Ann wants 150.00 in cash: the sum is set aside, and goes when the agent has paid it out"
id=$(call POST /cash/cashout/request "$ann" '{"amount_cents":15000}' | field id)
expect "cash-out" completed "$(call POST "/cash/requests/$id/accept" "$agent" | field detail)"
expect "left of it, in cents" 5000 "$(($(balance "$ann") - before))"
