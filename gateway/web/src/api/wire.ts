/**
 * The JSON of the API, version 1, as `gateway/src/web/wire.rs` writes it. Moments are RFC 3339 with the site's offset.
 */

export interface Text {
  zh: string
  en: string
}

export const LEVELS = ['red', 'orange', 'yellow', 'blue'] as const
/** The four warning colours, gravest first. */
export type Level = (typeof LEVELS)[number]

export const ALARM_STATES = [
  'normal',
  'unacknowledged',
  'acknowledged',
  'returned_unacknowledged',
  'latched',
  'shelved',
  'suppressed',
  'out_of_service',
] as const
export type AlarmState = (typeof ALARM_STATES)[number]

export type HazardClass = 'gas' | 'fire' | 'power' | 'flood' | 'ground' | 'care' | 'device' | 'system'

export type Value = number | boolean | string

export interface Place extends Text {
  area: string
  grid: string
  building: string
  unit: string
  floor: string
  room: string
  position: [number, number] | null
}

export interface By {
  by: string
  at: string
}

export interface Shelf {
  until: string
  by: string
  why: string
}

/** The reading that an alarm's last change rests on. */
export interface Evidence {
  point: string | null
  value: Value | null
  unit: string
  limit: { name: string; value: number } | null
  source_time: string | null
  sequence: number | null
  received: string
}

/** What a verdict rests on, whole. */
export interface Grounds {
  at: string
  /** Tells this version of the rule from others. */
  rule_hash: string
  said: Level | 'normal' | 'undetermined'
  /** The level at which the alarm stood then. */
  held: Level | null
  inputs: {
    role: string
    point: string
    value: Value | null
    unit: string
    quality: Quality
    /** Empty for good. */
    reason: string
    time: string
    age_seconds: number
  }[]
  windows: { name: string; measure: string; over_seconds: number; value: number | null; unit: string }[]
  limits: { name: string; value: number; unit: string; origin: Origin; source: Text }[]
}

/** What a rule holds of a point, whether it has spoken or not. */
export interface HeldRule {
  rule: string
  title: Text
  judged: boolean
  enabled: boolean
  limits: Grounds['limits']
  on_delay_s: number
  off_delay_s: number
  deadband: number
}

/** Who has set a limit's number. */
export type Origin = 'library' | 'rule' | 'site' | 'kind' | 'profile' | 'place' | 'device' | 'point'

export interface Alarm {
  id: string
  /** Number of its transitions so far: the larger one is the newer state. */
  seq: number
  rule: string
  subject: string
  subject_type: 'point' | 'device' | 'part'
  class: HazardClass
  /** The incident that it is part of; `null` for those about anmin itself. */
  incident: string | null
  /** The drill that it is part of; `null`: it is real. */
  drill: string | null
  level: Level
  peak: Level
  state: AlarmState
  open: boolean
  active: boolean
  latched: boolean
  title: Text
  message: Text
  advice: Text
  place: Place
  reading: Evidence
  raised_at: string
  changed_at: string
  clock_doubtful: boolean
  acknowledged: By | null
  shelved: Shelf | null
  out_of_service: By | null
  escalation: number
  escalate_at: string | null
  realarm_at: string | null
  /** Whether people let it leave the community; `null`: they were not asked. */
  broadcast: Broadcast | null
  /** Ids of the ways out that have told people outside of it, and have not taken it back. */
  told_outside: string[]
}

export interface Broadcast {
  state: 'waiting' | 'approved' | 'refused' | 'expired' | 'taken_back' | 'over'
  level: Level
  asked_at: string
  until: string
  /** How many must say yes. */
  people: number
  yes: By[]
  no: { who: string; at: string; why: string } | null
}

export type CallState =
  | 'called'
  | 'accepted'
  | 'on_the_way'
  | 'on_scene'
  | 'under_control'
  | 'stood_down'
  | 'declined'
  | 'unanswered'

export interface Call {
  alarm: string
  station: string
  station_names: Text
  state: CallState
  live: boolean
  late: boolean
  /** Not under control in time: a person shall call 119. */
  not_controlled: boolean
  respond_by: string
  arrive_by: string
  control_by: string
  crew: { id: string; name: string }[]
  steps: { state: CallState; at: string; by: string; why: string }[]
  seq: number
}

