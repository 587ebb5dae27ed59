/** Has the test behind the scenes do what happens in the world: gas leaks, anmin is stopped and started. */

import { connect } from 'node:net'

const [host, port] = (process.env.ANMIN_STAGE ?? '').split(':')

/** Sends one line and waits until it is done. */
export function stage(line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), host ?? '', () => socket.end(`${line}\n`))
    socket.on('error', reject)
    socket.on('data', () => resolve())
    socket.on('close', () => reject(new Error(`nobody did ${JSON.stringify(line)}`)))
  })
}
