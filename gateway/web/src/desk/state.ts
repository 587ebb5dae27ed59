/**
 * What the screen knows: alarms, calls, how anmin stands, and whether all that can be trusted. Fed by the live stream;
 * the list of alarms is asked for at the start and whenever the stream says that something was missed.
 */

import { computed, ref, shallowRef } from 'vue'
import { ask, read, useToken, whenShutOut, whenTokenIsAsked } from '../api/client'
import { LiveStream } from '../api/stream'
import type { ServerEvent } from '../api/sse'
import type {
  Alarm,
  AlarmList,
  AlarmView,
  Call,
  CallChange,
  ChangedPoints,
  Drill,
  DrillChange,
  Hello,
  Incident,
  IncidentChange,
  IncidentList,
  IncidentView,
  Status,
  Transition,
  Walk,
  WalkChange,
} from '../api/wire'
import { millis, offsetOf, stampAt } from '../words/format'
import { AlarmBook, byGravity, isArrival } from './book'
import { IncidentBook } from './incidents'
import { keepToken, tokenOfSession } from './memory'
import { loadMyself, waitsFor } from './session'
import { Mark, trust, type Trust } from './trust'

/** News are put on the screen at most this often: a storm of them must not keep the browser from everything else. */
const FLUSH_MS = 100

/** Alarms in the first answer and in those that follow: ten thousand of them must not keep the gravest from being seen. */
const FIRST_PAGE = 200
const PAGE = 1_000

const book = new AlarmBook()
const incidentBook = new IncidentBook()
/** Counts changes of the book, which is no reactive object itself. */
const turn = ref(0)

/** All open alarms, gravest first. */
export const alarms = computed<readonly Alarm[]>(() => {
  void turn.value
  return book.all().sort(byGravity)
})

export function alarmOf(id: string): Alarm | undefined {
  void turn.value
  return book.get(id)
}

export function callsOf(id: string): Call[] {
  void turn.value
  return book.calls(id)
}

export function incidentOf(id: string): Incident | undefined {
  void turn.value
  return incidentBook.get(id)
}

/** Open incidents, the oldest first: ids sort by the time at which they began. */
export const incidents = computed<readonly Incident[]>(() => {
  void turn.value
  return incidentBook.all().sort((a, b) => (a.id < b.id ? -1 : 1))
})

export const status = shallowRef<Status | null>(null)
/** Drills that are on, as the last status and what came since say. */
export const drills = shallowRef<readonly Drill[]>([])
/** Walk tests that are on, likewise. */
export const walks = shallowRef<readonly Walk[]>([])
/** Counts what has happened in them: whoever shows their points asks again. */
export const walkTurn = ref(0)
export const trusted = ref<Trust>('starting')
/** Whether the list of alarms has ever been loaded. */
export const listed = ref(false)
/** The last arrivals, gravest first; a new array each time. */
export const arrivals = shallowRef<readonly Alarm[]>([])
/** A newer anmin answers than the one that this page came from. */
export const newerVersion = ref<string | null>(null)
/** Whether the token must be entered: for the first time, or again. */
export const tokenAsked = ref<'no' | 'first' | 'again'>('no')

/** The site's time, in milliseconds since 1970: anmin's clock, carried on by the browser's. */
export const now = ref(Date.now())
const offset = ref(0)
/** The stamp of now. */
export const nowStamp = computed(() => stampAt(now.value, offset.value))
export const siteOffset = computed(() => offset.value)
/** When anmin last said how it stands, by its own clock. */
export const heardAt = ref<string | null>(null)

let beat: Mark | null = null
let broken: Mark | null = null
let unlisted: Mark | null = new Mark()
const opened = new Mark()
let clockSet = { at: performance.now(), wall: Date.now() }

let loading = false
let loadAgain = false
/** Whether incidents that began beyond one's own places may have changed: the stream says that, the list says how. */
let reaching = false
/** News that came while the list was on its way: they are taken after it. */
let held: ServerEvent[] = []
let arrived: Alarm[] = []
let flush: number | null = null

const readers = new Set<(changed: ChangedPoints) => void>()

const stream = new LiveStream({
  opened: () => {
    broken = null
    tick()
    learn()
  },
  broke: () => {
    broken ??= new Mark()
    tick()
  },
  told: (event) => {
    switch (event.name) {
      case 'hello':
        return greeted(read<Hello>(event.data))
      case 'resync':
        unlisted = new Mark()
        return void load()
      case 'status':
        return heard(read<Status>(event.data))
      case 'incidents':
        reaching = true
        return
      case 'readings':
        return tellReaders(read<ChangedPoints>(event.data))
      default:
        if (loading) held.push(event)
        else take(event)
    }
  },
})

/** Who is asking now, and what they may: what cannot be had now is asked for with the next connection. */
function learn(): void {
  loadMyself().catch(() => {})
}

function greeted(hello: Hello): void {
  setClock(hello.now)
  const known = status.value?.version
  if (known !== undefined && known !== hello.version) newerVersion.value = hello.version
  if (unlisted) void load()
}

function heard(said: Status): void {
  beat = new Mark()
  status.value = said
  drills.value = said.drills
  walks.value = said.walks
  heardAt.value = said.now
  setClock(said.now)
  // A list that could not be had is asked for again with every beat; one that is on its way need not begin anew.
  if (unlisted && !loading) void load()
  else if (reaching && !loading) void loadIncidents()
  tick()
}

function setClock(stamp: string): void {
  clockSet = { at: performance.now(), wall: millis(stamp) }
  offset.value = offsetOf(stamp)
  tick()
}