export interface AlarmList {
  now: string
  alarms: Alarm[]
  calls: Call[]
  /** Where the next page begins; `null` on the last. */
  next: string | null
  of: number
}

/** What a command leaves behind; `alarm` is null when it closed the alarm. */
export interface AlarmView {
  alarm: Alarm | null
  calls: Call[]
}

export type AlarmCause =
  | 'raised'
  | 'level_changed'
  | 'returned'
  | 'realarmed'
  | 'acknowledged'
  | 'reset'
  | 'shelved'
  | 'unshelved'
  | 'taken_out_of_service'
  | 'returned_to_service'
  | 'escalated'
  | 'regrouped'
  | 'moved'
  | 'broadcast_seconded'
  | 'broadcast_approved'
  | 'broadcast_refused'
  | 'broadcast_expired'
  | 'broadcast_taken_back'
  | 'broadcast_rerouted'
  | 'broadcast_renewed'
  | 'broadcast_ended'

export interface Transition {
  at: string
  cause: AlarmCause
  by: string | null
  why: string | null
  from: AlarmState
  to: AlarmState
  from_level: Level | null
  alarm: Alarm
  /** For what a verdict has changed, in the history of one alarm. */
  evidence?: Grounds
}

export interface CallChange {
  at: string
  cause: string
  message: Text
  call: Call
  level: Level
  place: Place
}

export const FALSE_CAUSES = [
  'cooking',
  'steam',
  'smoking',
  'dust',
  'insects',
  'weather',
  'device',
  'wiring',
  'mistake',
  'limit',
  'other',
] as const
/** What gave a false alarm. */
export type FalseCause = (typeof FALSE_CAUSES)[number]

export type Outcome =
  | 'real'
  | 'false_alarm'
  | 'test'
  | 'maintenance'
  | 'quiet'
  | 'agreed'
  | 'resolved'
  | 'repaired'
  | 'replaced'
  | 'no_fault'
  | 'referred'
  | 'unfounded'
  | 'drill'
  | 'merged'
  | 'unexplained'

export const CASE_KINDS = ['mediation', 'report', 'maintenance', 'precaution'] as const
export type CaseKind = (typeof CASE_KINDS)[number]

export type Stage =
  | 'new'
  | 'dissuading'
  | 'mediating'
  | 'follow_up'
  | 'accepted'
  | 'handling'
  | 'assigned'
  | 'repairing'
  | 'waiting'
  | 'inspecting'

/** What an incident is that is no emergency: a quarrel to be mediated, what a resident asks for, something to be repaired. */
export interface Case {
  kind: CaseKind
  stage: Stage
  /** Who sees to it; `null` while nobody has taken it on. */
  owner: string | null
  /** The states of its kind, in their order. */
  stages: Stage[]
  /** How a person may say that it ended. */
  outcomes: Outcome[]
}

/** One step of an incident's checklist. */
export interface ChecklistItem {
  id: string
  plan: string
  version: string
  text: Text
  owner: 'officer' | 'crew' | 'property' | 'grid' | 'utility'
  due: string | null
  late: boolean
  done_at: string | null
  by: string | null
  skipped: string | null
}

export interface Member {
  id: string
  name: string
  role: 'head' | 'member' | 'driver' | 'communicator' | 'safety'
  phone: string
}

/** A micro fire station as it stands. */
export interface Station {
  id: string
  seq: number
  name: Text
  phone: string
  ready: boolean
  unready: { code: string; text: Text }[]
  on_duty: Member[]
  crew: Member[]
  shifts: string[]
  handed_over: { at: string; by: string; note: string } | null
  off_duty: { at: string; by: string; why: string } | null
  equipment: {
    id: string
    name: Text
    checked_at: string | null
    by: string | null
    fit: boolean | null
    note: string | null
    due: string | null
  }[]
  calls: Call[]
}

