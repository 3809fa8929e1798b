// Sends webhooks signed by the official packages from npm, and prints the statuses answered.
//
// Usage: send.mjs PACKAGES URL SECRET. Standard Webhooks go to URL/standard, those of Svix to
// URL/svix.

import { createRequire } from "node:module";

const [packages, url, secret] = process.argv.slice(2);
const require = createRequire(packages + "/");
const BODY = '{"type":"invoice.paid","data":{"customer":"Zoë 🦀"}}';
const BUILDERS = {
  standard: ["webhook", require("standardwebhooks").Webhook],
  svix: ["svix", (await import(require.resolve("svix"))).Webhook],
};

async function send(path, id, { age = 0, body = BODY } = {}) {
  const [prefix, Webhook] = BUILDERS[path];
  const at = new Date(Date.now() - age * 1000);
  const headers = {
    "content-type": "application/json",
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: String(Math.floor(at.getTime() / 1000)),
    [`${prefix}-signature`]: new Webhook(secret).sign(id, at, BODY),
  };
  return (await fetch(`${url}/${path}`, { method: "POST", headers, body })).status;
}

const statuses = {};
for (const path of Object.keys(BUILDERS)) {
  statuses[path] = {
    new: await send(path, `msg_${path}_1`),
    repeated: await send(path, `msg_${path}_1`),
    changed: await send(path, `msg_${path}_2`, { body: BODY + " " }),
    stale: await send(path, `msg_${path}_3`, { age: 330 }),
  };
}
process.stdout.write(JSON.stringify(statuses));
