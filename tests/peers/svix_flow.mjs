// Drives a Svix-compatible server with the official, unmodified `svix` package from npm:
// node svix_flow.mjs --packages FOLDER --url http://127.0.0.1:8071 --token TOKEN [--only TOPIC]
//
// Each check prints one line; the first that fails prints what it expected and found, and the exit code is 1. The
// server must be allowed to deliver to 127.0.0.1, and must give up after one or two retries of one second: `recover`
// and `stats` wait until a delivery has failed for good. The applications of a run stay.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { inspect, isDeepStrictEqual, parseArgs } from "node:util";

const text = { type: "string" };
const options = { packages: text, url: text, token: text, only: text };
const { packages, url: serverUrl, token, only } = parseArgs({ options }).values;
if (!packages || !serverUrl || !token) throw new Error("--packages, --url and --token are needed");
// The folder in which npm has installed the package.
const svix = await import(pathToFileURL(createRequire(`${packages}/`).resolve("svix")));
const run = `flow-${randomBytes(4).toString("hex")}`;
const [DEADLINE, HOUR] = [30_000, 3_600_000];
const { Success: SUCCESS, Fail: FAIL, Sending: SENDING } = svix.MessageStatus;
const { Scheduled: SCHEDULED, Manual: MANUAL } = svix.MessageAttemptTriggerType;

class Failure extends Error {}
function check(what, found, expected) {
  if (isDeepStrictEqual(found, expected)) console.log(`ok   ${what}`);
  else throw new Failure(`${what}\n  expected: ${inspect(expected)}\n  found:    ${inspect(found, { depth: 6 })}`);
}
const checkThat = (what, holds, found) => check(what, holds ? true : found, true);

/** Checks for the SDK's error of this status (4: any 4xx) and code (null: any). A 422 must name the field `code`. */
async function refused(what, call, code, status) {
  const found = await call().catch((error) => error);
  const { code: actual, body } = found instanceof svix.ApiException ? found : {};
  const isText = (...values) => values.every((value) => value && typeof value === "string");
  const isField = ({ loc: [first, ...names], msg, type }) =>
    first === "body" && isText(...names, msg, type) && (!code || names.includes(code));
  const isHttpValidationError = () => Array.isArray(body.detail) && body.detail.length && body.detail.every(isField);
  const isHttpErrorOut = () => isText(body.code, body.detail) && (!code || body.code === code);
  const holds = `${actual}`.startsWith(status) && (actual === 422 ? isHttpValidationError() : isHttpErrorOut());
  const expected = `ApiException ${status} ${code ?? ""}`;
  check(what, holds ? expected : found, expected);
}

/** Returns the first true value of `probe`, or fails at the deadline. */
async function eventually(what, probe) {
  const end = Date.now() + DEADLINE;
  let value = await probe();
  while (!value && Date.now() < end) value = await pause(50).then(probe);
  checkThat(what, value, `${value}, for ${DEADLINE} ms`);
  return value;
}

/** Follows the iterator until the list is done, and returns all items. */
async function pages(limit, list) {
  const found = [];
  for (let page, iterator; !page?.done; { iterator } = page) {
    page = await list({ limit, iterator });
    found.push(...page.data);
    const isFull = page.iterator && page.data.length === limit && found.length < 10_000;
    checkThat(`a page of ${page.data.length}`, page.done ? page.data.length > 0 : isFull, page);
  }
  return found;
}

const ids = (items) => items.map((item) => item.id);
const newestFirst = (items) => [...items].sort((a, b) => b.createdAt - a.createdAt);
const newKey = () => `whsec_${randomBytes(24).toString("base64")}`;

/** Returns those of the keys that verify the request. */
function verifying({ body, headers }, keys) {
  return keys.filter((key) => {
    try {
      new svix.Webhook(key).verify(body, headers);
      return true;
    } catch (error) {
      if (!(error instanceof svix.WebhookVerificationError)) throw error;
    }
  });
}

// The receiver records requests, and answers 500 as often as `failures` says for a path.
const [requests, failures] = [[], {}];
const receiver = createServer(async ({ url: path, headers }, response) => {
  const status = failures[path]-- > 0 ? 500 : 200;
  requests.push({ path, headers, status, body: Buffer.concat(await response.req.toArray()) });
  response.writeHead(status).end(`answered ${status}`);
});
await once(receiver.listen(0, "127.0.0.1"), "listening");
const receiverUrl = `http://127.0.0.1:${receiver.address().port}`;

