/**
 * All open alarms and their stations' calls, put together from the list and from what the live stream tells.
 *
 * The same news may come twice, by the stream and as the answer to a command, and in either order: the larger sequence
 * number wins. What the list does not hold any more is closed.
 */

import type { Alarm, AlarmList, AlarmView, Call } from '../api/wire'
import { LEVELS } from '../api/wire'

/** Closed alarms that are remembered, so that news still on their way do not bring them back. */
const MOST_CLOSED = 1_000

export class AlarmBook {
  #alarms = new Map<string, Alarm>()
  #calls = new Map<string, Map<string, Call>>()
  #closed = new Set<string>()

  get size(): number {
    return this.#alarms.size
  }

  get(id: string): Alarm | undefined {
    return this.#alarms.get(id)
  }

  calls(id: string): Call[] {
    return [...(this.#calls.get(id)?.values() ?? [])]
  }

  all(): Alarm[] {
    return [...this.#alarms.values()]
  }

  /** All pages of the list as anmin holds it: everything else is forgotten. */
  replace(list: Pick<AlarmList, 'alarms' | 'calls'>): void {
    const before = this.#alarms
    this.#alarms = new Map()
    this.#closed.clear()
    for (const alarm of list.alarms) {
      const known = before.get(alarm.id)
      this.#alarms.set(alarm.id, known && known.seq > alarm.seq ? known : alarm)
    }
    this.#calls = new Map()
    for (const call of list.calls) this.takeCall(call)
  }

  /** Returns whether this was news. */
  take(alarm: Alarm): boolean {
    const known = this.#alarms.get(alarm.id)
    if (this.#closed.has(alarm.id) || (known && known.seq >= alarm.seq)) return false
    if (alarm.open) this.#alarms.set(alarm.id, alarm)
    else this.#close(alarm.id)
    return true
  }

  takeCall(call: Call): void {
    if (this.#closed.has(call.alarm)) return
    const calls = this.#calls.get(call.alarm) ?? new Map<string, Call>()
    const known = calls.get(call.station)
    if (known && known.seq >= call.seq) return
    calls.set(call.station, call)
    this.#calls.set(call.alarm, calls)
  }

  /** What a command on alarm `id` left behind. */
  takeView(id: string, view: AlarmView): void {
    if (view.alarm === null) this.#close(id)
    else this.take(view.alarm)
    for (const call of view.calls) this.takeCall(call)
  }

  #close(id: string): void {
    this.#alarms.delete(id)
    this.#calls.delete(id)
    this.#closed.add(id)
    const oldest = this.#closed.values().next()
    if (this.#closed.size > MOST_CLOSED && !oldest.done) this.#closed.delete(oldest.value)
  }
}

/** Silenced by a person or by design: still there, but nobody is called. */
export function isSilenced(alarm: Alarm): boolean {
  return alarm.state === 'shelved' || alarm.state === 'suppressed' || alarm.state === 'out_of_service'
}

/** A person still owes it something: to look at it, or to reset it. */
export function isDue(alarm: Alarm): boolean {
  return alarm.state === 'unacknowledged' || alarm.state === 'returned_unacknowledged' || alarm.state === 'latched'
}

const URGENCY: Record<Alarm['state'], number> = {
  unacknowledged: 0,
  returned_unacknowledged: 1,
  acknowledged: 2,
  latched: 3,
  shelved: 4,
  suppressed: 4,
  out_of_service: 4,
  normal: 5,
}

/**
 * Gravest first; within a level those that nobody has seen first, and of these the oldest: in a storm the alarm that
 * began it stands on top. Silenced ones come last, and behind all that is real those of drills. Ids are UUIDv7 and sort by the time an alarm was raised.
 */
export function byGravity(a: Alarm, b: Alarm): number {
  return (
    Number(a.drill !== null) - Number(b.drill !== null) ||
    Number(isSilenced(a)) - Number(isSilenced(b)) ||
    LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) ||
    URGENCY[a.state] - URGENCY[b.state] ||
    (a.id < b.id ? -1 : Number(a.id > b.id))
  )
}

/** Whether `after` must be told to the officer as something new: it arrived, came back, or became graver. */
export function isArrival(before: Alarm | undefined, after: Alarm): boolean {
  if (after.state !== 'unacknowledged') return false
  if (before?.state !== 'unacknowledged') return true
  return LEVELS.indexOf(after.level) < LEVELS.indexOf(before.level)
}

/** Which part of the list is shown. */
export interface AlarmFilter {
  /** `due`: those that wait for a person; `silenced`: shelved and out of service. */
  which: 'all' | 'due' | 'silenced'
  level: Alarm['level'] | null
  /** Empty: all buildings. */
  building: string
}

export function passes(filter: AlarmFilter, alarm: Alarm): boolean {
  if (filter.which === 'due' && !isDue(alarm)) return false
  if (filter.which === 'silenced' && !isSilenced(alarm)) return false
  if (filter.level !== null && alarm.level !== filter.level) return false
  return filter.building === '' || alarm.place.building === filter.building
}

/** Alarms in force by level: neither shelved nor out of service. Of one kind, real ones or a drill's. */
export function countByLevel(alarms: readonly Alarm[]): Record<Alarm['level'], number> {
  const counts = { red: 0, orange: 0, yellow: 0, blue: 0 }
  for (const alarm of alarms) if (!isSilenced(alarm)) counts[alarm.level] += 1
  return counts
}

/** Buildings that have alarms, most alarms first. */
export function countByBuilding(alarms: readonly Alarm[]): { building: string; count: number }[] {
  const counts = new Map<string, number>()
  for (const { place } of alarms) {
    if (place.building !== '') counts.set(place.building, (counts.get(place.building) ?? 0) + 1)
  }
  return [...counts]
    .map(([building, count]) => ({ building, count }))
    .sort((a, b) => b.count - a.count || a.building.localeCompare(b.building, 'zh', { numeric: true }))
}
