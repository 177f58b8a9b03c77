#!/usr/bin/env python3
"""Nagios notification command: WhatsApp through D7, with the agent's token.

command_line  $USER1$/d7whatsapp.py --from 971500000001 --to $CONTACTPAGER$ --template host_alert $HOSTNAME$ $HOSTSTATE$
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

URL = os.environ.get("D7_BASE_URL", "https://api.d7networks.com") + "/whatsapp/v2/send"
REFUSALS = ("ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED")

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


def d7agent(command: str, stdin: str = "") -> str:
    """What it prints. If it fails, its message is on stderr and its exit status is ours."""
    done = subprocess.run(["d7agent", command], input=stdin, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else sys.exit(done.returncode)


def send(token: str) -> tuple[int, str]:
    """The status and the text that D7 answers."""
    body = json.dumps({"messages": [message]}).encode()
    request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
    request.add_unredirected_header("Authorization", f"Bearer {token}")  # for D7 alone, wherever a redirect leads
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


status, answer = send(token := d7agent("token"))
if status == 401 and any(code in answer for code in REFUSALS):
    d7agent("reject", token)  # through a pipe: no argument, nothing for `ps` to show
    status, answer = send(d7agent("token"))
if status != 200:
    sys.exit(f"Not sent: {status} {answer}")  # status 1: Nagios logs the failure
print(answer)