// No retries: they would hide a 5xx of the server. (To the SDK, `numRetries: 0` means the default.)
const clientWith = (key) => new svix.Svix(key, { serverUrl, retryScheduleInMs: [], requestTimeout: DEADLINE });
const client = clientWith(token);
const newApp = async (name) => (await client.application.create({ name: `${run} ${name}` })).id;
const newEndpoint = (app, path, fields) => client.endpoint.create(app, { url: receiverUrl + path, ...fields });
const send = (app, fields) => client.message.create(app, { eventType: "a.created", payload: { a: 1 }, ...fields });

/** Waits until the receiver has got the message this often, and returns the last of the requests. */
const received = (path, { id }, times = 1) => eventually(`${path} receives it, ${times} in all`,
  () => requests.filter((r) => r.path === path && r.headers["svix-id"] === id)[times - 1]);
const attempted = async (app, endpoint, message, filter) =>
  (await client.messageAttempt.listAttemptedMessages(app, endpoint, filter)).data.find(({ id }) => id === message.id);

const health = async () => check("health answers", await client.health.get(), undefined);

async function applications() {
  const [api, uid, name, metadata] = [client.application, `${run}-app`, "One", { plan: "gold" }];
  const made = await api.create({ name, uid, metadata, throttleRate: 90 });
  check("create", [made.name, made.uid, made.metadata, made.throttleRate], [name, uid, metadata, 90]);
  check("get by id and by uid", [await api.get(made.id), await api.get(uid)], [made, made]);
  check("getOrCreate gets", await api.getOrCreate({ name: "Two", uid }), made);
  check("getOrCreate creates", (await api.getOrCreate({ name: "Two", uid: `${uid}-2` })).name, "Two");
  await refused("a used uid", () => api.create({ name, uid }), "conflict", 409);
  const put = await api.upsert(uid, { name: "Put", uid });
  check("upsert replaces", [put.id, put.name, put.metadata, put.throttleRate ?? null], [made.id, "Put", {}, null]);
  const patched = await api.patch(uid, { metadata });
  check("patch changes one field", [patched.name, patched.uid, patched.metadata], ["Put", uid, metadata]);
  await api.delete(made.id);
  await refused("get after delete", () => api.get(made.id), "not_found", 404);
  const seven = [];
  while (seven.length < 7) seven.push(await newApp("seven"));
  const found = await pages(3, (page) => api.list({ order: svix.Ordering.Descending, ...page }));
  checkThat("list: all seven, each once", new Set([...seven, ...ids(found)]).size === found.length, found);
  check("list: newest first", found, newestFirst(found));
  check("list: oldest first by default", ids(await pages(3, (page) => api.list(page))), ids(found).reverse());
}

async function eventTypes() {
  const [api, schemas] = [client.eventType, { 1: { type: "object", title: "Alpha" } }];
  const [alpha, beta, delta] = ["alpha", "beta", "delta"].map((name) => `${run}.${name}`);
  const listed = async (includeArchived) => (await pages(2, (page) => api.list({ includeArchived, ...page })))
    .map((item) => item.name).filter((name) => name.startsWith(run));
  const made = await api.create({ name: alpha, description: "First", schemas });
  check("create", [made.name, made.archived, made.deprecated, made.schemas], [alpha, false, false, schemas]);
  await refused("a used name", () => api.create({ name: alpha, description: "Again" }), null, 409);
  for (const name of [delta, beta]) check("upsert", (await api.upsert(name, { description: "New" })).name, name);
  check("patch changes one field", (await api.patch(alpha, { description: "Patched" })).schemas, schemas);
  await api.delete(beta);
  check("delete archives", [(await api.get(beta)).archived, await listed()], [true, [alpha, delta]]);
  check("list by name, with archived", await listed(true), [alpha, beta, delta]);
  for (const name of await listed(true)) await api.delete(name, { expunge: true });
  await refused("get after expunge", () => api.get(alpha), "not_found", 404);
}

