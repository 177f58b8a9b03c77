#!/usr/bin/env python3
"""Send an alert by SMS through D7: a look-alike of the notification scripts that D7 offers for Nagios and Zabbix.

Nagios and Zabbix run it as a user of their own, without a desktop and without a keyring. `notify.py` and
`notify_d7agent.py` differ in one line: where the token comes from.

The first has it pasted in, readable for everybody who may run the script; when D7 refuses it one day, the script
exits 0: the alert is lost, and looks delivered. The second asks the agent, which always has a good one; where there is
none to be had, it ends with d7agent's error and a status other than 0, which Nagios and Zabbix log.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request

GATEWAY = "https://api.d7networks.com/messages/v1/send"

# The token, from D7's control panel or from d7agent
D7TOKEN = __import__("subprocess").check_output(["/usr/bin/d7agent", "token"], text=True).strip()

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