/** Alarms that share a cause. They name it themselves. */
export interface Incident {
  id: string
  /** Number of its changes so far: the larger one is the newer state. */
  seq: number
  state: 'standing' | 'settled' | 'closed'
  /** `null`: it is an emergency. */
  case: Case | null
  title: Text
  place: Place
  /** The drill that it is part of; `null`: it is real. */
  drill: string | null
  /** None of a case that no alarm has opened. */
  hazards: HazardClass[]
  peak: Level
  storm: boolean
  /** How many ever belonged to it, up to this change. */
  alarms: number
  opened_at: string
  changed_at: string
  settled_at: string | null
  closes_at: string | null
  notes: { at: string; by: string; text: string; photos: string[] }[]
  checklist: ChecklistItem[]
  called_119: { at: string; by: string; text: string } | null
  end: { at: string; by: string; outcome: Outcome; cause: FalseCause | null; into: string | null; why: string } | null
}

/** An incident with what its open alarms say of it. */
export interface Situation extends Incident {
  level: Level | null
  open_alarms: number
  unacknowledged: number
  advice: Text[]
  people: string[]
  /** Open alarms that it has besides, beyond one's places. */
  beyond: number
}

export interface IncidentList {
  now: string
  incidents: Situation[]
  next: string | null
  of: number | null
}

export interface IncidentView {
  incident: Situation
  alarms: Alarm[]
  calls: Call[]
}

export type IncidentCause =
  | 'opened'
  | 'grew'
  | 'settled'
  | 'resumed'
  | 'noted'
  | 'ticked'
  | 'skipped'
  | 'step_late'
  | 'called_119'
  | 'staged'
  | 'split_from'
  | 'split_into'
  | 'absorbed'
  | 'closed'

export interface IncidentChange {
  at: string
  cause: IncidentCause
  by: string | null
  /** The incident that alarms came from or went to. */
  other: string | null
  /** The step of the checklist that it is about. */
  step: string | null
  incident: Incident
}

/** What has left about an incident, and what its receiver said. */
/** How far a message has come, as its receiver or gateway says. */
export type Reach = 'left_out' | 'failed' | 'accepted' | 'delivered' | 'read' | 'answered'

/** One of those whom a message is for, by their place in the site's list. */
export interface Recipient {
  n: number
  state: Reach
  at: string
  why: string
}

export interface Message {
  /** `null` where its bytes are damaged. */
  at: string | null
  way_out: string
  form: 'event' | 'call' | 'cap' | 'siren'
  what: Text
  level: string
  state: Reach | 'waiting' | 'dead'
  recipients: Recipient[]
  receipt: string
  /** Who did something first after it was taken. */
  answered: { by: string; at: string } | null
}

/** The oldest first. */
export interface Messages {
  messages: Message[]
}

/** One row of the journal: exactly one of the four. */
export interface JournalRow {
  n: number
  transition?: Transition
  call?: CallChange
  incident?: IncidentChange
  damaged?: string
}

export type Quality = 'good' | 'uncertain' | 'bad'

export interface Sample {
  value: Value | null
  quality: Quality
  /** Empty for good. */
  reason: string
  time: string
  source_time: string | null
  received: string
  sequence: number | null
  news: boolean
}

export interface Point {
  id: string
  device: string
  label: Text
  kind: string
  hazard: HazardClass
  title: Text
  unit: string
  alarm_point: boolean
  place: Place
  /** `null`: nothing was heard of it since the start. */
  sample: Sample | null
}

export interface PointPage {
  now: string
  points: Point[]
  next: number | null
  of: number
}

export interface ChangedPoints {
  points: { id: string; sample: Sample }[]
  truncated: boolean
}

/** What points can be filtered by. */
/** Who can be called and told next about an alarm. */
export interface Next {
  stations: Callable[]
  escalation: number
  last_escalation: number
}

export interface Callable {
  id: string
  name: Text
  phone: string
  /** Why it cannot respond. */
  unready: Text | null
  /** It comes for another incident. */
  elsewhere: boolean
  /** Its call for this alarm or its incident, which has not ended. */
  called: CallState | null
}

export interface PointChoices {
  buildings: string[]
  areas: string[]
  grids: string[]
  kinds: { kind: string; title: Text }[]
}

export interface Bucket {
  at: string
  count: number
  bad: number
  min: number | null
  max: number | null
  mean: number | null
}

/** A payload of which nothing could be used. */
export interface Unusable {
  source: string
  topic: string
  why: string
  bytes: number
  sha256: string
  excerpt: string
  messages: number
  first: string
  last: string
}

export interface Quarantined {
  source: string
  device: string
  topic: string
  excerpt: string
  messages: number
  first: string
  last: string
}

