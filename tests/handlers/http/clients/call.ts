import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

// A program as a user of the generated types writes it. It compiles only if what may be left out is optional, and what
// is always there is not.
declare const process: { env: Record<string, string | undefined>; exit(code: number): void };

type Schemas = components["schemas"];
const account: Schemas["AccountBody"] = { code: "ts:from", currency: "USD", limits: { floor: null } };
const transfer: Schemas["TransferBody"] = { from: "ts:from", to: "ts:to", amount: 3_000_000_000 };
const endpoint: Schemas["EndpointBody"] = { url: "https://example.com/" };
const hold: Schemas["HoldBody"] = { from: "ts:from", to: "ts:to", amount: 1 };
const reversal: Schemas["ReversalBody"] = {};
const invoice: Schemas["InvoiceIn"] = { payer_phone: "+963900000001", amount_cents: 1 };
const floor = (found: Schemas["Account"]): number | null => found.limits.floor;
const status = (made: Schemas["TransferOut"]): string => made.status;
void [endpoint, hold, reversal, invoice, floor, status];

const client = createClient<paths>({
  baseUrl: process.env["TALLYSTICK_URL"] ?? "",
  headers: { Authorization: `Bearer ${process.env["TALLYSTICK_KEY"]}` },
});

async function main(): Promise<void> {
  await client.POST("/v1/accounts", { body: account });
  await client.POST("/v1/accounts", { body: { code: "ts:to", currency: "USD" } });
  const made = await client.POST("/v1/transfers", {
    params: { header: { "Idempotency-Key": "ts-1" } },
    body: transfer,
  });
  if (made.data === undefined) throw new Error(JSON.stringify(made.error));
  const page = await client.GET("/v1/transfers", { params: { query: { account: "ts:to" } } });
  const next: string | null | undefined = page.data?.next;
  const amount: number | undefined = page.data?.data[0]?.entries[1]?.amount;
  const missing = await client.GET("/v1/accounts/{account}", { params: { path: { account: "nobody" } } });
  const code: string | undefined = missing.error?.error.code;
  console.log(JSON.stringify({ amount, next, code, status: made.response.status }));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
