"""Signs and verifies the cases on standard input with the official package from PyPI.

Cases that bring their own headers are verified alone, and any refusal counts.
"""

import json
import sys
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def verifies(webhook, case):
    headers = {
        "webhook-id": case["id"],
        "webhook-timestamp": str(case["timestamp"]),
        "webhook-signature": case["signature"],
    }
    try:
        webhook.verify(case["body"], headers, json_parse=False)
        return True
    except WebhookVerificationError:
        return False


def takes(case):
    try:
        # Names that differ by case are one header, given twice.
        Webhook(case["secret"]).verify(case["body"], dict(case["headers"]), json_parse=False)
        return True
    except Exception:
        return False


def answer(case):
    if "headers" in case:
        return {"verified": takes(case)}
    webhook = Webhook(case["secret"])
    timestamp = datetime.fromtimestamp(case["timestamp"], tz=timezone.utc)
    signature = webhook.sign(msg_id=case["id"], timestamp=timestamp, data=case["body"])
    return {"verified": verifies(webhook, case), "signature": signature}


json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
