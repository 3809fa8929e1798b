// Signs and verifies the cases on standard input with the official package from npm.

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

const cases = JSON.parse(readFileSync(0, "utf8"));
const answers = cases.map((each) => {
  const webhook = new Webhook(each.secret);
  const signature = webhook.sign(each.id, new Date(each.timestamp * 1000), each.body);
  return { verified: verifies(webhook, each), signature };
});
process.stdout.write(JSON.stringify(answers));
