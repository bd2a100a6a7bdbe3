#!/bin/sh
# The shared part of the examples. It needs curl and a development service (ENV=dev) at TALLYSTICK_URL; where that is
# unset, at the address of the `tallystick up` that runs here. BASE_URL is the older name.

TALLYSTICK_URL=${TALLYSTICK_URL:-${BASE_URL-}}
for tallystick in "$(dirname "$0")/../.venv/bin/tallystick" tallystick; do
    [ -n "$TALLYSTICK_URL" ] || eval "$("$tallystick" env 2>/dev/null)"
done
TALLYSTICK_URL=${TALLYSTICK_URL:-http://127.0.0.1:8080}
TALLYSTICK_URL=${TALLYSTICK_URL%/}
OTP=${OTP:-123456} # the code of a development service

# Say what comes next.
step() {
    printf '\n== %s\n' "$*" >&2
}

# call METHOD PATH [TOKEN] [JSON] [HEADER...]: print the call and its answer for a person, the answer alone on standard output.
# An answer that is no 2xx ends the script.
call() {
    method=$1 path=$2 token=${3-} json=${4-}
    shift "$(($# < 4 ? $# : 4))"
    printf '%s %s %s\n' "$method" "$path" "$json" >&2
    set -- -X "$method" "$@"
    [ -z "$token" ] || set -- "$@" -H "Authorization: Bearer $token"
    [ -z "$json" ] || set -- "$@" -H 'Content-Type: application/json' -d "$json"
    answer=$(curl -sS --max-time 30 -w '\n%{http_code}' "$@" "$TALLYSTICK_URL$path") || return 1
    status=${answer##*"
"}
    answer=${answer%"
$status"}
    case $status in 2??) ;; *)
        printf '  refused: %s\n' "$answer" >&2
        return 1
        ;;
    esac
    # Nobody needs to read a whole token on the screen.
    printf '  %s\n' "$answer" | sed 's/\("access_token":"[^"]\{12\}\)[^"]*/\1.../' >&2
    printf '%s\n' "$answer"
}

# field NAME: of a JSON answer on standard input, the first text or number of this name. Fails where there is none.
field() {
    awk -v name="\"$1\":" '{
        at = index($0, name)
        if (!at) exit 1
        rest = substr($0, at + length(name))
        sub(/^"/, "", rest)
        sub(/[",}].*/, "", rest)
        print rest
        exit
    }' | grep .
}

# A phone that nobody has used, and a key for one payment.
new_phone() {
    printf '+9639%08d\n' "$(od -An -N4 -tu4 /dev/urandom | awk '{ print $1 % 100000000 }')"
}

new_key() {
    od -An -N12 -tx1 /dev/urandom | tr -d ' \n'
}

# sign_in PHONE: print a token.
sign_in() {
    session=$(call POST /auth/request_otp '' "{\"phone\":\"$1\"}" | field otp_session)
    body="{\"phone\":\"$1\",\"otp\":\"$OTP\",\"session_id\":\"$session\"}"
    call POST /auth/verify_otp '' "$body" | field access_token
}

# verified PHONE: print a token of somebody who is known well enough to pay and be paid by code.
verified() {
    token=$(sign_in "$1")
    call POST /kyc/submit "$token" >/dev/null
    call POST /kyc/dev/approve "$token" >/dev/null
    printf '%s\n' "$token"
}

# merchant PHONE: print the token of a merchant.
merchant() {
    token=$(verified "$1")
    call POST /payments/dev/become_merchant "$token" >/dev/null
    printf '%s\n' "$token"
}

# balance TOKEN: print what is in the wallet, in cents.
balance() {
    call GET /wallet "$1" | field balance_cents
}

# expect WHAT WANTED FOUND: end the script when they differ.
expect() {
    if [ "$2" != "$3" ]; then
        printf '%s: expected %s, found %s\n' "$1" "$2" "$3" >&2
        exit 1
    fi
    printf '%s: %s\n' "$1" "$3"
}
