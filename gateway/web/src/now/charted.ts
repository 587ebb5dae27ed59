/** Which readings an incident is about. */

import type { Alarm, JournalRow } from '../api/wire'
import { millis } from '../words/format'

export interface Charted {
  point: string
  unit: string
  /** The gravest that rests on it: it names the chart. */
  alarm: Alarm
  limits: number[]
  /** When its alarms were raised, the earliest first. */
  raised: number[]
}

/** In a storm one chart would show as many lines as there are alarms. */
const MOST_MOMENTS = 3

/**
 * The points of its open alarms, which come the gravest first, then of those that only its history knows; `most` at most.
 */
export function charted(open: readonly Alarm[], rows: readonly JournalRow[], most: number): Charted[] {
  const all = new Map(open.map((alarm) => [alarm.id, alarm]))
  for (const { transition } of rows) {
    if (transition && !all.has(transition.alarm.id)) all.set(transition.alarm.id, transition.alarm)
  }
  const charts = new Map<string, Charted>()
  for (const alarm of all.values()) {
    const { point, unit, limit } = alarm.reading
    if (point === null) continue
    const known = charts.get(point)
    if (!known && charts.size === most) continue
    const chart = known ?? { point, unit, alarm, limits: [], raised: [] }
    charts.set(point, chart)
    if (limit && !chart.limits.includes(limit.value)) chart.limits.push(limit.value)
    chart.raised.push(millis(alarm.raised_at))
  }
  return [...charts.values()].map((chart) => ({
    ...chart,
    raised: [...new Set(chart.raised)].sort((a, b) => a - b).slice(0, MOST_MOMENTS),
  }))
}
