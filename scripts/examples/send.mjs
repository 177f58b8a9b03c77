#!/usr/bin/env node
// An SMS through D7 with the agent's token, replaced once if D7 refuses it: node send.mjs 971500000000 "hello"  (Node 18+)
import { createHash } from 'node:crypto'
import { connect } from 'node:net'
const { argv, env, getuid } = process
const path = env.D7AGENT_SOCK || `${env.XDG_RUNTIME_DIR || `/run/user/${getuid()}`}/d7agent/agent.sock`
const ask = (method, parameters = {}) => new Promise((resolve, reject) => {
  const agent = connect(path, () => agent.write(JSON.stringify({ method: `io.d7agent.${method}`, parameters }) + '\0'))
  agent.setTimeout(35_000, () => agent.destroy(new Error('the agent does not answer')))
  let data = ''
  agent.setEncoding('utf8').on('data', (piece) => (data += piece).endsWith('\0') && agent.end())
  agent.on('error', reject).on('close', () => {
    if (!data.endsWith('\0')) return reject(new Error('the agent hung up'))
    const { error, parameters } = JSON.parse(data.slice(0, -1))
    error ? reject(new Error(`${error}: ${parameters.message} (${parameters.hint})`)) : resolve(parameters.token)
  })
})
const url = `${env.D7_BASE_URL || 'https://api.d7networks.com'}/messages/v1/send`
const body = JSON.stringify({ messages: [{ channel: 'sms', recipients: [argv[2]], content: argv[3] }] })
const send = ({ header: Authorization }) => fetch(url, { method: 'POST', headers: { Authorization, 'Content-Type': 'application/json' }, body })
const token = await ask('GetToken'), first = await send(token), fingerprint = createHash('sha256').update(token.access_token).digest('hex')
const code = first.status === 401 && (await first.clone().json().catch(() => null))?.detail?.code
const refused = ['ACCESS_TOKEN_EXPIRED', 'ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED'].includes(code)
const reply = refused ? await send(await ask('RejectToken', { fingerprint })) : first
console.log(reply.status, await reply.text()); process.exitCode = reply.ok ? 0 : 1
