#!/usr/bin/env python3
"""Send an alert by SMS through D7: a look-alike of the notification scripts that D7 offers for Nagios and Zabbix.

Nagios and Zabbix run it as a user of their own, without a desktop and without a keyring. This is the state before
d7agent: the token is pasted in below, readable for everybody who may run the script, and when D7 refuses it one day, the
script says so to nobody and exits 0: the alert is lost, and looks delivered. notify_d7agent.py differs in one line.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request

GATEWAY = "https://api.d7networks.com/messages/v1/send"

# From D7's control panel
D7TOKEN = "D7_TOKEN"

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True, help="numbers, parted by commas: +971501234567,+971507654321")
parser.add_argument("--sender", default="Nagios", help="the originator that the receiver sees")
parser.add_argument("--message", required=True, help="the alert")
arguments = parser.parse_args()

body = {
    "messages": [
        {
            "channel": "sms",
            "recipients": arguments.to.replace(" ", "").split(","),
            "content": arguments.message,
            "msg_type": "text",
            "data_coding": "text",
        }
    ],
    "message_globals": {"originator": arguments.sender},
}
headers = {"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer " + D7TOKEN}
request = urllib.request.Request(GATEWAY, json.dumps(body).encode(), headers)
try:
    with urllib.request.urlopen(request, timeout=10) as response:
        print(response.read().decode())
except urllib.error.HTTPError as error:
    print("not sent:", error.code, error.read().decode())
except urllib.error.URLError as error:
    sys.exit(f"not sent: {error.reason}")