async function allIncidents(): Promise<Incident[]> {
  const incidents: Incident[] = []
  let next: string | null = null
  do {
    const from: Record<string, string> = next === null ? {} : { after: next }
    const page: IncidentList = await ask<IncidentList>('/incidents', { limit: String(PAGE), ...from })
    incidents.push(...page.incidents)
    next = page.next
  } while (next !== null)
  return incidents
}

async function load(): Promise<void> {
  if (loading) {
    loadAgain = true
    return
  }
  loading = true
  let loaded = listed.value
  try {
    do {
      loadAgain = reaching = false
      incidentBook.replace(await allIncidents())
      const [alarms, calls]: [Alarm[], Call[]] = [[], []]
      let next: string | null = null
      do {
        const from: Record<string, string> = next === null ? { limit: String(FIRST_PAGE) } : { limit: String(PAGE), after: next }
        const page: AlarmList = await ask<AlarmList>('/alarms', from)
        alarms.push(...page.alarms)
        calls.push(...page.calls)
        next = page.next
        // Who has seen none yet sees the gravest at once and the others as they come.
        if (!loaded && next !== null) {
          book.replace({ alarms, calls })
          put()
          listed.value = true
        }
      } while (next !== null)
      book.replace({ alarms, calls })
      loaded = true
    } while (loadAgain)
    unlisted = null
  } catch {
    // `unlisted` stays set: the next beat asks again, and the screen says that it cannot be trusted.
  } finally {
    takeHeld()
    if (loaded) listed.value = true
  }
}

async function loadIncidents(): Promise<void> {
  loading = true
  reaching = false
  try {
    incidentBook.replace(await allIncidents())
  } catch {
    // The next beat asks again.
    reaching = true
  } finally {
    takeHeld()
    if (loadAgain) void load()
  }
}

/** What came while a list was on its way. */
function takeHeld(): void {
  loading = false
  const waited = held
  held = []
  for (const event of waited) take(event)
  // At once: whoever shows the list for the first time must not find it empty.
  put()
}

function take(event: ServerEvent): void {
  if (event.name === 'transition') {
    const { alarm } = read<Transition>(event.data)
    const before = book.get(alarm.id)
    if (book.take(alarm) && isArrival(before, alarm)) arrived.push(alarm)
  } else if (event.name === 'call') {
    book.takeCall(read<CallChange>(event.data).call)
  } else if (event.name === 'drill') {
    takeDrill(read<DrillChange>(event.data).drill)
  } else if (event.name === 'walk') {
    takeWalk(read<WalkChange>(event.data).walk)
  } else if (event.name === 'incident') {
    incidentBook.take(read<IncidentChange>(event.data).incident)
  }
  changed()
}

function changed(): void {
  flush ??= window.setTimeout(() => {
    flush = null
    put()
  }, FLUSH_MS)
}

/** Puts what is known on the screen. */
function put(): void {
  // The clock too: what has just begun must not seem to begin in the future.
  tick()
  turn.value += 1
  if (arrived.length > 0) {
    arrivals.value = arrived.sort(byGravity)
    arrived = []
  }
}

function tellReaders(news: ChangedPoints): void {
  for (const reader of readers) reader(news)
}

function tick(): void {
  now.value = Math.round(clockSet.wall + performance.now() - clockSet.at)
  trusted.value = trust({
    openFor: opened.ago,
    sinceBeat: beat?.ago ?? null,
    brokenFor: broken?.ago ?? null,
    unlistedFor: unlisted?.ago ?? null,
  })
}

/** What a command left behind, shown without waiting for the stream. */
export function takeView(id: string, view: AlarmView): void {
  book.takeView(id, view)
  changed()
}

/** What a command on an incident left behind. */
export function takeIncident(view: IncidentView): void {
  incidentBook.take(view.incident)
  for (const alarm of view.alarms) book.take(alarm)
  for (const call of view.calls) book.takeCall(call)
  changed()
}

/** What became of a walk test, likewise. */
export function takeWalk(walk: Walk): void {
  const others = walks.value.filter(({ id }) => id !== walk.id)
  walks.value = walk.on ? [...others, walk] : others
  walkTurn.value += 1
}

/** What became of a drill, shown without waiting for the next status. */
export function takeDrill(drill: Drill): void {
  const others = drills.value.filter(({ id }) => id !== drill.id)
  drills.value = drill.on ? [...others, drill] : others
}

/** Calls back with changed points until the returned function is called. */
export function readPoints(reader: (changed: ChangedPoints) => void): () => void {
  readers.add(reader)
  stream.wantReadings(true)
  return () => {
    readers.delete(reader)
    if (readers.size === 0) stream.wantReadings(false)
  }
}

/** Whether a token is in use. */
export const hasToken = ref(false)

/** Goes on with this token. */
export function enter(token: string): void {
  useToken(token)
  keepToken(token)
  hasToken.value = true
  tokenAsked.value = 'no'
  stream.start()
}

/** Forgets the token and everything that was shown with it. */
export function leave(): void {
  keepToken(null)
  location.reload()
}

export function start(): void {
  const token = tokenOfSession()
  useToken(token)
  hasToken.value = token !== null
  let tried = hasToken.value
  whenTokenIsAsked(() => {
    if (tokenAsked.value !== 'no') return
    tokenAsked.value = tried ? 'again' : 'first'
    tried = true
  })
  whenShutOut(learn)
  // Whoever must come in first is not shown a desk that fails.
  void loadMyself()
    .catch(() => {})
    .then(() => {
      if (waitsFor.value === null) stream.start()
    })
  window.setInterval(tick, 1_000)
  // A tab that comes to the front, or a network that comes back, does not wait for the next attempt.
  const hurry = () => {
    tick()
    if (broken && document.visibilityState === 'visible') stream.reopen()
  }
  document.addEventListener('visibilitychange', hurry)
  window.addEventListener('online', hurry)
}
