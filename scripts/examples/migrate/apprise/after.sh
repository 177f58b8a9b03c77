#!/bin/sh
# Apprise with the agent's token: the URL reaches it as its configuration, through a pipe. apprise-alert TITLE BODY
token=$(d7agent token) || exit
printf 'd7sms://%s@%s\n' "$token" "${D7_RECIPIENTS:-971500000000}" | apprise -t "$1" -b "$2" -c /dev/stdin
