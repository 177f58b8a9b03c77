#!/usr/bin/env python3
"""Nagios notification command: an SMS through D7, as it is often found.

command_line  $USER1$/d7sms.py --to $CONTACTPAGER$ --content "$SERVICEDESC$ on $HOSTNAME$: $SERVICESTATE$"
"""

import argparse
import json
import os
import urllib.error
import urllib.request

URL = os.environ.get("D7_BASE_URL", "https://api.d7networks.com") + "/messages/v1/send"
TOKEN = "PASTED_TOKEN"  # in a file that everybody can read

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True)
parser.add_argument("--content", required=True)
args = parser.parse_args()
sms = {"channel": "sms", "recipients": args.to.split(","), "content": args.content, "data_coding": "auto"}
body = json.dumps({"messages": [sms], "message_globals": {"originator": "nagios"}}).encode()


def send(token: str) -> str:
    """What D7 answers."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(URL, body, headers), timeout=10) as reply:
        return str(reply.read().decode())


try:
    print(send(TOKEN))
except urllib.error.HTTPError as error:
    print(f"Not sent: {error.code}")  # and the exit status is 0: Nagios logs the alert as delivered
