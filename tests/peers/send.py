"""Sends webhooks signed by the official packages from PyPI, and prints the statuses answered.

Usage: send.py URL SECRET. Standard Webhooks go to URL/standard, those of Svix to URL/svix.
"""

import json
import sys
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone

import standardwebhooks.webhooks
import svix.webhooks

BODY = '{"type":"invoice.paid","data":{"customer":"Zoë 🦀"}}'
BUILDERS = {"standard": ("webhook", standardwebhooks.webhooks), "svix": ("svix", svix.webhooks)}


def send(url, secret, path, msg_id, age=0, body=None):
    prefix, package = BUILDERS[path]
    at = datetime.now(timezone.utc) - timedelta(seconds=age)
    headers = {
        "content-type": "application/json",
        f"{prefix}-id": msg_id,
        f"{prefix}-timestamp": str(int(at.timestamp())),
        f"{prefix}-signature": package.Webhook(secret).sign(msg_id, at, BODY),
    }
    data = (body or BODY).encode()
    request = urllib.request.Request(f"{url}/{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def statuses(url, secret, path):
    return {
        "new": send(url, secret, path, f"msg_{path}_1"),
        "repeated": send(url, secret, path, f"msg_{path}_1"),
        "changed": send(url, secret, path, f"msg_{path}_2", body=BODY + " "),
        "stale": send(url, secret, path, f"msg_{path}_3", age=330),
    }


json.dump({path: statuses(*sys.argv[1:], path) for path in BUILDERS}, sys.stdout)
