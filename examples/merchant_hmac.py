"""A merchant's signed call in Python, with nothing but its standard library.

python3 merchant_hmac.py URL KEY_ID SECRET     prints the newest lines of the merchant's wallet
"""

import hashlib
import hmac
import json
import sys
import time
import urllib.request

PATH = "/merchant/api/transactions"


def sign(secret: str, seconds: int, path: str, body: bytes = b"") -> str:
    """Return X-API-Sign: over the time in whole seconds, the path without its query, and the body if it is to count."""
    return hmac.new(secret.encode(), f"{seconds}{path}".encode() + body, hashlib.sha256).hexdigest()


def transactions(base_url: str, key_id: str, secret: str) -> dict:
    """Return the answer; a refusal raises urllib.error.HTTPError."""
    seconds = int(time.time())
    headers = {"X-API-Key": key_id, "X-API-Ts": str(seconds), "X-API-Sign": sign(secret, seconds, PATH)}
    request = urllib.request.Request(base_url + PATH, method="POST", headers=headers)
    with urllib.request.urlopen(request, timeout=15) as response:
        return json.load(response)


if __name__ == "__main__":
    print(json.dumps(transactions(*sys.argv[1:4]), indent=2))
