/**
 * What stands where on a drawing: each point and alarm at the spot that says most of it, and what has none beside it, so that
 * nothing is missing. Spots that would cover one another become one, under the worst of them.
 */

import { type Alarm, type Drawing, type DrawingMark, LEVELS, type Place, type Point } from '../api/wire'
import { type Cell, cellOf, planOf, STATES } from './plan'

/** A place that is drawn. */
export interface Spot extends Cell {
  mark: DrawingMark
}

export interface Drawn {
  /** The worst first. */
  spots: Spot[]
  /** What of the drawing's scope is at none of them, floor by floor, the worst first. */
  rest: Cell[]
}

/** An address of the plan that names a drawing begins so. */
const AT = '@'

/** The drawing that an address names, and what is chosen on it; `null`: it names none. */
export function named(chosen: string | null): { id: string; spot: string | null } | null {
  if (chosen === null || !chosen.startsWith(AT)) return null
  const slash = chosen.indexOf('/')
  if (slash < 0) return { id: chosen.slice(1), spot: null }
  return { id: chosen.slice(1, slash), spot: chosen }
}

export const drawingKey = ({ id }: Drawing): string => `${AT}${id}`

export function spotKey(drawing: Drawing, { area, unit, floor, room, device, point }: DrawingMark): string {
  return `${drawingKey(drawing)}/${point || device || [area, unit, floor, room].join('/')}`
}

/** Whether a place is on the drawing, as far as that says of what it is. */
export function isOf({ building, floor }: Drawing, place: Place): boolean {
  return (building === null || building === place.building) && (floor === null || floor === place.floor)
}

const isPlace = ({ device, point }: DrawingMark) => device === '' && point === ''

function takes(mark: DrawingMark, place: Place): boolean {
  return (['area', 'unit', 'floor', 'room'] as const).every((part) => mark[part] === '' || mark[part] === place[part])
}

/** How closely a spot says where it is, a room closer than a floor: of two that fit the closer one is meant. */
const says = ({ area, unit, floor, room }: DrawingMark) => [area, unit, floor, room].reduce((sum, part, n) => sum + (part === '' ? 0 : 2 ** n), 0)

/** Finds the spot of a point or alarm, and remembers what it found for a place. */
function finder(drawing: Drawing): (place: Place, id: string | null) => DrawingMark | undefined {
  const points = new Map(drawing.marks.filter(({ point }) => point !== '').map((mark) => [mark.point, mark]))
  const devices = new Map(drawing.marks.filter(({ device }) => device !== '').map((mark) => [mark.device, mark]))
  const places = drawing.marks.filter(isPlace).sort((a, b) => says(b) - says(a))
  const known = new Map<string, DrawingMark | undefined>()
  return (place, id) => {
    const own = id === null ? undefined : (points.get(id) ?? devices.get(id.split('/')[0]!))
    if (own) return own
    const key = [place.area, place.building, place.unit, place.floor, place.room].join('\n')
    if (!known.has(key)) known.set(key, places.find((mark) => takes(mark, place)))
    return known.get(key)
  }
}

/** The gravest state first, and of alarms the gravest level. */
export function byWorst(a: Cell, b: Cell): number {
  const rank = ({ state, level }: Cell) => STATES.indexOf(state) * 10 + (level === null ? LEVELS.length : LEVELS.indexOf(level))
  return rank(a) - rank(b)
}

export function drawnOf(drawing: Drawing, points: readonly Point[], alarms: readonly Alarm[]): Drawn {
  const find = finder(drawing)
  const found = new Map(drawing.marks.map((mark) => [mark, { points: [] as Point[], alarms: [] as Alarm[] }]))
  const rest = { points: [] as Point[], alarms: [] as Alarm[] }
  for (const point of points) {
    if (!isOf(drawing, point.place)) continue
    const mark = find(point.place, point.id)
    ;(mark ? found.get(mark)! : rest).points.push(point)
  }
  for (const alarm of alarms) {
    if (alarm.subject_type === 'part' || !isOf(drawing, alarm.place)) continue
    const mark = find(alarm.place, alarm.subject)
    ;(mark ? found.get(mark)! : rest).alarms.push(alarm)
  }
  const spots = [...found].map(([mark, of]): Spot => {
    const { name, area, building, unit, floor, room } = mark
    const place: Place = { ...name, area, grid: '', building, unit, floor: floor || (drawing.floor ?? ''), room, position: null }
    return { ...cellOf(spotKey(drawing, mark), { place, ...of }), mark }
  })
  return {
    spots: spots.sort(byWorst),
    rest: planOf(rest.points, rest.alarms)
      .flatMap(({ cells }) => cells)
      .sort(byWorst),
  }
}

/** Spots that are shown as one. */
export interface Cluster {
  /** The worst first: it stands where that one does. */
  spots: [Spot, ...Spot[]]
  x: number
  y: number
}

/**
 * Puts together what would cover one another: nearer than `wide` from left to right and `high` from top to bottom, in pixels.
 * `spots` the worst first: no grave one is moved to where a lesser one stands.
 */
export function clustered(spots: readonly Spot[], where: (spot: Spot) => { x: number; y: number }, wide: number, high: number): Cluster[] {
  const found: Cluster[] = []
  // By squares of that size: what is near stands in the same or in the next one.
  const squares = new Map<string, Cluster[]>()
  for (const spot of spots) {
    const { x, y } = where(spot)
    const [column, row] = [Math.floor(x / wide), Math.floor(y / high)]
    let near: Cluster | undefined
    for (const dx of [0, -1, 1]) {
      for (const dy of [0, -1, 1]) {
        near ??= squares.get(`${column + dx} ${row + dy}`)?.find((one) => Math.abs(one.x - x) < wide && Math.abs(one.y - y) < high)
      }
    }
    if (near) {
      near.spots.push(spot)
      continue
    }
    const cluster: Cluster = { spots: [spot], x, y }
    found.push(cluster)
    const square = squares.get(`${column} ${row}`)
    if (square) square.push(cluster)
    else squares.set(`${column} ${row}`, [cluster])
  }
  return found
}

/** The drawing that shows best where something is: the smallest on which it has a spot. */
export function bestOf(drawings: readonly Drawing[], place: Place, ids: readonly string[]): { drawing: Drawing; mark: DrawingMark } | null {
  const size = ({ building, floor }: Drawing) => Number(building === null) + Number(floor === null)
  const fitting = drawings.filter((drawing) => isOf(drawing, place)).sort((a, b) => size(a) - size(b))
  for (const drawing of fitting) {
    const find = finder(drawing)
    const mark = ids.map((id) => find(place, id)).find((mark) => mark !== undefined) ?? find(place, null)
    if (mark) return { drawing, mark }
  }
  return null
}

/** Those of a building, or of a floor of it where one is named. */
export function drawingsOf(drawings: readonly Drawing[], building: string, floor: string): Drawing[] {
  return drawings.filter((drawing) => drawing.building === building && (floor === '' || drawing.floor === null || drawing.floor === floor))
}
