"""Drives a Svix-compatible server with the official, unmodified `svix` package.

    python flow.py --url http://127.0.0.1:8071 --token TOKEN [--only TOPIC]

Each topic has applications of its own (they stay), and each check prints one line. The first check that fails prints
what it expected and what it found, and the exit code is 1. The server must be allowed to deliver to 127.0.0.1, and must
give up after one or two retries of one second: `recover` and `stats` wait until a delivery has failed for good.
"""

import argparse
import contextlib
import http.server
import json
import os
import secrets
import threading
import time
import traceback
from collections import namedtuple
from datetime import datetime, timedelta, timezone

from svix import Svix, SvixOptions, Webhook, WebhookVerificationError, api as o, models as m  # o: options of calls
from svix.exceptions import HTTPValidationError, HttpError

DEADLINE, ALWAYS = 30.0, 1_000_000
SUCCESS, FAIL, SENDING = m.MessageStatus.SUCCESS, m.MessageStatus.FAIL, m.MessageStatus.SENDING
SCHEDULED, MANUAL = m.MessageAttemptTriggerType.SCHEDULED, m.MessageAttemptTriggerType.MANUAL
Received = namedtuple("Received", "path headers body status")

def check(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}\n  expected: {expected!r}\n  found:    {found!r}")
    print(f"ok   {what}", flush=True)

def check_that(what, holds, found):
    check(what, True if holds else found, True)

def refused(what, call, code, status):
    """Checks for the SDK's error of this status (4: any 4xx) and code (None: any). A 422 must name the field `code`."""
    found, holds = None, False
    try:
        found = call()
    except HttpError as error:
        found, holds = error, error.code and code in (None, error.code) and error.detail
    except HTTPValidationError as error:
        found, holds = error, error.detail and all(
            i.loc[0] == "body" and code in (None, *i.loc) and i.msg and i.type for i in error.detail)
    check_that(f"{what}: {status:x<3} {code or ''}", holds and str(found.status_code).startswith(str(status)), found)

def eventually(what, probe):
    """Returns the first true value of `probe`, or fails at the deadline."""
    end = time.monotonic() + DEADLINE
    while not (value := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}\n  expected: this within {DEADLINE:.0f} s\n  found:    {value!r}")
        time.sleep(0.05)
    print(f"ok   {what}", flush=True)
    return value

def pages(size, listing):
    """Follows the iterator until the list is done, and returns all items."""
    found, page = [], listing(limit=size)
    while not page.done:
        check_that("page with more to come", len(page.data) == size and page.iterator and len(found) < 10_000, page)
        found += page.data
        page = listing(limit=size, iterator=page.iterator)
    check_that("last page", 0 < len(page.data) <= size, page)
    return found + page.data

def is_recent(*times):
    return all(t.tzinfo and abs(datetime.now(timezone.utc) - t) < timedelta(minutes=5) for t in times)

def by_time(items, field, reverse):
    return sorted(items, key=lambda item: getattr(item, field).isoformat(timespec="milliseconds"), reverse=reverse)

def verifying(request, keys):
    """Returns those of the keys that verify the request."""
    found = []
    for key in keys:
        with contextlib.suppress(WebhookVerificationError):
            Webhook(key).verify(request.body, request.headers)
            found.append(key)
    return found

