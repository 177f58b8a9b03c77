#!/bin/sh
# D7's balance with the agent's token, by OpenBSD's nc and curl alone. With d7agent: `d7agent header | curl -H @-`.
sock=${D7AGENT_SOCK:-${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/d7agent/agent.sock}
reply=$(printf '{"method":"io.d7agent.GetToken"}\0' | nc -w 35 -N -U "$sock" | tr '\0' '\n')
case $reply in
*'"header":"'*) ;;
*) printf 'no token: %s\n' "$reply" >&2; exit 1 ;;
esac
header=${reply#*'"header":"'}
# printf is built into the shell: the token gets into a pipe, never into an argument that `ps` shows.
printf 'Authorization: %s\n' "${header%%'"'*}" |
    curl -fsS -H @- "${D7_BASE_URL:-https://api.d7networks.com}/messages/v1/balance"
