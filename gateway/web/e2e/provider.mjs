/**
 * An OpenID provider of another hand, panva's oidc-provider, for the acceptance of signing in by one. `node provider.mjs PORT
 * PAGE`: who signs in there is whoever they say; `roles NAME WORD...` on standard input gives a name its roles. Its key is new with every start.
 */

import { generateKeyPairSync } from 'node:crypto'
import { createInterface } from 'node:readline'
import Provider from 'oidc-provider'

const [port, page] = process.argv.slice(2)
const roles = new Map()
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const key = { ...privateKey.export({ format: 'jwk' }), kid: `key-${process.pid}`, use: 'sig', alg: 'RS256' }

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: 'anmin', client_secret: 'a secret/of anmin:1', redirect_uris: [`${page}/oidc/callback`] }],
  claims: { openid: ['sub'], profile: ['name'], roles: ['roles'] },
  cookies: { keys: ['only a trial'] },
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: () => ({ sub, name: `姓名 ${sub}`, roles: roles.get(sub) ?? [] }),
  }),
  jwks: { keys: [key] },
  pkce: { required: () => true },
})

createInterface({ input: process.stdin }).on('line', (line) => {
  const [, name, ...words] = line.split(' ')
  roles.set(name, words)
  console.log(JSON.stringify({ roles: name }))
})
provider.listen(Number(port), '127.0.0.1', () => console.log(JSON.stringify({ listening: port })))
