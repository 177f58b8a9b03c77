#!/usr/bin/env python3
"""Nagios notification command: an SMS through D7, with the agent's token.

command_line  $USER1$/d7sms.py --to $CONTACTPAGER$ --content "$SERVICEDESC$ on $HOSTNAME$: $SERVICESTATE$"
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

URL = os.environ.get("D7_BASE_URL", "https://api.d7networks.com") + "/messages/v1/send"
REFUSALS = ("ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED")

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True)
parser.add_argument("--content", required=True)
args = parser.parse_args()
sms = {"channel": "sms", "recipients": args.to.split(","), "content": args.content, "data_coding": "auto"}
body = json.dumps({"messages": [sms], "message_globals": {"originator": "nagios"}}).encode()


def d7agent(command: str, stdin: str = "") -> str:
    """What it prints. If it fails, its message is on stderr and its exit status is ours."""
    done = subprocess.run(["d7agent", command], input=stdin, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else sys.exit(done.returncode)


def send(token: str) -> tuple[int, str]:
    """The status and the text that D7 answers."""
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
