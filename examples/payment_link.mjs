// Links in JavaScript (Node 18 or newer, or a server's other runtime): make one, and send the customer to its page.
//
// TALLYSTICK_URL=https://pay.example.com TALLYSTICK_TOKEN=eyJ... node payment_link.mjs 2550

import { pathToFileURL } from "node:url";

export class Payments {
  constructor(baseUrl, token) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.token = token;
  }

  // The JSON of an answer; a refusal is an error that says why.
  async call(method, path, body) {
    const headers = { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" };
    const options = { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(15_000) };
    const response = await fetch(this.baseUrl + path, options);
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    return response.json();
  }

  // A link over an amount, paid once, or without one: its text, and the page on which it is paid.
  async link(cents, minutes) {
    const body = { amount_cents: cents, expires_in_minutes: minutes };
    const { code } = await this.call("POST", "/payments/links", body);
    return [code, `${this.baseUrl}/pay/${code.split("code=")[1]}`];
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const payments = new Payments(process.env.TALLYSTICK_URL, process.env.TALLYSTICK_TOKEN);
  console.log((await payments.link(Number(process.argv[2]), 60)).join("\n"));
}
