import { expect, test } from 'vitest'
import type { Alarm, Drawing, DrawingMark, Place, Point, Quality } from '../api/wire'
import { alarm, PLACE } from '../desk/made'
import { bestOf, clustered, drawingsOf, drawnOf, named, type Spot, spotKey } from './drawing'

const MARK: DrawingMark = { name: { zh: '处', en: 'spot' }, at: [0, 0], area: '', building: '', unit: '', floor: '', room: '', device: '', point: '' }
const mark = (change: Partial<DrawingMark>): DrawingMark => ({ ...MARK, ...change })
const drawing = (id: string, marks: DrawingMark[], change: Partial<Drawing> = {}): Drawing => ({
  id,
  name: { zh: id, en: id },
  building: null,
  floor: null,
  form: 'image',
  file: `/drawings/${id}/image`,
  width: 100,
  height: 50,
  marks,
  ...change,
})

function place(building: string, floor: string, room = '', area = `b${building}`): Place {
  const words = [building, floor, room, area].join(' ')
  return { ...PLACE, zh: words, en: words, building, floor, room, area }
}

function point(id: string, at: Place, quality: Quality | null = 'good'): Point {
  const time = '2026-01-31T14:02:11.000+08:00'
  return {
    id,
    device: id.split('/')[0]!,
    label: { zh: id, en: id },
    kind: 'gas.lel',
    hazard: 'gas',
    title: { zh: '可燃气体浓度', en: 'combustible gas' },
    unit: '%LEL',
    alarm_point: true,
    place: at,
    sample: quality && { value: 1, quality, reason: '', time, source_time: null, received: time, sequence: null, news: true },
  }
}
const alarmAt = (id: string, at: Place, subject: string, change: Partial<Alarm> = {}): Alarm => alarm(id, { place: at, subject, ...change })

test('an address of the plan names a drawing, a spot on it, or neither', () => {
  expect(named(null)).toBe(null)
  expect(named('3/1')).toBe(null)
  expect(named('/gate')).toBe(null)
  expect(named('@site')).toEqual({ id: 'site', spot: null })
  const spot = spotKey(drawing('site', []), mark({ point: 'panel/ch3' }))
  expect(named(spot)).toEqual({ id: 'site', spot })
})

test('what is there is at the spot that says most of it, and what has none is listed', () => {
  const marks = [mark({ area: 'b3' }), mark({ room: '101' }), mark({ device: 'hall' }), mark({ point: 'panel/ch3' })]
  const floor = drawing('f', marks, { building: '3', floor: '1' })
  const at = (room: string) => place('3', '1', room)
  const points = [
    point('a/lel', at('101')),
    point('hall/lel', at('101')),
    point('panel/ch3', at('101')),
    point('panel/ch4', at('101')),
    point('b/lel', at('102')),
    point('far/lel', place('3', '2', '101')),
    point('other/lel', place('4', '1', '101')),
  ]
  const { spots, rest } = drawnOf(floor, points, [])
  const held = new Map(spots.map(({ key, points }) => [key, points.map(({ id }) => id)]))
  expect([...held.entries()].sort()).toEqual([
    ['@f////101', ['a/lel', 'panel/ch4']],
    ['@f/b3///', ['b/lel']],
    ['@f/hall', ['hall/lel']],
    ['@f/panel/ch3', ['panel/ch3']],
  ])
  expect(rest).toEqual([])
  const bare = drawnOf({ ...floor, marks: marks.slice(1, 2) }, points, [alarmAt('x', at('102'), 'b/lel')])
  expect(bare.rest.map(({ key, state, points }) => [key, state, points.length]), 'an alarm that is not drawn is not lost').toEqual([['3/1', 'alarm', 1]])
  expect(bare.spots[0]?.points.length).toBe(4)
})

test('an alarm changes its spot at once, the worst spot stands first, and what is about anmin is nowhere', () => {
  const map = drawing('site', ['b1', 'b2', 'b3'].map((area) => mark({ area })), { form: 'map' })
  const points = [point('a/lel', place('1', '1')), point('b/lel', place('2', '1'), 'bad'), point('c/lel', place('3', '1'))]
  const states = (alarms: Alarm[]) => drawnOf(map, points, alarms).spots.map(({ mark, state, level }) => [mark.area, state, level])
  expect(states([])).toEqual([['b2', 'blind', null], ['b1', 'well', null], ['b3', 'well', null]])
  const alarms = [
    alarmAt('x', place('3', '1'), 'c/lel', { level: 'orange' }),
    alarmAt('y', place('1', '1'), 'a/lel', { level: 'red' }),
    alarmAt('z', place('2', '1'), 'b/lel', { subject_type: 'part', level: 'red' }),
  ]
  expect(states(alarms)).toEqual([['b1', 'alarm', 'red'], ['b3', 'alarm', 'orange'], ['b2', 'blind', null]])
})

test('what would be covered is put together under the worst, which stays where it is', () => {
  const spot = (key: string): Spot => ({ key, mark: mark({}) }) as unknown as Spot
  const at = new Map([['red', [100, 100]], ['near', [60, 110]], ['left of it', [30, 100]], ['below', [100, 161]], ['edge', [1, 1]]])
  const where = ({ key }: Spot) => ({ x: at.get(key)![0]!, y: at.get(key)![1]! })
  const found = clustered([...at.keys()].map(spot), where, 60, 60)
  expect(found.map(({ spots, x, y }) => [spots.map(({ key }) => key), x, y])).toEqual([
    [['red', 'near'], 100, 100],
    [['left of it'], 30, 100],
    [['below'], 100, 161],
    [['edge'], 1, 1],
  ])
})

test('five thousand places are put together in an eye-blink', () => {
  const spots = Array.from({ length: 5_000 }, (_, n) => ({ key: String(n), mark: mark({}) }) as unknown as Spot)
  const began = performance.now()
  const found = clustered(spots, ({ key }) => ({ x: (Number(key) % 100) * 6, y: Math.floor(Number(key) / 100) * 8 }), 104, 58)
  expect(found.length).toBeLessThan(80)
  expect(found.reduce((sum, { spots }) => sum + spots.length, 0)).toBe(5_000)
  expect(performance.now() - began).toBeLessThan(1_000)
})

test('an incident is shown on the smallest drawing that has a spot for it', () => {
  const site = drawing('site', [mark({ area: 'b3' })], { form: 'map' })
  const house = drawing('b3', [mark({ floor: '2' })], { building: '3' })
  const floor = drawing('b3-f1', [mark({ room: '101' }), mark({ device: 'hall' })], { building: '3', floor: '1' })
  const all = [site, house, floor]
  const best = (at: Place, id = 'x/lel') => bestOf(all, at, [id])?.drawing.id ?? null
  expect(best(place('3', '1', '101'))).toBe('b3-f1')
  expect(best(place('3', '1', '大厅'), 'hall/lel')).toBe('b3-f1')
  expect(best(place('3', '1', '102')), 'no spot on its floor').toBe('site')
  expect(best(place('3', '2'))).toBe('b3')
  expect(best(place('4', '1'))).toBe(null)
  expect(drawingsOf(all, '3', '1').map(({ id }) => id)).toEqual(['b3', 'b3-f1'])
  expect(drawingsOf(all, '3', '2').map(({ id }) => id)).toEqual(['b3'])
  expect(drawingsOf(all, '3', '').map(({ id }) => id)).toEqual(['b3', 'b3-f1'])
})