/** What a device in the quarantine may be. */
export interface Guesses {
  source: string
  device: string
  topic: string
  /** Every profile that reads such messages, the likeliest first. */
  profiles: Guess[]
  places: { id: string; place: Place }[]
}

export interface Guess {
  profile: string
  title: Text
  /** 0 to 1; 0 where it reads nothing of the last message. */
  score: number
  /** Its mapping would take it for this. */
  named: boolean
  points: { name: string; title: Text; value: Sample['value']; unit: string }[]
}

/** What was taken in, or would be. */
export interface Adopted {
  applied: boolean
  row: Record<string, string>
  points: { id: string; kind: string; title: Text; alarm_point: boolean }[]
  faults: Text[]
  version: string
  reloaded: Reloaded | null
}

/** What an import of devices has done, or would do. */
export interface DevicesImported {
  applied: boolean
  added: number
  changed: number
  removed: number
  unchanged: number
  changes: { id: string; change: 'added' | 'changed' | 'removed'; cells: { column: string; from: string; to: string }[] }[]
  points: number
  faults: { row: number; column: string; text: Text }[]
  version: string
  reloaded: Reloaded | null
}

export interface DeviceView {
  id: string
  label: Text
  profile: string
  title: Text | null
  place: Place
  points: Point[]
  heard: string | null
  testable: boolean
  tested: { point: string; at: string; walk: string; name: string; by: string } | null
}

export interface Drill {
  id: string
  seq: number
  name: string
  scope: Text
  announced: boolean
  by: string
  started_at: string
  ends_at: string
  alarms: number
  on: boolean
  ended_at: string | null
  ended_by: string | null
}

export interface DrillChange {
  at: string
  cause: 'started' | 'raised' | 'ended'
  drill: Drill
}

export interface Drills {
  drills: Drill[]
  next: string | null
  scenarios: { name: string; title: Text; kinds: string[] }[]
  /** Which drills are held how often. */
  calendar: { id: string; scope: Text; every_days: number; last: string | null; due: string; overdue: boolean }[]
}

/** What stands at one spot of a drawing: one point, one device, or all in a place, whose empty parts are any. */
export interface DrawingMark {
  name: Text
  /** On a map latitude and longitude; on an image parts of its width from the left and of its height from the top. */
  at: [number, number]
  area: string
  building: string
  unit: string
  floor: string
  room: string
  device: string
  point: string
}

/** A map or a floor plan. */
export interface Drawing {
  id: string
  name: Text
  /** `null`: of the whole site. */
  building: string | null
  /** `null`: of the whole building. */
  floor: string | null
  form: 'map' | 'image'
  /** Below `/api/v1`. */
  file: string
  /** Pixels; `null` of a map. */
  width: number | null
  height: number | null
  marks: DrawingMark[]
}

/** What is to be done for a hazard or a kind of case, from a level on. */
export interface Plan {
  id: string
  title: Text
  subject: HazardClass | CaseKind
  level: Level
  /** Areas that it is for; none: everywhere. */
  places: string[]
  version: string
  approved_by: string | null
  /** A day, `2026-03-01`. */
  approved_on: string | null
  source: string
  /** Of the site's own; otherwise anmin ships it. */
  own: boolean
  /** Since when it says what it says. */
  since: string | null
  steps: { id: string; text: Text; owner: ChecklistItem['owner']; within_s: number | null }[]
  /** The newest first. */
  history: { at: string; by: string | null; version: string; approved_by: string | null; approved_on: string | null; hash: string }[]
}

export interface Plans {
  plans: Plan[]
}

/** A walk test: somebody presses one detector after the other. */
export interface Walk {
  id: string
  seq: number
  name: string
  scope: Text
  kinds: string[]
  by: string
  started_at: string
  ends_at: string
  points: number
  ticked: number
  on: boolean
  ended_at: string | null
  ended_by: string | null
}

/** A point that has spoken in a walk test. */
export interface Tick {
  walk: string
  point: string
  kind: string
  kind_title: Text
  place: Place
  rule: string
  level: Level
  value: number | null
  unit: string
  at: string
  state: 'speaking' | 'returned' | 'real' | 'lost'
  ended_at: string | null
  real_at: string | null
}

