/**
 * Whether the screen shows how things are. A screen that stands still must never look like a quiet night.
 *
 * anmin's main loop itself answers a status every five seconds; the stream alone proves nothing.
 */

/** A status is overdue after so long. */
export const BEAT_WITHIN_MS = 12_000
/** A stream that breaks off and is back within so long is not worth an alarm. */
export const BACK_WITHIN_MS = 3_000

export type Trust = 'starting' | 'live' | 'lost'

export interface Signs {
  /** Since the page was opened. */
  openFor: number
  /** Since the last status; `null` before the first. */
  sinceBeat: number | null
  /** Since the stream broke off; `null` while it is open. */
  brokenFor: number | null
  /** Since the list of alarms had to be loaded (again); `null` when it is there. */
  unlistedFor: number | null
}

export function trust({ openFor, sinceBeat, brokenFor, unlistedFor }: Signs): Trust {
  if (brokenFor !== null && brokenFor > BACK_WITHIN_MS) return 'lost'
  if ((sinceBeat ?? openFor) > BEAT_WITHIN_MS) return 'lost'
  if (unlistedFor !== null) return unlistedFor > BEAT_WITHIN_MS ? 'lost' : 'starting'
  return sinceBeat === null ? 'starting' : 'live'
}

/**
 * A moment by both of the browser's clocks. The one stands still while the machine sleeps, the other may be set: the
 * longer time is the safe one.
 */
export class Mark {
  #mono = performance.now()
  #wall = Date.now()

  get ago(): number {
    return Math.max(performance.now() - this.#mono, Date.now() - this.#wall)
  }
}
