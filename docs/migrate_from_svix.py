"""Copies event types, applications and endpoints with their secrets from a server of Svix to this service.

    pip install svix==2.9.1
    FROM_TOKEN=... TO_TOKEN=... python migrate_from_svix.py --from URL --to URL [--disabled]

It can be stopped and run again: an event type, an application or an endpoint that is there is left as it is. An
application or endpoint without a uid gets its old id as its uid. With --disabled, all endpoints are made disabled, so that
nothing is delivered twice while both services get messages. Messages are not copied.
"""

import argparse
import os
import sys

from svix import Svix, SvixOptions, api, models as m
from svix.exceptions import HttpError


def all_of(read, **options):
    """Returns the entries of all pages of a list."""
    iterator = None
    while True:
        page = read(iterator=iterator, limit=100, **options)
        yield from page.data
        if page.done:
            return
        iterator = page.iterator


def exists(read):
    try:
        read()
    except HttpError as error:
        if error.status_code == 404:
            return False
        raise
    return True


def copy_event_types(old, new):
    def read(**options):
        return old.event_type.list(api.EventTypeListOptions(**options))

    for found in all_of(read, include_archived=True, with_content=True):
        if exists(lambda: new.event_type.get(found.name)):
            continue
        new.event_type.create(
            m.EventTypeIn(
                name=found.name,
                description=found.description,
                archived=found.archived,
                deprecated=found.deprecated,
                schemas=found.schemas,
                group_name=found.group_name,
            )
        )
        print(f"event type {found.name}")


def copy_endpoint(old, new, application, uid, found, disabled):
    name = found.uid or found.id
    if exists(lambda: new.endpoint.get(uid, name)):
        return
    headers = old.endpoint.get_headers(application.id, found.id)
    if headers.sensitive:
        names = ", ".join(headers.sensitive)
        print(f"endpoint {uid}/{name}: set these headers by hand, no server shows them: {names}", file=sys.stderr)
    new.endpoint.create(
        uid,
        m.EndpointIn(
            url=found.url,
            uid=name,
            description=found.description,
            disabled=disabled or found.disabled,
            event_types=found.event_types,
            channels=found.channels,
            metadata=found.metadata,
            throttle_rate=found.throttle_rate,
            secret=old.endpoint.get_secret(application.id, found.id).key,
            headers=headers.headers,
        ),
    )
    print(f"endpoint {uid}/{name}")


def copy_applications(old, new, disabled):
    def read(**options):
        return old.application.list(api.ApplicationListOptions(**options))

    for found in all_of(read):
        uid = found.uid or found.id
        if not exists(lambda: new.application.get(uid)):
            rate = found.throttle_rate
            new.application.create(
                m.ApplicationIn(name=found.name, uid=uid, metadata=found.metadata, throttle_rate=rate)
            )
            print(f"application {uid}")

        def endpoints(**options):
            return old.endpoint.list(found.id, api.EndpointListOptions(**options))

        for endpoint in all_of(endpoints):
            copy_endpoint(old, new, found, uid, endpoint, disabled)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="old", required=True, metavar="URL")
    parser.add_argument("--to", dest="new", required=True, metavar="URL")
    parser.add_argument("--disabled", action="store_true", help="make all endpoints disabled")
    arguments = parser.parse_args()
    missing = [name for name in ("FROM_TOKEN", "TO_TOKEN") if name not in os.environ]
    if missing:
        parser.error(f"set {' and '.join(missing)} in the environment")
    old = Svix(os.environ["FROM_TOKEN"], SvixOptions(server_url=arguments.old))
    new = Svix(os.environ["TO_TOKEN"], SvixOptions(server_url=arguments.new))
    copy_event_types(old, new)
    copy_applications(old, new, arguments.disabled)


if __name__ == "__main__":
    main()
