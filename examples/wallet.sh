# What the wallet's examples share: calls of a running service, development only (codes by OTP_DEV_CODE, own approval).
# shellcheck shell=sh
BASE_URL=${BASE_URL:-http://localhost:8080}
OTP_DEV_CODE=${OTP_DEV_CODE:-123456}

# call METHOD PATH [BODY]: the answer's body; anything but 2xx ends the script and shows it. $token is who calls.
call() {
    answer=$(
        curl -sS -X "$1" "$BASE_URL$2" -w '\n%{http_code}' \
            -H 'Content-Type: application/json' ${token:+-H "Authorization: Bearer $token"} ${3:+-d "$3"}
    )
    status=${answer##*
}
    body=${answer%
*}
    case $status in
        2*) printf '%s\n' "$body" ;;
        *)
            printf '%s %s: %s %s\n' "$1" "$2" "$status" "$body" >&2
            return 1
            ;;
    esac
}

# field NAME: its first value in the JSON on standard input.
field() {
    grep -o "\"$1\":\"\{0,1\}[^\",}]*" | head -n 1 | sed "s/^\"$1\":\"\{0,1\}//"
}

# sign_in PHONE: a token.
sign_in() {
    token=
    call POST /auth/request_otp "{\"phone\":\"$1\"}" >/dev/null
    call POST /auth/verify_otp "{\"phone\":\"$1\",\"otp\":\"$OTP_DEV_CODE\"}" | field access_token
}

balance() {
    call GET /wallet | field balance_cents
}

# expect TEXT: fail unless it stands in what comes on standard input, to the byte.
expect() {
    seen=$(cat)
    case $seen in
        *"$1"*) printf '  %s\n' "$1" ;;
        *)
            printf 'expected %s, got %s\n' "$1" "$seen" >&2
            return 1
            ;;
    esac
}
