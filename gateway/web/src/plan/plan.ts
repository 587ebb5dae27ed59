/**
 * The site as houses with floors, from the places that points and alarms name: what is worst on each floor, and where nothing
 * watches any more. It needs no map.
 */

import { type Alarm, LEVELS, type Level, type Place, type Point, type Text } from '../api/wire'
import { isSilenced } from '../desk/book'

/** The worst first. */
export const STATES = ['alarm', 'blind', 'ill', 'silenced', 'well'] as const
export type State = (typeof STATES)[number]

/** A place where no detector of a kind can be relied on. */
export interface Blind {
  /** `null`: on the whole floor. */
  where: Place | null
  kind: string
  title: Text
}

/** One floor of a building, what of it names no floor, or a place that is in no building. */
export interface Cell {
  key: string
  building: string
  floor: string
  place: Place
  state: State
  /** The gravest of its real alarms; of silenced ones where all are. */
  level: Level | null
  /** Real ones, in the order in which they were given. */
  alarms: Alarm[]
  /** How many are a drill's. */
  drills: number
  points: Point[]
  /** How many of the points are not good. */
  ill: number
  blind: Blind[]
}

export interface Building {
  building: string
  /** The top floor first; what names no floor last. */
  cells: Cell[]
}

/** Where a place is drawn. */
export function keyOf({ building, floor, area, zh }: Place): string {
  return building === '' ? `/${area || zh}` : `${building}/${floor}`
}

/** The building of a key. */
export const buildingOf = (key: string): string => key.slice(0, Math.max(0, key.indexOf('/')))

const byName = (a: string, b: string) => a.localeCompare(b, 'zh', { numeric: true })

/** As people count: 1, 2, 10; what is in no building last. */
export function inOrder(buildings: Iterable<string>): string[] {
  return [...new Set(buildings)].sort((a, b) => Number(a === '') - Number(b === '') || byName(a, b))
}

/** `12`, `-1`, `B1`, `地下2`; what has a name, such as a roof, stands on top, and no floor at the bottom. */
function rank(floor: string): number {
  if (floor === '') return Number.NEGATIVE_INFINITY
  const [, below, digits] = /^(-|B|地下|负)?\s*(\d+)/i.exec(floor) ?? []
  if (digits === undefined) return Number.POSITIVE_INFINITY
  return below ? -Number(digits) : Number(digits)
}

const isGood = ({ sample }: Point) => sample?.quality === 'good'
/** Silent, unreadable, or never heard of. What is uncertain still watches. */
const isDead = ({ sample }: Point) => sample === null || sample.quality === 'bad'

/** `Map.groupBy`, which the oldest browsers at duty desks do not have. */
function grouped<T>(all: readonly T[], key: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const one of all) {
    const group = groups.get(key(one))
    if (group) group.push(one)
    else groups.set(key(one), [one])
  }
  return groups
}

/** Kinds of which people rely on a detector, and of which none in the place works. */
export function blindSpots(points: readonly Point[]): Blind[] {
  const relied = points.filter(({ alarm_point: relied }) => relied)
  return [...grouped(relied, ({ kind }) => kind)].flatMap(([kind, its]) => {
    const places = [...grouped(its, ({ place }) => place.zh).values()]
    const dead = places.filter((there) => there.every(isDead)).flatMap((there) => there.slice(0, 1))
    const isWhole = places.length > 1 && dead.length === places.length
    return (isWhole ? dead.slice(0, 1) : dead).map(({ place, title }) => ({ where: isWhole ? null : place, kind, title }))
  })
}

function stateOf({ alarms, blind, ill }: Pick<Cell, 'alarms' | 'blind' | 'ill'>): State {
  if (alarms.some((alarm) => !isSilenced(alarm))) return 'alarm'
  if (blind.length > 0) return 'blind'
  if (ill > 0) return 'ill'
  return alarms.length > 0 ? 'silenced' : 'well'
}

function levelOf(alarms: readonly Alarm[]): Level | null {
  const heard = alarms.filter((alarm) => !isSilenced(alarm))
  return LEVELS.find((level) => (heard.length > 0 ? heard : alarms).some((alarm) => alarm.level === level)) ?? null
}

/** What is in one place, by its points and alarms. */
export function cellOf(key: string, { place, points, alarms: all }: { place: Place; points: Point[]; alarms: Alarm[] }): Cell {
  const alarms = all.filter(({ drill }) => drill === null)
  const ill = points.filter((point) => !isGood(point)).length
  const blind = blindSpots(points)
  return {
    key,
    building: place.building,
    floor: place.floor,
    place,
    state: stateOf({ alarms, blind, ill }),
    level: levelOf(alarms),
    alarms,
    drills: all.length - alarms.length,
    points,
    ill,
    blind,
  }
}

export function planOf(points: readonly Point[], alarms: readonly Alarm[]): Building[] {
  const found = new Map<string, { place: Place; points: Point[]; alarms: Alarm[] }>()
  const at = (place: Place) => {
    const key = keyOf(place)
    const known = found.get(key) ?? { place, points: [], alarms: [] }
    found.set(key, known)
    return known
  }
  for (const point of points) at(point.place).points.push(point)
  // What is about anmin itself is nowhere in the site.
  for (const alarm of alarms) if (alarm.subject_type !== 'part') at(alarm.place).alarms.push(alarm)

  const cells = [...found].map(([key, of]) => cellOf(key, of))
  const buildings = grouped(cells, ({ building }) => building)
  return inOrder(buildings.keys()).map((building) => ({
    building,
    cells: buildings.get(building)!.sort((a, b) => rank(b.floor) - rank(a.floor) || byName(a.floor || a.key, b.floor || b.key)),
  }))
}