export interface WalkChange {
  at: string
  cause: 'started' | 'ticked' | 'returned' | 'real' | 'ended'
  walk: Walk
  tick: Tick | null
}

export interface Walks {
  walks: Walk[]
  next: string | null
  speaking: Tick[]
}

/** Which detectors were tested when. */
export interface Coverage {
  every_days: number
  points: number
  tested: number
  overdue: number
  never: number
  rows: { building: string; kind: string; kind_title: Text; points: number; tested: number; overdue: number; never: number }[]
  due: { point: string; label: Text; kind: string; kind_title: Text; place: Place; last_tested: string | null }[]
}

export interface RegisterName {
  kind: string
  title: Text
}

/** A list that people keep: rows of cells by the names of their columns. */
export interface Register {
  kind: string
  title: Text
  columns: { name: string; title: Text; form: string; required: boolean; words: { word: string; zh: string }[] }[]
  rows: Record<string, string>[]
  masked: boolean
  version: string
  /** Where the next page begins; `null` on the last. */
  next: string | null
}

export interface Imported {
  applied: boolean
  added: number
  changed: number
  removed: number
  unchanged: number
  faults: { row: number; column: string; text: Text; hint: string | null }[]
  version: string
}

/** How a month was. */
export interface Ledger {
  month: string
  incidents: unknown[]
  left_out: boolean
  outcomes: { outcome: Outcome; cause: FalseCause | null; incidents: number }[]
  clocks: {
    what: 'notified' | 'acknowledged' | 'accepted' | 'on_scene' | 'under_control'
    kept: number
    of: number
    median_seconds: number | null
    longest_seconds: number | null
  }[]
  drills: { drill: Drill; kept: number; of: number }[]
  noisy: { title: Text; place: Text; incidents: number; false_alarms: number }[]
  walks: Walk[]
  satisfaction: { marks: number; mean: number | null; by_mark: number[] }
  short: Text[]
}

export interface Status {
  version: string
  site: string
  name: Text
  exercise: boolean
  /** Drills that are on. */
  drills: Drill[]
  /** Walk tests that are on. */
  walks: Walk[]
  /** Residents' calls for help that are not done with. */
  help: { waiting: number; taken: number }
  now: string
  uptime_seconds: number
  open_alarms: number
  open_incidents: number
  by_level: Record<Level, number>
  live_calls: number
  pending: number
  readings: { received: number; evaluated: number; duplicate: number; quarantined: number; rejected: number; missing: number; repeated: number }
  points: number
  devices: number
  quarantined_devices: number
  rules: number
  broken_rules: string[]
  troubles: { part: string; level: Level; message: Text }[]
  orders_waiting: number
  /** What each way out has not taken yet; 0 where it owes nothing. */
  ways_out: { id: string; waiting: number }[]
  readings_waiting: number
  /** Times that a broker had lost our session. */
  possible_losses: number
  /** Times that are written down now may be wrong. */
  clock_doubtful: boolean
  databases: Database[]
  gaps: Gaps
  /** anmin's test of its own way from a reading to an order. */
  self_test: { last: string | null; took_ms: number | null; failed: number }
}

/** How far one time-series database is with the readings that wait for it. */
export interface Database {
  id: string
  waiting: number
  bytes: number
  /** `null`: nothing waits. */
  oldest: string | null
  rate_per_second: number
  /** 0 where it keeps up; `null` while what waits does not grow less. */
  catch_up_seconds: number | null
  dropped: number
}

/** Stretches that were dropped before every database had them; the newest first, ten at most. */
export interface Gaps {
  count: number
  newest: { from: string; to: string; readings: number }[]
}

/** An order that its receiver has refused for good. */
export interface DeadLetter {
  order: string
  way_out: string
  at: string
  why: string
  /** `null`, as level and message: its bytes are damaged and it cannot be sent again. */
  alarm: string | null
  level: Level | null
  message: Text | null
}

export interface Hello {
  version: string
  site: string
  now: string
}

/** What the API says when something does not work. */
/** A warning of an office above, in force here. */
export interface Warning {
  source: string
  identifier: string
  sender: string
  sender_name: Text
  sent: string
  until: string
  exercise: boolean
  level: Level
  hazards: HazardClass[]
  event: Text
  headline: Text
  description: Text
  instruction: Text
  area: Text
  subject: string
}

