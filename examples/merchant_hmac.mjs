// A merchant's signed call in JavaScript: Node 18 or newer, nothing to install.
//
// node merchant_hmac.mjs URL KEY_ID SECRET     prints the newest lines of the merchant's wallet

import { createHmac } from "node:crypto";
import { pathToFileURL } from "node:url";

const PATH = "/merchant/api/transactions";

// X-API-Sign: over the time in whole seconds, the path without its query, and the body if it is to count.
export function sign(secret, seconds, path, body = "") {
  return createHmac("sha256", secret).update(`${seconds}${path}`).update(body).digest("hex");
}

export async function transactions(baseUrl, keyId, secret) {
  const seconds = Math.floor(Date.now() / 1000);
  const headers = { "X-API-Key": keyId, "X-API-Ts": String(seconds), "X-API-Sign": sign(secret, seconds, PATH) };
  const response = await fetch(baseUrl + PATH, { method: "POST", headers, signal: AbortSignal.timeout(15_000) });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return response.json();
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  console.log(JSON.stringify(await transactions(...process.argv.slice(2, 5)), null, 2));
}
