/** Questions and commands to anmin. Every answer comes in time or fails with words for the officer. */

import type { ProblemBody, Text } from './wire'

/** Longer than anmin itself waits for its main loop. */
export const WITHIN_MS = 10_000

/** Why something did not work, in both languages. */
export class Problem extends Error {
  constructor(
    readonly code: string,
    readonly text: Text,
    readonly hint: Text | null = null,
  ) {
    super(text.en)
  }
}

export const UNREACHABLE: Text = { zh: '连不上安民主机', en: 'anmin cannot be reached' }

let token: string | null = null
let tokenIsAsked: () => void = () => {}
let shutOut: () => void = () => {}
let locked: () => void = () => {}

/** Sent with every request; `null` where none is needed. */
export function useToken(text: string | null): void {
  token = text
}

/** Calls back whenever anmin turns a request away for want of the token. */
export function whenTokenIsAsked(then: () => void): void {
  tokenIsAsked = then
}

/** Calls back whenever anmin turns a request away because nobody is signed in any more. */
export function whenShutOut(then: () => void): void {
  shutOut = then
}

/** Calls back whenever a command wants the password first. */
export function whenLocked(then: () => void): void {
  locked = then
}

/** Asking again would change nothing: somebody must come in first. */
export function isShutOut(error: unknown): boolean {
  return error instanceof Problem && ['no_token', 'signed_out', 'set_up', 'must_change'].includes(error.code)
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  return token === null ? more : { ...more, Authorization: `Bearer ${token}` }
}

/** Turns an answer that is not good into a {@link Problem}. */
export async function checked(response: Response): Promise<Response> {
  if (response.ok) return response
  const body = await response.text().then(read<ProblemBody>).catch(() => null)
  if (body?.code === 'no_token') tokenIsAsked()
  else if (body?.code === 'signed_out' || body?.code === 'set_up' || body?.code === 'must_change') shutOut()
  else if (body?.code === 'locked') locked()
  if (body?.error) throw new Problem(body.code, body.error, body.hint)
  throw new Problem('unknown', {
    zh: `意外的应答（${response.status}）`,
    en: `an unexpected answer (${response.status})`,
  })
}

/** Questions whose answers the browser keeps and asks about each time: they are large, and mostly as they were. */
const KEPT = /^\/(points(\/choices)?|devices|rules)(\?|$)/

/** Turn the writing of what stands beside them (Unicode UAX 9, 2.): names and words from outside may hold them. */
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g

/** What came as JSON, with nothing in it that would make the screen say otherwise than it is written. */
export function read<T>(json: string): T {
  return JSON.parse(json.replace(TURNING, ' ')) as T
}

async function request<T>(path: string, init: RequestInit, within = WITHIN_MS): Promise<T> {
  let response: Response
  try {
    const cache = init.method === undefined && KEPT.test(path) ? 'no-cache' : 'no-store'
    response = await fetch(`/api/v1${path}`, { ...init, cache, signal: AbortSignal.timeout(within) })
  } catch {
    throw new Problem('unreachable', UNREACHABLE)
  }
  await checked(response)
  try {
    return read<T>(await response.text())
  } catch {
    throw new Problem('unreachable', UNREACHABLE)
  }
}

export function ask<T>(path: string, parameters: Record<string, string> = {}): Promise<T> {
  const said = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== '')).toString()
  return request<T>(said === '' ? path : `${path}?${said}`, { headers: headers() })
}

/** What a drawing is drawn on: the browser keeps it and asks each time whether it is still that. */
export async function file(path: string): Promise<Response> {
  try {
    return await checked(await fetch(`/api/v1${path}`, { headers: headers(), cache: 'no-cache', signal: AbortSignal.timeout(WITHIN_MS) }))
  } catch (error) {
    throw error instanceof Problem ? error : new Problem('unreachable', UNREACHABLE)
  }
}

/** A word that no other command has. */
function key(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join('-')
}

/**
 * `within`: in milliseconds, for what takes longer than others. `seen`: the number of what the officer saw, where nothing is to be
 * done when somebody else has changed it since.
 */
export async function command<T>(path: string, body: object, within = WITHIN_MS, seen?: number): Promise<T> {
  const began = performance.now()
  const match: Record<string, string> = seen === undefined ? {} : { 'If-Match': `"${seen}"` }
  const init = {
    method: 'POST',
    // No other site can make a browser send the second one; by the third what was sent twice is done once.
    headers: headers({ 'Content-Type': 'application/json', 'X-Anmin': 'page', 'Idempotency-Key': key(), ...match }),
    body: JSON.stringify(body),
  }
  try {
    return await request<T>(path, init, within)
  } catch (error) {
    const isLost = error instanceof Problem && error.code === 'unreachable' && performance.now() - began < within
    if (!isLost || path.startsWith('/session')) throw error
    // The answer was lost, and nobody knows whether the command was: the same again tells.
    return await request<T>(path, init, within)
  }
}

/** Has the browser save a document under this name: the token goes along, which a plain link could not send. */
export async function save(path: string, name: string): Promise<void> {
  let blob: Blob
  try {
    const response = await fetch(`/api/v1${path}`, { headers: headers(), cache: 'no-store' })
    blob = await (await checked(response)).blob()
  } catch (error) {
    throw error instanceof Problem ? error : new Problem('unreachable', UNREACHABLE)
  }
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  window.setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}

/** A point's path under `/points`: its id is `device/name`, and either part may hold Chinese. */
export function pointPath(id: string): string {
  const slash = id.indexOf('/')
  return `/points/${encodeURIComponent(id.slice(0, slash))}/${encodeURIComponent(id.slice(slash + 1))}`
}
