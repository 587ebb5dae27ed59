/**
 * Open incidents, put together from the list and from what the live stream tells, and the open alarms gathered by them.
 *
 * As in the book of alarms the larger sequence number wins. An incident's alarms name it themselves, so that it need not be
 * told again with each of them.
 */

import type { Alarm, Call, Incident, Level, Outcome } from '../api/wire'
import { isSilenced } from './book'

/** Closed ones that are remembered, so that news still on their way do not bring them back. */
const MOST_CLOSED = 200

export class IncidentBook {
  #open = new Map<string, Incident>()
  #closed = new Set<string>()

  get(id: string): Incident | undefined {
    return this.#open.get(id)
  }

  all(): Incident[] {
    return [...this.#open.values()]
  }

  /** The list as anmin holds it: everything else is forgotten. */
  replace(incidents: readonly Incident[]): void {
    const before = this.#open
    this.#open = new Map()
    this.#closed.clear()
    for (const incident of incidents) {
      const known = before.get(incident.id)
      this.#open.set(incident.id, known && known.seq > incident.seq ? known : incident)
    }
  }

  take(incident: Incident): void {
    const known = this.#open.get(incident.id)
    if (this.#closed.has(incident.id) || (known && known.seq >= incident.seq)) return
    if (incident.state !== 'closed') {
      this.#open.set(incident.id, incident)
      return
    }
    this.#open.delete(incident.id)
    this.#closed.add(incident.id)
    const oldest = this.#closed.values().next()
    if (this.#closed.size > MOST_CLOSED && !oldest.done) this.#closed.delete(oldest.value)
  }
}

/** What stands on one card. */
export interface Group {
  key: string
  /** `undefined` of alarms about anmin itself, and as long as it is not known. */
  incident: Incident | undefined
  /** In the order in which they were given. */
  alarms: Alarm[]
}

/** So many alarms about anmin itself that say the same of different parts are one card. */
const SAME = 4

/**
 * Alarms by their incident, in the order of the first alarm of each: given the gravest first, the incidents come with the
 * gravest first. Alarms about anmin itself stand alone, unless one rule says the same of many parts.
 */
export function gather(alarms: readonly Alarm[], find: (id: string) => Incident | undefined): Group[] {
  const same = new Map<string, number>()
  const kind = ({ rule, drill }: Alarm) => (drill === null ? rule : `${drill} ${rule}`)
  for (const alarm of alarms) if (alarm.incident === null) same.set(kind(alarm), (same.get(kind(alarm)) ?? 0) + 1)
  const groups = new Map<string, Group>()
  for (const alarm of alarms) {
    const { incident, id } = alarm
    const key = incident ?? ((same.get(kind(alarm)) ?? 0) >= SAME ? kind(alarm) : id)
    const group = groups.get(key)
    if (group) group.alarms.push(alarm)
    else groups.set(key, { key, incident: incident === null ? undefined : find(incident), alarms: [alarm] })
  }
  return [...groups.values()]
}

/** Steps of its checklist that are not done and should be. */
export function lateSteps(incident: Incident): number {
  return incident.checklist.filter(({ late, done_at }) => late && done_at === null).length
}

/**
 * Cases behind which no alarm is open, those with late steps before the others, each in the order in which they were given.
 * Those with open alarms stand among the alarms.
 */
export function casesAlone(incidents: readonly Incident[], alarms: readonly Alarm[], building: string): Incident[] {
  const alarmed = new Set(alarms.map(({ incident }) => incident))
  return incidents
    .filter((one) => one.case !== null && !alarmed.has(one.id) && (building === '' || one.place.building === building))
    .sort((a, b) => Number(lateSteps(b) > 0) - Number(lateSteps(a) > 0))
}

/** What a person may say of how an emergency ended. */
const EMERGENCY: readonly Outcome[] = ['real', 'false_alarm', 'test', 'maintenance']

/** What a person may say of how it ended. */
export function outcomesOf(incident: Incident): readonly Outcome[] {
  return incident.case?.outcomes ?? EMERGENCY
}

/** Into which others it may be merged: an emergency never becomes part of what is none. */
export function mergeable(incident: Incident, others: readonly Incident[]): Incident[] {
  return others.filter((other) => other.id !== incident.id && (incident.case !== null || other.case === null))
}

/**
 * Whether an officer is reminded of 119: `due` where no crew has got it under control in time or none comes, `where_needed`
 * where a station was called or it is grave, `none` of what is no emergency and of small ones.
 */
export function reminderOf119({ case: its, peak }: Incident, calls: readonly Call[]): 'none' | 'where_needed' | 'due' {
  if (its !== null) return 'none'
  const nobodyComes = calls.length > 0 && calls.every(({ live, state }) => !live && state !== 'stood_down')
  if (nobodyComes || calls.some(({ not_controlled }) => not_controlled)) return 'due'
  return calls.length > 0 || peak === 'red' || peak === 'orange' ? 'where_needed' : 'none'
}

/** `place` in words; with the point where that names no room, so that one alarm of many can be told from the others. */
export function whereOf(alarm: Alarm, place: string): string {
  return alarm.place.room === '' && alarm.subject_type !== 'part' ? `${place} ${alarm.subject}` : place
}

/** The newest of some alarms: ids sort by the time at which they were raised. */
export function newestOf(alarms: readonly Alarm[]): string {
  return alarms.reduce((newest, { id }) => (id > newest ? id : newest), '')
}

/** The level that its alarms in force stand at; `null` where none is. */
export function levelOf(alarms: readonly Alarm[]): Level | null {
  // The gravest first, silenced ones last.
  const first = alarms[0]
  return first && !isSilenced(first) ? first.level : null
}