export interface ProblemBody {
  code: string
  error: Text
  hint: Text | null
}

export type Role = 'officer' | 'crew' | 'manager' | 'office' | 'administrator' | 'auditor' | 'device'

export type Right =
  | 'anybody'
  | 'own'
  | 'look'
  | 'look_behind'
  | 'subscribe'
  | 'acknowledge'
  | 'call'
  | 'station'
  | 'drill'
  | 'handle'
  | 'resend'
  | 'try'
  | 'operate'
  | 'measure'
  | 'audit'
  | 'look_people'
  | 'change_people'

export interface RuleLimit {
  name: string
  value: number
  unit: string
  level: Level | null
  source: Text
}

/** A number by its name: `limit.red`, `on_delay_s`, `off_delay_s`, `deadband`, … */
export interface NamedNumber {
  name: string
  value: number
}

/** One rule in force. */
export interface Rule {
  id: string
  title: Text
  origin: 'library' | 'site'
  hash: string
  limits: RuleLimit[]
  on_delay_s: number
  off_delay_s: number
  deadband: number
  latch: boolean
  overrides: { of: string; numbers: NamedNumber[] }[]
  cases: string[]
  subjects: number
  open_alarms: number
  broken: boolean
}

/** What has been set at the desk. */
export interface Tuned {
  version: string
  overrides: { rule: string; of: string; numbers: NamedNumber[] }[]
}

/** Numbers for a rule: for whom, and which; `null` takes back what was set at the desk. */
export interface RuleChange {
  rule: string
  of: Record<string, string>
  numbers: Record<string, number | null>
}

export interface Standing {
  from: string
  to: string | null
  level: Level
  message: Text
}

/** What a change would have meant. */
export interface Trial {
  from: string
  to: string
  readings: number
  same: number
  gained: number
  lost: number
  earlier: number
  later: number
  other_level: number
  changed: { change: 'gained' | 'lost' | 'earlier' | 'later' | 'other_level'; subject: string; before: Standing | null; after: Standing | null }[]
  version: string
}

export interface Reloaded {
  rules: number
  added: string[]
  removed: string[]
  changed: string[]
  numbers: { rule: string; of: string; name: string; from: number | null; to: number | null }[]
  waits_for_restart: string[]
}

/** One row of the audit. */
export interface Deed {
  n: number
  at: string | null
  who: string | null
  through: 'page' | 'command_line' | 'api' | 'crew_link' | 'signal' | 'files' | 'anmin' | null
  address: string | null
  account: string | null
  role: Role | null
  what: string | null
  about: string | null
  done: boolean | null
  refused: Text | null
  detail: unknown
  damaged: string | null
  hash: string
}

export interface AuditPage {
  rows: Deed[]
  next: number | null
}

export interface Chain {
  whole: boolean
  rows: number
  first: { n: number; at: string } | null
  last: { n: number; at: string } | null
  head: string
  broken: Text | null
}

/** A token of the API. */
export interface Token {
  name: string
  role: Role
  places: string[]
  created_at: string
  expires_at: string
  by: string
}

export interface NewToken {
  /** Shown this once. */
  token: string
  kept: Token
}

/** Who is asking. */
export interface Myself {
  door: 'open' | 'token' | 'set_up' | 'sign_in'
  signed_in: boolean
  locked: boolean
  must_change: boolean
  totp: boolean
  /** What the provider is called by which one may sign in, where there is one. */
  provider: Text | null
  /** The account is of that provider and has no password here. */
  by_provider: boolean
  /** `null` where no account stands behind it. */
  account: string | null
  shown: string | null
  role: Role | null
  places: string[]
  rights: Right[]
}

export interface Done {
  done: boolean
}

/** Where the browser goes next. */
export interface Address {
  address: string
}

export interface Account {
  name: string
  shown: string
  role: Role
  places: string[]
  disabled: boolean
  must_change: boolean
  totp: boolean
  /** The issuer by which they sign in; `null` where a password stands behind it. */
  provider: string | null
  created_at: string
  changed_at: string
}

/** A password that opens an account once. */
export interface OncePassword {
  account: string
  password: string
}

export interface SignIn {
  id: string
  created_at: string
  used_at: string
  address: string | null
  agent: string
  locked: boolean
}

export interface TotpOffer {
  secret: string
  address: string
}
