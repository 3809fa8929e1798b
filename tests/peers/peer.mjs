// Signs and verifies the cases on standard input with the official package from npm.
//
// Cases that bring their own headers are verified alone, and any refusal counts.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

function verifies(webhook, { id, timestamp, signature, body }) {
  const headers = {
    "webhook-id": id,
    "webhook-timestamp": String(timestamp),
    "webhook-signature": signature,
  };
  try {
    webhook.verify(body, headers, { jsonParse: false });
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

function takes({ secret, headers, body }) {
  try {
    // Names that differ by case are one header, given twice.
    new Webhook(secret).verify(body, Object.fromEntries(headers), { jsonParse: false });
    return true;
  } catch {
    return false;
  }
}

const cases = JSON.parse(readFileSync(0, "utf8"));
const answers = cases.map((each) => {
  if (each.headers) return { verified: takes(each) };
  const webhook = new Webhook(each.secret);
  const signature = webhook.sign(each.id, new Date(each.timestamp * 1000), each.body);
  return { verified: verifies(webhook, each), signature };
});
process.stdout.write(JSON.stringify(answers));