class Receiver(http.server.BaseHTTPRequestHandler):
    """Records requests, and answers 500 as often as `failures` says for a path."""
    protocol_version, requests, failures = "HTTP/1.1", [], {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        failures = self.failures.get(self.path, 0)
        self.failures[self.path], status = max(failures - 1, 0), 500 if failures > 0 else 200
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.requests.append(Received(self.path, headers, body, status))
        answer = f"answered {status}".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

class Flow:
    """What all topics use."""
    def __init__(self, url, token):
        receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        self.url, self.receiver_url = url, f"http://127.0.0.1:{receiver.server_port}"
        self.run, self.client = f"flow-{secrets.token_hex(4)}", self.client_with(token)

    def client_with(self, token):
        # No retries: they would hide a 5xx of the server.
        return Svix(token, SvixOptions(server_url=self.url, retry_schedule=[]))

    def application(self, name):
        return self.client.application.create(m.ApplicationIn(name=f"{self.run} {name}")).id

    def endpoint(self, app, path, **fields):
        return self.client.endpoint.create(app, m.EndpointIn(url=self.receiver_url + path, **fields))

    def send(self, app, event_type="user.created", payload={"a": 1}, **fields):
        return self.client.message.create(app, m.MessageIn(event_type=event_type, payload=payload, **fields))

    def requests(self, path, message=None):
        wanted = (path, message and message.id)
        return [r for r in Receiver.requests if (r.path, message and r.headers.get("svix-id")) == wanted]

    def received(self, path, message, times=1):
        """Waits until the receiver has got the message this often, and returns the last of the requests."""
        return eventually(f"{path} receives it, {times} in all", lambda: self.requests(path, message)[times - 1:])[-1]

    def destinations(self, app, message):
        page = self.client.message_attempt.list_attempted_destinations(app, message.id)
        return {item.id: item.status for item in page.data}

    def attempted(self, app, endpoint, **options):
        options = o.MessageAttemptListAttemptedMessagesOptions(**options)
        page = self.client.message_attempt.list_attempted_messages(app, endpoint, options)
        return {item.id: item for item in page.data}

def health(f):
    check("health answers without content", f.client.health.get(), None)

def applications(f):
    api, uid = f.client.application, f"{f.run}-app"
    made = api.create(m.ApplicationIn(name="One", uid=uid, metadata={"plan": "gold"}, throttle_rate=90))
    check("create", (made.name, made.uid, made.metadata, made.throttle_rate), ("One", uid, {"plan": "gold"}, 90))
    check_that("times are recent", is_recent(made.created_at, made.updated_at), made)
    check("get by id and by uid", [api.get(made.id), api.get(uid)], [made, made])
    check("get_or_create gets", api.get_or_create(m.ApplicationIn(name="Two", uid=uid)), made)
    once, again = (api.get_or_create(m.ApplicationIn(name="Two", uid=uid + "-2")) for _ in "12")
    check("get_or_create creates once", (once.name, once.id == made.id, again), ("Two", False, once))
    refused("a used uid", lambda: api.create(m.ApplicationIn(name="X", uid=uid)), "conflict", 409)
    refused("a bad uid", lambda: api.create(m.ApplicationIn(name="X", uid="not valid")), "uid", 422)
    out = api.upsert(uid, m.ApplicationIn(name="Put", uid=uid))
    check("upsert replaces", (out.id, out.name, out.metadata, out.throttle_rate), (made.id, "Put", {}, None))
    out = api.patch(uid, m.ApplicationPatch(metadata={"plan": "blue"}))
    check("patch changes one field", (out.id, out.name, out.uid, out.metadata), (made.id, "Put", uid, {"plan": "blue"}))
    out = api.upsert(f"{uid}-3", m.ApplicationIn(name="Three"))
    check_that("upsert of the unknown creates, with the body's uid", out.id != made.id and out.uid is None, out)
    check("delete answers without content", api.delete(made.id), None)
    refused("get after delete", lambda: api.get(made.id), "not_found", 404)
    seven = {f.application(n) for n in range(7)}
    for order in (None, *m.Ordering):
        found = pages(3, lambda **page: api.list(o.ApplicationListOptions(order=order, **page)))
        ids, newest_first = {item.id for item in found}, order == m.Ordering.DESCENDING
        check(f"list, order {order}: each of the seven once", (seven & ids, len(found)), (seven, len(ids)))
        check("list: oldest first unless descending", found, by_time(found, "created_at", reverse=newest_first))
    page = api.list(o.ApplicationListOptions(limit=0))
    check("limit=0 gives an empty page that is not done", (page.data, page.iterator, page.done), ([], None, False))

def event_types(f):
    api, schemas = f.client.event_type, {"1": {"type": "object", "title": "Alpha"}}
    alpha, beta, delta, gamma = names = [f"{f.run}.{name}" for name in ("alpha", "beta", "delta", "gamma")]

    def listed(**options):
        found = pages(2, lambda **page: api.list(o.EventTypeListOptions(**page, **options)))
        return [item.name for item in found if item.name.startswith(f"{f.run}.")]

    made = api.create(m.EventTypeIn(name=alpha, description="First", schemas=schemas))
    check("create", (made.name, made.archived, made.deprecated, made.schemas), (alpha, False, False, schemas))
    check("get", api.get(alpha), made)
    refused("a used name", lambda: api.create(m.EventTypeIn(name=alpha, description="Again")), None, 409)
    refused("a bad name", lambda: api.create(m.EventTypeIn(name="a b", description="")), "name", 422)
    for name in (beta, gamma, delta):
        check("upsert creates", api.upsert(name, m.EventTypeUpsertIn(description="New")).name, name)
    out = api.upsert(beta, m.EventTypeUpsertIn(description="Put", deprecated=True))
    check("upsert updates", (out.name, out.description, out.deprecated), (beta, "Put", True))
    out = api.patch(alpha, m.EventTypePatch(description="Patched"))
    check("patch changes one field", (out.description, out.schemas), ("Patched", schemas))
    check("list by name", listed(), names)
    api.delete(beta)
    check("delete archives", (api.get(beta).archived, listed()), (True, [alpha, delta, gamma]))
    check("list with include_archived", listed(include_archived=True), names)
    api.upsert(beta, m.EventTypeUpsertIn(description="Back", archived=False))
    check("upsert unarchives", (api.get(beta).archived, listed()), (False, names))
    for name in names:
        api.delete(name, o.EventTypeDeleteOptions(expunge=True))
    refused("get after expunge", lambda: api.get(alpha), "not_found", 404)

def endpoints(f):
    app, api, uid, url = f.application("endpoints"), f.client.endpoint, "mine", f.receiver_url + "/x"
    page, key = api.list(app), f"whsec_{secrets.token_hex(16)}"
    check("an empty list", (page.data, page.iterator, page.done), ([], None, True))
    wanted = {"description": "Mine", "event_types": ["a.created", "a.deleted"], "channels": ["blue", "red"],
              "metadata": {"team": "a"}, "uid": uid, "throttle_rate": 50}

    def fields(endpoint):
        found = {name: getattr(endpoint, name) for name in wanted}
        return {name: sorted(value) if isinstance(value, list) else value for name, value in found.items()}

    made = f.endpoint(app, "/old", secret=key, **wanted)
    check("create", (fields(made), made.url, made.disabled), (wanted, f.receiver_url + "/old", False))
    check("get by id and by uid", [api.get(app, made.id), api.get(app, uid)], [made, made])
    refused("a used uid", lambda: f.endpoint(app, "/x", uid=uid), "conflict", 409)
    refused("a bad rate", lambda: f.endpoint(app, "/x", throttle_rate=0), "throttleRate", 422)
    out = api.upsert(app, uid, m.EndpointUpsertIn(url=url, uid=uid))
    check("upsert replaces", (out.id, out.url, fields(out)), (made.id, url, {
        "description": "", "event_types": None, "channels": None, "metadata": {}, "uid": uid, "throttle_rate": None}))
    check("upsert keeps the secret that was given", api.get_secret(app, uid).key, key)
    out = api.patch(app, uid, m.EndpointPatch(disabled=True, channels=["green"]))
    check("patch changes two fields", (out.id, out.disabled, out.channels, out.url), (made.id, True, ["green"], url))
    check("patch clears with null", api.patch(app, uid, m.EndpointPatch(channels=None)).channels, None)
    ids = {made.id} | {f.endpoint(app, f"/{n}").id for n in range(4)}
    found = pages(2, lambda **page: api.list(app, o.EndpointListOptions(**page)))
    check("list: each once", ({item.id for item in found}, len(found)), (ids, 5))
    check("list: newest first", found, by_time(found, "created_at", reverse=True))
    check("delete answers without content", api.delete(app, uid), None)
    refused("get after delete", lambda: api.get(app, made.id), "not_found", 404)

def endpoint_headers(f):
    app, api, path = f.application("headers"), f.client.endpoint, "/headers"
    endpoint = f.endpoint(app, path).id
    put, patch = (api.set_headers, m.EndpointHeadersIn), (api.patch_headers, m.EndpointHeadersPatchIn)

    def change(call, model, values):
        # The reference removes a header by null, which the SDK's model would send, but refuses to construct.
        call(app, endpoint, model.model_construct(headers=values))

    def headers():
        out = api.get_headers(app, endpoint)
        return {name.lower(): value for name, value in out.headers.items()}, [name.lower() for name in out.sensitive]

    def sent():
        request = f.received(path, f.send(app))
        return [request.headers.get(name) for name in ("x-one", "x-two", "authorization")]

    change(*put, {"X-One": "1", "X-Two": "2", "Authorization": "Bearer hidden"})
    check("set: the sensitive value is hidden", headers(), ({"x-one": "1", "x-two": "2"}, ["authorization"]))
    check("the next message has them all", sent(), ["1", "2", "Bearer hidden"])
    change(*patch, {"X-One": "3", "X-Two": None})
    check("patch changes, removes and keeps", headers(), ({"x-one": "3"}, ["authorization"]))
    check("changes hold at once", sent(), ["3", None, "Bearer hidden"])
    for how, value in [(put, "x" * 4097), (put, "a\nb"), (patch, "x" * 4097), (patch, "a\nb")]:
        refused("a bad value", lambda: change(*how, {"X-Bad": value}), None, 422)
    check("refused changes change nothing", headers(), ({"x-one": "3"}, ["authorization"]))

def endpoint_secrets(f):
    app, api, path = f.application("secrets"), f.client.endpoint, "/secrets"
    old, new, third = keys = [f"whsec_{secrets.token_hex(16)}" for _ in range(3)]
    endpoint = f.endpoint(app, path, secret=old).id
    out = api.rotate_secret(app, endpoint, m.EndpointSecretRotateIn(key=new))
    check("rotate and get_secret answer the new key", (out.key, api.get_secret(app, endpoint).key), (new, new))
    check("the old and the new key sign", verifying(f.received(path, f.send(app)), keys), [old, new])
    api.rotate_secret(app, endpoint, m.EndpointSecretRotateIn(key=third, grace_period_seconds=0))
    check("without grace, no older key signs", verifying(f.received(path, f.send(app)), keys), [third])
    out = api.rotate_secret(app, endpoint, m.EndpointSecretRotateIn())
    check_that("rotate can make a key", out.key.startswith("whsec_") and out.key not in keys, out)

def messages(f):
    app, api, path, key = f.application("messages"), f.client.message, "/messages", f"whsec_{secrets.token_hex(16)}"
    payload, full = {"z": "Grüße ☃ \"</>\"", "a": [1, 1.0, 0.1, None, {}]}, o.MessageGetOptions(with_content=True)
    f.endpoint(app, path, secret=key)
    made, again = (f.send(app, payload=payload, event_id="id-1", channels=["blue"], tags=["tag"]) for _ in "12")
    fields = (made.event_id, made.event_type, made.channels, made.payload, is_recent(made.timestamp))
    check("create, without content", fields, ("id-1", "user.created", ["blue"], {}, True))
    check("the same event_id and content: the first message", again, made)
    refused("the same event_id, other content", lambda: f.send(app, event_id="id-1"), "conflict", 409)
    check("get by id and by event_id", [api.get(app, made.id), api.get(app, "id-1")], [made, made])
    check("get with content", api.get(app, made.id, full).payload, payload)
    request = f.received(path, made)
    check("body", request.body.decode(), json.dumps(payload, ensure_ascii=False, separators=(",", ":")))
    check_that("svix-timestamp is now", abs(int(request.headers["svix-timestamp"]) - time.time()) < 300, request)
    check("svix-signature is of this key alone", verifying(request, ["whsec_" + "E" * 32, key]), [key])
    out = api.create(app, m.MessageIn(event_type="b", payload={"b": 2}), o.MessageCreateOptions(with_content=True))
    check("create with content", out.payload, {"b": 2})
    f.received(path, out)
    check("the first message was sent once", len(f.requests(path, made)), 1)
    api.expunge_content(app, made.id)
    out = api.get(app, made.id, full)
    check_that("expunge empties the payload", out.payload in ({}, {"expired": True}, {"expunged": True}), out)

def message_filters(f):
    app, blue, created = f.application("filters"), {"channels": ["blue", "y"]}, {"event_types": ["user.created", "x"]}
    filters = {"all": {}, "created": created, "deleted": {"event_types": ["user.deleted"]}, "blue": blue,
               "green": {"channels": ["green"]}, "both": created | blue, "off": {"disabled": True}}
    names = {f.endpoint(app, f"/filters/{name}", **fields).id: name for name, fields in filters.items()}

    def goes_to(message, *expected):
        eventually("a message is delivered", lambda: set(f.destinations(app, message).values()) == {SUCCESS})
        check("it goes to those who want it", {names[i] for i in f.destinations(app, message)}, set(expected))
        return message

    goes_to(f.send(app), "all", "created")
    goes_to(f.send(app, "user.deleted", channels=["green"]), "all", "deleted", "green")
    message = goes_to(f.send(app, channels=["blue", "red"]), "all", "created", "blue", "both")
    check("requests", {name: len(f.requests(f"/filters/{name}")) for name in filters},
          {"all": 3, "created": 2, "deleted": 1, "blue": 1, "green": 1, "both": 1, "off": 0})
    found = pages(2, lambda **page: f.client.message_attempt.list_attempted_destinations(
        app, message.id, o.MessageAttemptListAttemptedDestinationsOptions(**page)))
    check("destinations: each once", sorted(names[item.id] for item in found), ["all", "blue", "both", "created"])

def message_lists(f):
    app, gap = f.application("lists"), timedelta(milliseconds=20)

    def listing(**options):
        return f.client.message.list(app, o.MessageListOptions(**options))

    def numbers(**options):
        return sorted(item.payload["n"] for item in listing(with_content=True, **options).data)

    kinds = [("a", ["red"]), ("b", ["red", "blue"]), ("a", None), ("c", None), ("b", ["blue"]), ("a", ["red"])]
    for n, (event_type, channels) in enumerate(kinds):
        if n == 3:
            middle = message.timestamp + gap
            eventually("the clock goes on", lambda: datetime.now(timezone.utc) > middle + gap)
        message = f.send(app, event_type, {"n": n}, channels=channels)
    found = pages(3, listing)
    check("each once, without content", (len({i.id for i in found}), [i.payload for i in found]), (6, [{}] * 6))
    check("newest first", found, by_time(found, "timestamp", reverse=True))
    check("with content", numbers(), [0, 1, 2, 3, 4, 5])
    check("by channel", numbers(channel="blue"), [1, 4])
    check("by event types", [numbers(event_types=i) for i in (["c"], ["a", "c"])], [[3], [0, 2, 3, 5]])
    check("before and after", [numbers(before=middle), numbers(after=middle)], [[0, 1, 2], [3, 4, 5]])

def attempts(f):
    app, api, path, bad = f.application("attempts"), f.client.message_attempt, "/attempts", "/attempts-bad"
    endpoint, failing = f.endpoint(app, path).id, f.endpoint(app, bad).id
    Receiver.failures.update({path: 1, bad: ALWAYS})
    message = f.send(app, payload={"n": 7}, event_id="id-1", channels=["blue"])

    def by_message(**options):
        return api.list_by_msg(app, message.id, o.MessageAttemptListByMsgOptions(endpoint_id=endpoint, **options)).data

    def by_endpoint(**options):
        return api.list_by_endpoint(app, endpoint, o.MessageAttemptListByEndpointOptions(**options))

    eventually("a message to be tried again is sending, with next_attempt",
               lambda: [i for i in f.attempted(app, failing, status=SENDING).values() if i.next_attempt])
    eventually("its destination has the attempt's status", lambda: f.destinations(app, message)[failing] == FAIL)
    eventually("the retry succeeds", lambda: by_message(status=SUCCESS))
    newest, oldest = found = by_message(with_content=True)
    check("newest first", [(i.status, i.status_text, i.response_status_code, i.response) for i in found],
          [(SUCCESS, "success", 200, "answered 200"), (FAIL, "fail", 500, "answered 500")])
    check("message, endpoint, url, trigger", {(i.msg_id, i.endpoint_id, i.url, i.trigger_type) for i in found},
          {(message.id, endpoint, f.receiver_url + path, SCHEDULED)})
    check_that("times", is_recent(newest.timestamp, oldest.timestamp) and oldest.timestamp < newest.timestamp, found)
    check("the retry is the same message", [r.body for r in f.requests(path, message)], [b'{"n":7}'] * 2)
    check("no response unless asked for", [i for i in by_message() if "answered" in i.response], [])
    check("get by id and event_id", [api.get(app, i, oldest.id) for i in (message.id, "id-1")], [oldest, oldest])
    check("by endpoint, in pages", [i.id for i in pages(1, by_endpoint)], [newest.id, oldest.id])
    check("by endpoint and status", [i.id for i in by_endpoint(status=FAIL).data], [oldest.id])
    check("by event types", [len(by_endpoint(event_types=i).data) for i in (["x", "user.created"], ["x"])], [2, 0])
    item = f.attempted(app, endpoint, status=SUCCESS)[message.id]
    check("attempted", (item.status, item.event_id, item.payload, item.next_attempt), (SUCCESS, "id-1", {}, None))
    item = f.attempted(app, endpoint, with_content=True)[message.id]
    check("with content; and none has failed", (item.payload, f.attempted(app, endpoint, status=FAIL)), ({"n": 7}, {}))
    api.expunge_content(app, message.id, oldest.id)
    out = api.get(app, message.id, oldest.id)
    check_that("expunge removes the response alone", "answered" not in out.response and out.status == FAIL, out)

def resend(f):
    app, api, path = f.application("resend"), f.client.message_attempt, "/resend"
    endpoint, message = f.endpoint(app, path).id, f.send(app)
    eventually("it is delivered", lambda: f.destinations(app, message) == {endpoint: SUCCESS})
    api.resend(app, message.id, endpoint)
    check("resend repeats the body", f.received(path, message, 2).body, b'{"a":1}')
    newest = eventually("a second attempt", lambda: api.list_by_msg(app, message.id).data[:-1])[0]
    check("it is manual, and successful", (newest.trigger_type, newest.status), (MANUAL, SUCCESS))
    Receiver.failures[path], message = 1, f.send(app)
    f.received(path, message)
    api.resend(app, message.id, endpoint)
    eventually("a resend in between ends no retries", lambda: f.destinations(app, message) == {endpoint: SUCCESS})
    f.client.endpoint.patch(app, endpoint, m.EndpointPatch(disabled=True))
    refused("resend to a disabled endpoint", lambda: api.resend(app, message.id, endpoint), None, 4)

def recover(f):
    app, path = f.application("recover"), "/recover"
    endpoint, good = f.endpoint(app, path).id, f.send(app)

    def has(message, status):
        item = f.attempted(app, endpoint).get(message.id)
        return item and item.status == status and not item.next_attempt

    def failed():
        message = f.send(app)
        eventually("a message fails for good", lambda: has(message, FAIL))
        return message

    f.received(path, good)
    Receiver.failures[path] = ALWAYS
    old, since, new = failed(), datetime.now(timezone.utc), failed()
    Receiver.failures[path] = 0
    out = f.client.endpoint.recover(app, endpoint, m.RecoverIn(since=since))
    check("recover answers a task", (out.task, out.status), ("endpoint.recover", "running"))
    eventually("the new message is redelivered", lambda: has(new, SUCCESS))
    check("the old one is not", has(old, FAIL), True)
    f.client.endpoint.recover(app, endpoint, m.RecoverIn(since=since - timedelta(hours=1)))
    eventually("since an hour ago, it is", lambda: has(old, SUCCESS))
    delivered = [r.headers["svix-id"] for r in f.requests(path) if r.status == 200]
    check("each is delivered once", delivered, [good.id, new.id, old.id])

def stats(f):
    app, path, hour, begin = f.application("stats"), "/stats", timedelta(hours=1), datetime.now(timezone.utc)
    endpoint, nothing = f.endpoint(app, path).id, {"success": 0, "pending": 0, "sending": 0, "fail": 0, "canceled": 0}

    def counts(**options):
        return f.client.endpoint.get_stats(app, endpoint, o.EndpointGetStatsOptions(**options)).model_dump()

    check("nothing at first", counts(), nothing)
    f.received(path, f.send(app))
    Receiver.failures[path] = ALWAYS
    f.send(app)
    eventually("one success, one failure, no more", lambda: counts() == nothing | {"success": 1, "fail": 1})
    early = counts(since=begin - 2 * hour, until=begin - hour)
    check("since and until", (counts(since=begin - hour), early), (counts(), nothing))

def send_example(f):
    app, path, other = f.application("example"), "/example", "/example-other"
    endpoint, _ = f.endpoint(app, path, channels=["blue"], event_types=["user.created"]).id, f.endpoint(app, other)
    message = f.client.endpoint.send_example(app, endpoint, m.EventExampleIn(event_type="svix.ping"))
    request = f.received(path, message)
    check("event type and body", (message.event_type, json.loads(request.body)), ("svix.ping", {"success": True}))
    eventually("it goes to no other", lambda: f.destinations(app, message) == {endpoint: SUCCESS})
    check("the other received nothing", f.requests(other), [])

def portal(f):
    app, foreign = f.application("portal"), f.application("portal 2")
    access = f.client.authentication.app_portal_access(app, m.AppPortalAccessIn())
    check_that("a url and a token", access.url.startswith(("http://", "https://")) and access.token, access)
    client = f.client_with(access.token)
    check("its application and endpoints", (client.application.get(app).id, client.endpoint.list(app).data), (app, []))
    refused("another application", lambda: client.application.get(foreign), "not_found", 404)
    refused("its endpoints", lambda: client.endpoint.list(foreign), "not_found", 404)
    refused("creating one", lambda: client.application.create(m.ApplicationIn(name="X")), "insufficient access", 403)
    check("logout answers without content", client.authentication.logout(), None)
    refused("after logout", lambda: client.application.get(app), "authentication_failed", 401)
    refused("logout of another token", f.client.authentication.logout, None, 4)

def idempotency(f):
    app, key = f.application("idempotency"), secrets.token_hex(8)
    application, options = m.ApplicationIn(name="Once"), o.ApplicationCreateOptions(idempotency_key=key)
    once, again = (f.client.application.create(application, options) for _ in "12")
    check("application.create again", again, once)
    message, options = m.MessageIn(event_type="once", payload={}), o.MessageCreateOptions(idempotency_key=key)
    once, again = (f.client.message.create(app, message, options) for _ in "12")
    check("message.create again, with the key of the other URL", again, once)
    check("it is listed once", [item.id for item in f.client.message.list(app).data], [once.id])

def errors(f):
    app, unknown, wrong = f.application("errors"), "msg_2srOrx2ZWZBpBUvZwXKQmoEYga2", f.client_with("not-a-token")
    api, endpoint, since = f.client.message, f.endpoint(app, "/errors").id, o.EndpointGetStatsOptions(since="yesterday")
    array = m.MessageIn.model_construct(event_type="a", payload=[1])  # the SDK warns of it, and sends it
    refused("a wrong token", lambda: wrong.application.delete(app), "authentication_failed", 401)
    refused("an unknown message", lambda: api.get(app, unknown), "not_found", 404)
    refused("an unknown application", lambda: f.send("unknown"), "not_found", 404)
    for bad in (-1, "ten"):
        refused(f"limit={bad}", lambda: f.client.application.list(o.ApplicationListOptions(limit=bad)), None, 400)
    refused("before=yesterday", lambda: api.list(app, o.MessageListOptions(before="yesterday")), None, 400)
    refused("stats since=yesterday", lambda: f.client.endpoint.get_stats(app, endpoint, since), None, 400)
    refused("a payload that is an array", lambda: api.create(app, array), "payload", 422)
    refused("a bad event type", lambda: f.send(app, "not valid"), "eventType", 422)
    refused("a bad event_id", lambda: f.send(app, event_id="not valid"), "eventId", 422)

TOPICS = [health, applications, event_types, endpoints, endpoint_headers, endpoint_secrets, messages, message_filters,
          message_lists, attempts, resend, recover, stats, send_example, portal, idempotency, errors]

def main():
    topics = {topic.__name__: topic for topic in TOPICS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--token"):
        parser.add_argument(name, required=True)
    parser.add_argument("--only", choices=topics, metavar="TOPIC", help=f"one of: {', '.join(topics)}")
    arguments = parser.parse_args()
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    flow = Flow(arguments.url, arguments.token)
    try:
        for name in [arguments.only] if arguments.only else topics:
            print(f"-- {name}", flush=True)
            topics[name](flow)
    except AssertionError as failure:
        return f"FAIL {name}: {failure}"
    except Exception:
        return f"FAIL {name}\n  expected: no exception\n  found:    {traceback.format_exc()}"
    print("all topics hold")

if __name__ == "__main__":
    raise SystemExit(main())
