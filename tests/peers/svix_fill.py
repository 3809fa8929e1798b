"""Fills a server with the official, unmodified `svix` package, for a test that moves everything elsewhere.

    python svix_fill.py --url http://127.0.0.1:8071 --token TOKEN

There are two event types, two applications, and three endpoints, one of them without a uid and one disabled. It
prints a line `APPLICATION ENDPOINT SECRET` for each endpoint, in the order of their URLs.
"""

import argparse

from svix import Svix, SvixOptions, models as m

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    arguments = parser.parse_args()
    svix = Svix(arguments.token, SvixOptions(server_url=arguments.url))
    schemas = {"1": {"type": "object", "properties": {"invoice": {"type": "integer"}}}}
    svix.event_type.create(m.EventTypeIn(name="invoice.paid", description="An invoice was paid", schemas=schemas))
    svix.event_type.create(m.EventTypeIn(name="user.left", description="Old", archived=True))
    svix.application.create(m.ApplicationIn(name="Acme", uid="acme", metadata={"plan": "gold"}, throttle_rate=9))
    svix.application.create(m.ApplicationIn(name="Empty", uid="empty"))
    made = [
        m.EndpointIn(url="https://a.example.com/", uid="crm", secret=SECRET, filter_types=["invoice.paid"],
                     channels=["eu"], description="CRM", metadata={"a": "b"}, throttle_rate=3),
        m.EndpointIn(url="https://b.example.com/"),
        m.EndpointIn(url="https://c.example.com/", uid="off", disabled=True),
    ]
    made = [svix.endpoint.create("acme", endpoint) for endpoint in made]
    headers = m.EndpointHeadersIn(headers={"X-Own": "one"})
    svix.endpoint.set_headers("acme", "crm", headers)
    for endpoint in made:
        secret = svix.endpoint.get_secret("acme", endpoint.id).key
        print("acme", endpoint.uid or endpoint.id, secret)


main()