async function endpoints() {
  const [app, api, uid] = [await newApp("endpoints"), client.endpoint, "mine"];
  const wanted = { uid, description: "Mine", eventTypes: ["a.created"], channels: ["blue"], metadata: { team: "a" } };
  const fields = (made) => Object.fromEntries(Object.keys(wanted).map((name) => [name, made[name] ?? null]));
  const made = await newEndpoint(app, "/x", wanted);
  check("create", [fields(made), made.url, made.disabled], [wanted, `${receiverUrl}/x`, false]);
  check("get by id and by uid", [await api.get(app, made.id), await api.get(app, uid)], [made, made]);
  const put = await api.upsert(app, uid, { url: made.url, uid });
  check("upsert replaces", fields(put), { uid, description: "", eventTypes: null, channels: null, metadata: {} });
  check("patch clears with null", (await api.patch(app, put.id, { uid: null })).uid ?? null, null);
  for (const n of [1, 2, 3, 4]) await newEndpoint(app, `/${n}`);
  const found = await pages(2, (page) => api.list(app, page));
  check("list: each once, newest first", [new Set(ids(found)).size, found], [5, newestFirst(found)]);
  await api.delete(app, made.id);
  await refused("get after delete", () => api.get(app, made.id), "not_found", 404);
}

async function endpointHeaders() {
  const [app, api, path] = [await newApp("headers"), client.endpoint, "/headers"];
  const { id } = await newEndpoint(app, path);
  const stored = async () => {
    const { headers, sensitive } = await api.getHeaders(app, id);
    return `${Object.entries(headers).sort().join(" ")}; ${sensitive}`.toLowerCase();
  };
  const names = ["x-one", "x-two", "x-three", "authorization"];
  const sent = async () => received(path, await send(app)).then(({ headers }) => names.map((name) => headers[name]));
  await api.setHeaders(app, id, { headers: { "X-One": "1", "X-Two": "2", "X-Three": "3", Authorization: "secret" } });
  check("set: the sensitive value is hidden", await stored(), "x-one,1 x-three,3 x-two,2; authorization");
  check("the next message has them all", await sent(), ["1", "2", "3", "secret"]);
  // The reference removes a header by null; the SDK's own way is `deleteHeaders`.
  await api.patchHeaders(app, id, { headers: { "X-One": "4", "X-Two": null }, deleteHeaders: ["X-Three"] });
  await refused("a bad value", () => api.patchHeaders(app, id, { headers: { "X-One": "a\nb" } }), null, 422);
  check("patch changes, removes and keeps, and is not undone", await stored(), "x-one,4; authorization");
  check("changes hold at once", await sent(), ["4", undefined, undefined, "secret"]);
}

async function endpointSecrets() {
  const [app, api, keys] = [await newApp("secrets"), client.endpoint, [newKey(), newKey(), newKey()]];
  const { id } = await newEndpoint(app, "/secrets", { secret: keys[0] });
  const signing = async () => verifying(await received("/secrets", await send(app)), keys);
  await api.rotateSecret(app, id, { key: keys[1] });
  check("getSecret answers the new key", (await api.getSecret(app, id)).key, keys[1]);
  check("the old and the new key sign", await signing(), [keys[0], keys[1]]);
  await api.rotateSecret(app, id, { key: keys[2], gracePeriodSeconds: 0 });
  check("without grace, no older key signs", await signing(), [keys[2]]);
  await api.rotateSecret(app, id);
  checkThat("rotateSecret can make a key", !keys.includes((await api.getSecret(app, id)).key), keys);
}

async function messages() {
  const [app, api, secret, withContent] = [await newApp("messages"), client.message, newKey(), true];
  const filters = { "/all": { secret }, "/blue": { channels: ["blue"] }, "/deleted": { eventTypes: ["a.deleted"] } };
  for (const [path, filter] of Object.entries(filters)) await newEndpoint(app, path, filter);
  const payload = { z: 'Grüße ☃ "</>"', a: [1, 0.1, null, {}] };
  const fields = { payload, eventId: "id-1", channels: ["blue"], tags: ["tag"] };
  const made = await send(app, fields);
  check("create, without content", [made.eventId, made.channels, made.payload], ["id-1", ["blue"], {}]);
  check("the same eventId and content: the first message", await send(app, fields), made);
  await refused("the same eventId, other content", () => send(app, { eventId: "id-1" }), "conflict", 409);
  check("get by id and by eventId", [await api.get(app, made.id), await api.get(app, "id-1")], [made, made]);
  check("get with content", (await api.get(app, "id-1", { withContent })).payload, payload);
  const request = await received("/all", made);
  check("body", request.body.toString(), JSON.stringify(payload));
  check("svix-signature is of this key alone", verifying(request, [newKey(), secret]), [secret]);
  const second = await send(app, { eventType: "a.deleted" });
  for (const [message, paths] of [[made, ["/all", "/blue"]], [second, ["/all", "/deleted"]]]) {
    for (const path of paths) await received(path, message);
    const { data } = await client.messageAttempt.listAttemptedDestinations(app, message.id);
    check("it goes to those who want it", data.map(({ url }) => url).sort(), paths.map((path) => receiverUrl + path));
  }
  const listed = async (filter) => ids((await api.list(app, filter)).data);
  check("list by channel", await listed({ channel: "blue" }), [made.id]);
  check("list by event types", await listed({ eventTypes: ["x", "a.deleted"] }), [second.id]);
  check("list to the end, newest first", ids(await pages(1, (page) => api.list(app, page))), [second.id, made.id]);
  check("list before", await listed({ before: second.timestamp }), [made.id]);
  await api.expungeContent(app, made.id);
  const { payload: expunged } = await api.get(app, made.id, { withContent });
  checkThat("expunge empties the payload", expunged && !expunged.z, expunged);
}

