/** What stretch of time a chart covers, and where zooming and stepping lead. It does not read the clock. */

/** In milliseconds since 1970. */
export interface Span {
  from: number
  to: number
}

/** What somebody looks at: it moves on with the clock, or stands still, or lies around what happened. */
export type View =
  | { last: number }
  | Span
  /** `over: null`: it goes on. */
  | { began: number; over: number | null }

const MINUTE = 60_000

/** A shorter stretch would lie between two readings of anything, and history is not kept for much longer. */
export const SHORTEST_MS = 10_000
export const LONGEST_MS = 30 * 1_440 * MINUTE

/** As much is shown before something began as this part of how long it lasted, within the two ends. */
const MARGIN = 0.1
const MARGIN_LEAST_MS = 10 * MINUTE
const MARGIN_MOST_MS = 1_440 * MINUTE

/** Each tap shows half as much, or twice as much. */
export const ZOOM = 2
/** Each step goes on by this part of what is shown: the rest stays in sight. */
const STEP = 0.5

export function spanOf(view: View, now: number): Span {
  if ('last' in view) return { from: now - view.last, to: now }
  if ('from' in view) return view
  const over = view.over ?? now
  const margin = Math.min(Math.max((over - view.began) * MARGIN, MARGIN_LEAST_MS), MARGIN_MOST_MS)
  const to = Math.min(now, over + margin)
  // What has lasted for longer than history shows at once is shown as it is now, or as it ended.
  return { from: Math.max(view.began - margin, to - LONGEST_MS), to }
}

/** What reaches up to now goes on with it. */
function viewOf({ from, to }: Span, now: number): View {
  const length = Math.round(Math.min(Math.max(to - from, SHORTEST_MS), LONGEST_MS))
  if (to >= now) return { last: length }
  return { from: Math.round(to) - length, to: Math.round(to) }
}

/** So many times as much, or as little, with what is at `at` where it was as far as there is time around it. */
export function zoomed({ from, to }: Span, times: number, at: number, now: number): View {
  const length = Math.min(Math.max((to - from) * times, SHORTEST_MS), LONGEST_MS)
  const before = ((at - from) / (to - from)) * length
  return viewOf({ from: at - before, to: at - before + length }, now)
}

/** Half of it further back (−1) or on (1), never beyond now. */
export function stepped({ from, to }: Span, steps: -1 | 1, now: number): View {
  const by = (to - from) * STEP * steps
  return viewOf({ from: from + by, to: to + by }, now)
}

/** What lies between two moments, whichever comes first. */
export function chosen(one: number, other: number, now: number): View {
  const [from, to] = [Math.min(one, other), Math.max(one, other)]
  const middle = (from + to) / 2
  const half = Math.max(to - from, SHORTEST_MS) / 2
  return viewOf({ from: middle - half, to: middle + half }, now)
}
