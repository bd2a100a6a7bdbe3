"""Be Stripe: send a signed event, with Python's standard library alone.

TALLYSTICK_URL=http://127.0.0.1:8080 STRIPE_SIGNING_SECRET=whsec_... python3 stripe_event.py charge.refunded [ID]

`make up` prints the secret. The signature is Stripe's scheme v1 (https://docs.stripe.com/webhooks#verify-manually).
"""

import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

if len(sys.argv) < 2 or not {"TALLYSTICK_URL", "STRIPE_SIGNING_SECRET"} <= set(os.environ):
    sys.exit(__doc__)
kind, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else f"evt_{uuid.uuid4().hex}"
now = int(time.time())
data = {"object": {"id": f"obj_{uuid.uuid4().hex}", "object": "example"}}
event = {"id": name, "object": "event", "type": kind, "created": now, "livemode": False, "data": data}
body = json.dumps(event).encode()
# The bytes that are signed are those that are sent: a body that is decoded and encoded again is another one.
digest = hmac.digest(os.environ["STRIPE_SIGNING_SECRET"].encode(), b"%d." % now + body, "sha256").hex()
headers = {"Content-Type": "application/json", "Stripe-Signature": f"t={now},v1={digest}"}
request = urllib.request.Request(os.environ["TALLYSTICK_URL"] + "/webhooks/stripe", body, headers)
try:
    with urllib.request.urlopen(request, timeout=15) as response:
        print(name, response.read().decode())
except urllib.error.HTTPError as refusal:
    sys.exit(f"{refusal}: {refusal.read().decode()}")
except OSError as error:
    sys.exit(f"{request.host} does not answer: {error}")