async function attempts() {
  const [app, api, path] = [await newApp("attempts"), client.messageAttempt, "/attempts"];
  const { id } = await newEndpoint(app, path);
  failures[path] = 1;
  const message = await send(app, { eventId: "id-1" });
  const byMessage = async (filter) => (await api.listByMsg(app, "id-1", { endpointId: id, ...filter })).data;
  await eventually("a message to be tried again is sending, with nextAttempt",
    async () => (await attempted(app, id, message, { status: SENDING }))?.nextAttempt);
  await eventually("the retry succeeds", async () => (await byMessage({ status: SUCCESS })).length);
  const [newest, oldest] = await byMessage({ withContent: true });
  const fields = (i) => [i.msgId, i.status, i.statusText, i.response, i.responseStatusCode, i.triggerType];
  check("the newest is first", fields(newest), [message.id, SUCCESS, "success", "answered 200", 200, SCHEDULED]);
  check("the oldest is last", fields(oldest), [message.id, FAIL, "fail", "answered 500", 500, SCHEDULED]);
  checkThat("times", oldest.timestamp < newest.timestamp && Math.abs(Date.now() - newest.timestamp) < HOUR, newest);
  check("no response unless asked for", (await byMessage()).filter((i) => i.response.includes("answered")), []);
  check("get by eventId", await api.get(app, "id-1", oldest.id), oldest);
  check("in pages", ids(await pages(1, (page) => api.listByEndpoint(app, id, page))), [newest.id, oldest.id]);
  const filter = { status: FAIL, statusCodeClass: svix.StatusCodeClass.Code5xx, eventTypes: ["x", "a.created"] };
  check("with filters", ids((await api.listByEndpoint(app, id, filter)).data), [oldest.id]);
  const item = await attempted(app, id, message, { withContent: true });
  check("attempted message", [item.status, item.payload, item.nextAttempt], [SUCCESS, { a: 1 }, null]);
}

async function resend() {
  const [app, api, path] = [await newApp("resend"), client.messageAttempt, "/resend"];
  const { id } = await newEndpoint(app, path);
  const isDelivered = async (message) => (await attempted(app, id, message))?.status === SUCCESS;
  const first = await send(app);
  await eventually("it is delivered", () => isDelivered(first));
  check("resend answers an empty object", await api.resend(app, first.id, id), {});
  check("resend repeats the body", (await received(path, first, 2)).body.toString(), '{"a":1}');
  const newest = await eventually("a second attempt", async () => (await api.listByMsg(app, first.id)).data.at(-2));
  check("it is manual, and successful", [newest.triggerType, newest.status], [MANUAL, SUCCESS]);
  failures[path] = 1;
  const second = await send(app);
  await received(path, second);
  await api.resend(app, second.id, id);
  await eventually("a resend while a retry waits: it arrives", () => isDelivered(second));
  await client.endpoint.patch(app, id, { disabled: true });
  await refused("resend to a disabled endpoint", () => api.resend(app, second.id, id), null, 4);
}

