"""Be PayPal: send a signed event to a service with PAYPAL_MODE=demo_hmac, with Python's standard library alone.

TALLYSTICK_URL=http://127.0.0.1:8080 DEMO_HMAC_SECRET=... python3 paypal_event.py PAYMENT.CAPTURE.COMPLETED [ID]

PayPal's own events are signed with a key that only PayPal has, so nobody else can send one: the service checks the
certificate. To see such an event, register the service at PayPal's sandbox, and send one from its webhook simulator.
"""

import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

if len(sys.argv) < 2 or not {"TALLYSTICK_URL", "DEMO_HMAC_SECRET"} <= set(os.environ):
    sys.exit(__doc__)
kind, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else f"WH-{uuid.uuid4().hex.upper()}"
resource = {"id": uuid.uuid4().hex[:17].upper(), "status": "COMPLETED"}
moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
event = {
    "id": name,
    "event_type": kind,
    "create_time": moment,
    "resource_type": "capture",
    "resource": resource,
}
body = json.dumps(event).encode()
digest = hmac.digest(os.environ["DEMO_HMAC_SECRET"].encode(), body, "sha256").hex()
headers = {"Content-Type": "application/json", "X-Demo-Signature": digest}
request = urllib.request.Request(os.environ["TALLYSTICK_URL"] + "/webhooks/paypal", body, headers)
try:
    with urllib.request.urlopen(request, timeout=15) as response:
        print(name, response.read().decode())
except urllib.error.HTTPError as refusal:
    sys.exit(f"{refusal}: {refusal.read().decode()}")
except OSError as error:
    sys.exit(f"{request.host} does not answer: {error}")
