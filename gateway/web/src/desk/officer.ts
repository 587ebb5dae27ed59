/** Who is on duty at this device, and the commands given in that name. */

import { computed, ref, shallowRef } from 'vue'
import { command, Problem, WITHIN_MS } from '../api/client'
import type { Level, Alarm, AlarmView, Call, CaseKind, FalseCause, IncidentView, Outcome, Stage, Station, Text } from '../api/wire'
import type { Act, Step } from './actions'
import { remember, remembered } from './memory'
import { me } from './session'
import { takeIncident, takeView } from './state'

/** The name that this device remembers; where somebody is signed in theirs. */
const said = ref(remembered('officer') ?? '')
export const officer = computed(() => me.value?.shown ?? said.value)

/** While a name is asked for: what to do with the answer. */
export const asking = shallowRef<((name: string | null) => void) | null>(null)

/** The officer's name, asked for once; `null` when the question was closed. */
export function named(): Promise<string | null> {
  return officer.value === '' ? askName() : Promise.resolve(officer.value)
}

export function askName(): Promise<string | null> {
  asking.value?.(null)
  return new Promise((resolve) => {
    asking.value = (name) => {
      asking.value = null
      if (name !== null) {
        said.value = name
        remember('officer', name)
      }
      resolve(name)
    }
  })
}

/** What a command needs besides a name. */
export interface Particulars {
  why?: string
  minutes?: number
  typed?: string
  step?: number
  station?: string
  insist?: boolean
}

async function give(alarm: string, path: string, particulars: Particulars, seen?: number): Promise<void> {
  const who = await named()
  if (who === null) return
  takeView(alarm, await command<AlarmView>(`/alarms/${alarm}/${path}`, { who, ...particulars }, WITHIN_MS, seen))
}

/** Where one officer's word would take the place of another's. To have seen an alarm is the same whoever says it. */
const OVERWRITES: readonly Act[] = ['shelve', 'unshelve', 'out-of-service', 'return-to-service']

export function act(alarm: Alarm, what: Act, particulars: Particulars = {}): Promise<void> {
  return give(alarm.id, what, particulars, OVERWRITES.includes(what) ? alarm.seq : undefined)
}

/** One step up now; `step` is the one that the officer means. */
export function escalate(alarm: Alarm, step: number, why: string): Promise<void> {
  return give(alarm.id, 'escalate', { step, why })
}

/** `insist`: also where the station cannot respond. */
export function callStation(alarm: Alarm, station: string, insist: boolean, why: string): Promise<void> {
  return give(alarm.id, 'call-station', { station, insist, why })
}

/** What people say about a broadcast, and what each needs besides a name. */
export interface OnBroadcast {
  'approve-broadcast': { typed: string; level: Level; state: string }
  'refuse-broadcast': { why: string }
  'take-back-broadcast': { why: string }
}

export function onBroadcast<W extends keyof OnBroadcast>(alarm: Alarm, what: W, body: OnBroadcast[W]): Promise<void> {
  return give(alarm.id, what, body)
}

export function step(call: Call, what: Step, particulars: Particulars = {}): Promise<void> {
  return give(call.alarm, `calls/${encodeURIComponent(call.station)}/${what}`, particulars)
}

/** What an officer does with an incident, and what each needs besides a name. */
export interface OnIncident {
  /** `newest`: the newest alarm that the officer has seen. */
  acknowledge: { newest: string }
  note: { text: string; photos?: string[] }
  tick: { step: string }
  skip: { step: string; why: string }
  'called-119': { text: string }
  /** `owner`: who sees to it from now on; without it who did, or whoever says this. */
  stage: { stage: Stage; owner?: string; text: string }
  merge: { into: string }
  split: { alarms: string[] }
  close: { outcome: Outcome; cause?: FalseCause; why: string }
}

/** `seen`: the number of the incident as the officer saw it, where nothing is to be done when it has changed since. */
export async function onIncident<W extends keyof OnIncident>(id: string, what: W, body: OnIncident[W], seen?: number): Promise<void> {
  const who = await named()
  if (who === null) return
  takeIncident(await command<IncidentView>(`/incidents/${id}/${what}`, { who, ...body }, WITHIN_MS, seen))
}

/** A case that is opened by hand. */
export interface NewCase {
  kind: CaseKind
  title: string
  place: { area: string; building: string; unit: string; floor: string; room: string }
  text: string
  /** Who sees to it; whoever opens it where nobody is named. */
  owner?: string
}

/** The incident that it is now; `null` where nobody gave a name. */
export async function openCase(what: NewCase): Promise<string | null> {
  const who = await named()
  if (who === null) return null
  const view = await command<IncidentView>('/incidents', { who, ...what })
  takeIncident(view)
  return view.incident.id
}

/** What an officer says of a station; how it stands afterwards, `null` where nobody gave a name. */
export async function onStation({ id, seq }: Station, what: string, body: object): Promise<Station | null> {
  const who = await named()
  return who === null ? null : command<Station>(`/stations/${encodeURIComponent(id)}/${what}`, { who, ...body }, WITHIN_MS, seq)
}

export interface Notice {
  n: number
  text: Text
  hint: Text | null
  /** Somebody else was first: what is on the screen is old. */
  isOld: boolean
}

/** Counts how often somebody wants what is on the screen loaded anew. */
export const again = ref(0)

/** What did not work, until the officer has read it. */
export const notices = ref<Notice[]>([])
let last = 0

export function complain(error: unknown): void {
  if (!(error instanceof Problem)) throw error
  const notice = { n: (last += 1), text: error.text, hint: error.hint, isOld: error.code === 'changed_meanwhile' }
  // The same complaint twice is one.
  notices.value = [...notices.value.filter(({ text }) => text.en !== notice.text.en), notice].slice(-3)
}

export function dismiss(n: number): void {
  notices.value = notices.value.filter((notice) => notice.n !== n)
}