async function recover() {
  const [app, path] = [await newApp("recover"), "/recover"];
  const { id } = await newEndpoint(app, path);
  const has = async (message, status) => (await attempted(app, id, message))?.status === status;
  const failed = (message) => eventually("it fails for good", async () => await has(message, FAIL) && message);
  const good = await send(app);
  await received(path, good);
  failures[path] = Infinity;
  const [old, since, fresh] = [await failed(await send(app)), new Date(), await failed(await send(app))];
  failures[path] = 0;
  const { task, status } = await client.endpoint.recover(app, id, { since });
  check("recover answers a task", [task, status], ["endpoint.recover", "running"]);
  await eventually("the new message is redelivered", () => has(fresh, SUCCESS));
  check("the old one is not", await has(old, FAIL), true);
  await client.endpoint.recover(app, id, { since: new Date(since - HOUR) });
  await eventually("since an hour ago, it is", () => has(old, SUCCESS));
  const delivered = requests.filter((r) => r.path === path && r.status === 200).map((r) => r.headers["svix-id"]);
  check("each is delivered once", delivered, ids([good, fresh, old]));
}

async function stats() {
  const [app, path, early] = [await newApp("stats"), "/stats", new Date(Date.now() - HOUR)];
  const { id } = await newEndpoint(app, path);
  const counts = (range) => client.endpoint.getStats(app, id, range);
  await received(path, await send(app));
  failures[path] = Infinity;
  await send(app);
  await eventually("one has failed", async () => (await counts()).fail);
  check("since", await counts({ since: early }), { success: 1, pending: 0, sending: 0, fail: 1, canceled: 0 });
  check("until", (await counts({ since: new Date(early - HOUR), until: early })).success, 0);
}

async function portal() {
  const [app, foreign] = [await newApp("portal"), await newApp("portal 2")];
  const access = await client.authentication.appPortalAccess(app);
  checkThat("a url and a token", /^https?:\/\//.test(access.url) && access.token, access);
  const { application, authentication, endpoint } = clientWith(access.token);
  check("its application and endpoints", [(await application.get(app)).id, (await endpoint.list(app)).data], [app, []]);
  await refused("another application", () => endpoint.list(foreign), "not_found", 404);
  await refused("creating one", () => application.create({ name: "X" }), "insufficient access", 403);
  await authentication.logout();
  await refused("after logout", () => application.get(app), "authentication_failed", 401);
  await refused("logout of another token", () => client.authentication.logout(), null, 4);
}

async function idempotency() {
  const [app, idempotencyKey] = [await newApp("idempotency"), randomBytes(8).toString("hex")];
  const create = () => client.application.create({ name: "Once" }, { idempotencyKey });
  check("application.create again", await create(), await create());
  const sendOnce = () => client.message.create(app, { eventType: "once", payload: {} }, { idempotencyKey });
  check("message.create again, with the key of the other URL", await sendOnce(), await sendOnce());
  check("it is listed once", (await client.message.list(app)).data.length, 1);
}

async function errors() {
  const [app, api] = [await newApp("errors"), client.message];
  await refused("a wrong token", () => clientWith("wrong").application.delete(app), "authentication_failed", 401);
  await refused("an unknown message", () => api.get(app, "msg_2srOrx2ZWZBpBUvZwXKQmoEYga2"), "not_found", 404);
  await refused("an unknown application", () => send("no such/app"), "not_found", 404);
  // The client leaves the body of such an answer as a text.
  const hosted = await client.integration.list(app).catch((error) => error);
  check("a method of the hosted service", [hosted.code, JSON.parse(hosted.body).code], [501, "not_implemented"]);
  for (const limit of [-1, "ten"]) await refused(`limit=${limit}`, () => api.list(app, { limit }), null, 400);
  await refused("before=yesterday", () => api.list(app, { before: "yesterday" }), null, 400);
  await refused("a bad rate", () => newEndpoint(app, "/x", { throttleRate: 0 }), "throttleRate", 422);
  await refused("a payload that is an array", () => send(app, { payload: [1] }), "payload", 422);
  await refused("a bad eventId", () => send(app, { eventId: "not valid" }), "eventId", 422);
}

const topics = [health, applications, eventTypes, endpoints, endpointHeaders, endpointSecrets, messages, attempts,
  resend, recover, stats, portal, idempotency, errors];
let name = "";
try {
  for (const topic of topics.filter((topic) => topic.name === (only ?? topic.name))) {
    name = topic.name;
    console.log(`-- ${name}`);
    await topic();
  }
  check("a topic was run", name !== "", true);
} catch (error) {
  const why = error instanceof Failure ? error.message : `\n  expected: no exception\n  found:    ${inspect(error)}`;
  console.error(`FAIL ${name}: ${why}`);
  process.exitCode = 1;
}
receiver.close().closeAllConnections();
