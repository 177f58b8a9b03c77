#!/usr/bin/env python3
"""Nagios notification command: WhatsApp through D7, as it is often found.

command_line  $USER1$/d7whatsapp.py --from 971500000001 --to $CONTACTPAGER$ --template host_alert $HOSTNAME$ $HOSTSTATE$
"""

import argparse
import json
import os
import urllib.error
import urllib.request

URL = os.environ.get("D7_BASE_URL", "https://api.d7networks.com") + "/whatsapp/v2/send"
TOKEN = "PASTED_TOKEN"  # in a file that everybody can read

parser = argparse.ArgumentParser()
parser.add_argument("--from", dest="originator", required=True)
parser.add_argument("--to", required=True)
parser.add_argument("--template", required=True)
parser.add_argument("values", nargs="*")
args = parser.parse_args()
values = {str(number): value for number, value in enumerate(args.values, 1)}
template = {"template_id": args.template, "language": "en_GB", "body_parameter_values": values}
message = {
    "originator": args.originator,
    "content": {"message_type": "TEMPLATE", "template": template},
    "recipients": [{"recipient": args.to, "recipient_type": "individual"}],
}


def send(token: str) -> str:
    """What D7 answers."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"messages": [message]}).encode()
    with urllib.request.urlopen(urllib.request.Request(URL, body, headers), timeout=10) as reply:
        return str(reply.read().decode())


try:
    print(send(TOKEN))
except urllib.error.HTTPError as error:
    print(f"Not sent: {error.code}")  # and the exit status is 0: Nagios logs the alert as delivered
