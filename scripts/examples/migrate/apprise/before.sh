#!/bin/sh
# Apprise, as it is often called: the token is in the script, and in `ps` as long as apprise runs.
apprise -t "$1" -b "$2" 'd7sms://PASTED_TOKEN@971500000000'
