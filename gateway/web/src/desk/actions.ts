/** What an officer can do with an alarm or a station's call as it stands. anmin itself decides; this is what is offered. */

import type { Alarm, Call, CallState, Right } from '../api/wire'

export type Act = 'acknowledge' | 'reset' | 'shelve' | 'unshelve' | 'out-of-service' | 'return-to-service'

export interface Offer<T> {
  /** The one that most likely comes next. */
  next: T | null
  more: T[]
}

/** What of an offer the one who is asking may do. */
export function offered<T>(offer: Offer<T>, allowed: (what: T) => boolean): Offer<T> {
  const next = offer.next !== null && allowed(offer.next) ? offer.next : null
  return { next, more: offer.more.filter(allowed) }
}

export const rightOf = (what: Act): Right => (what === 'acknowledge' ? 'acknowledge' : 'handle')

export function acts(alarm: Alarm): Offer<Act> {
  const unseen: Act[] = alarm.acknowledged === null ? ['acknowledge'] : []
  switch (alarm.state) {
    case 'unacknowledged':
    case 'returned_unacknowledged':
      return { next: 'acknowledge', more: ['shelve', 'out-of-service'] }
    // Refused while the condition lasts, but an alarm that nobody judges any more has no other way to end.
    case 'acknowledged':
      return { next: null, more: ['reset', 'shelve', 'out-of-service'] }
    case 'latched':
      return { next: 'reset', more: ['shelve', 'out-of-service'] }
    case 'shelved':
      return { next: 'unshelve', more: [...unseen, 'out-of-service'] }
    case 'out_of_service':
      return { next: 'return-to-service', more: unseen }
    case 'suppressed':
    case 'normal':
      return { next: null, more: [] }
  }
}

export type Step = 'accept' | 'on-the-way' | 'on-scene' | 'under-control' | 'stand-down' | 'decline'

const STEPS: Record<CallState, Offer<Step>> = {
  called: { next: 'accept', more: ['on-the-way', 'on-scene', 'decline', 'stand-down'] },
  accepted: { next: 'on-the-way', more: ['on-scene', 'decline', 'stand-down'] },
  on_the_way: { next: 'on-scene', more: ['decline', 'stand-down'] },
  on_scene: { next: 'under-control', more: ['stand-down'] },
  under_control: { next: 'stand-down', more: [] },
  unanswered: { next: 'accept', more: ['on-the-way', 'on-scene', 'decline', 'stand-down'] },
  declined: { next: 'accept', more: ['on-the-way', 'on-scene', 'stand-down'] },
  stood_down: { next: null, more: [] },
}

export function steps(call: Call): Offer<Step> {
  return STEPS[call.state]
}

/** Which clock of a call runs: until the crew must have answered, must be there, or must have it under control. */
export function runningClock(call: Call): { what: 'respond' | 'arrive' | 'control'; until: string } | null {
  switch (call.state) {
    case 'called':
      return { what: 'respond', until: call.respond_by }
    case 'accepted':
    case 'on_the_way':
      return { what: 'arrive', until: call.arrive_by }
    case 'on_scene':
      return { what: 'control', until: call.control_by }
    default:
      return null
  }
}

/** The states that a call goes through when all goes well. */
export const WAY = ['called', 'accepted', 'on_the_way', 'on_scene', 'under_control'] as const

export interface Milestone {
  state: (typeof WAY)[number]
  /** When it was reached; `null` also where a later one was reached without it. */
  at: string | null
  done: boolean
}

/** How far a call has come since the station was last called: it may have been called before, and in vain. */
export function wayOf(call: Call): Milestone[] {
  const from = call.steps.findLastIndex(({ state }) => state === 'called')
  const since = call.steps.slice(Math.max(0, from))
  const furthest = Math.max(...since.map(({ state }) => (WAY as readonly CallState[]).indexOf(state)))
  return WAY.map((state, n) => ({
    state,
    at: since.find((step) => step.state === state)?.at ?? null,
    done: n <= furthest,
  }))
}

/** One call for each station: several alarms of one incident are one way for its crew, and the furthest tells how far it is. */
export function folded(calls: readonly Call[]): Call[] {
  const stations = new Map<string, Call[]>()
  for (const call of calls) stations.set(call.station, [...(stations.get(call.station) ?? []), call])
  return [...stations.values()].flatMap((all) => leading(all) ?? [])
}

/** The call that tells most about who comes: the furthest of those at work, then what is under control, else the last one tried. */
export function leading(calls: readonly Call[]): Call | undefined {
  const way: CallState[] = ['on_scene', 'on_the_way', 'accepted', 'called', 'under_control']
  const live = way.map((state) => calls.find((call) => call.state === state)).find((call) => call !== undefined)
  return live ?? calls[calls.length - 1]
}
