import { expect, test } from 'vitest'
import type { Alarm, Place, Point, Quality } from '../api/wire'
import { alarm, PLACE } from '../desk/made'
import { blindSpots, buildingOf, inOrder, keyOf, planOf } from './plan'

function place(building: string, floor: string, room = '', area = ''): Place {
  const words = [building, floor, room, area].join(' ')
  return { ...PLACE, zh: words, en: words, building, floor, room, area }
}

function point(id: string, at: Place, quality: Quality | null = 'good', change: Partial<Point> = {}): Point {
  const time = '2026-01-31T14:02:11.000+08:00'
  return {
    id,
    device: id,
    label: { zh: id, en: id },
    kind: 'gas.lel',
    hazard: 'gas',
    title: { zh: '可燃气体浓度', en: 'combustible gas' },
    unit: '%LEL',
    alarm_point: true,
    place: at,
    sample: quality && { value: 1, quality, reason: '', time, source_time: null, received: time, sequence: null, news: true },
    ...change,
  }
}

const alarmAt = (id: string, at: Place, change: Partial<Alarm> = {}): Alarm => alarm(id, { place: at, ...change })
const cells = (points: Point[], alarms: Alarm[] = []) => planOf(points, alarms).flatMap(({ cells }) => cells)
const cellOf = (points: Point[], alarms: Alarm[] = []) => cells(points, alarms)[0]!

test('buildings are in the order in which people count, and the top floor stands on top', () => {
  const floors = ['2', '', 'B1', '10', '屋顶', '1', '-2'].map((floor) => point(floor, place('3', floor)))
  expect(cells(floors).map(({ floor }) => floor)).toEqual(['屋顶', '10', '2', '1', 'B1', '-2', ''])
  expect(inOrder(['10', '', '2', '物业楼', '2'])).toEqual(['2', '10', '物业楼', ''])
})

test('what is in no building has a place of its own, and what is about anmin itself none', () => {
  const plan = planOf(
    [point('a', place('', '', '', 'pump-house')), point('b', place('', '', '', 'gate')), point('c', place('1', '1'))],
    [alarmAt('x', place('', ''), { subject_type: 'part' })],
  )
  expect(plan.map(({ building, cells }) => [building, cells.map(({ key }) => key)])).toEqual([
    ['1', ['1/1']],
    ['', ['/gate', '/pump-house']],
  ])
  expect(buildingOf(keyOf(place('1', '')))).toBe('1')
  expect(buildingOf(keyOf(place('', '', '', 'gate')))).toBe('')
})

test('an alarm is worse than a blind spot, that than a bad point, and that than what was silenced', () => {
  const at = place('1', '1')
  const spare = point('spare', at)
  const bad = point('bad', at, 'bad')
  const shelved = alarmAt('s', at, { state: 'shelved', level: 'red' })
  const blue = alarmAt('b', at, { level: 'blue' })
  const cases = [
    [[point('a', at)], [], 'well', null],
    [[point('a', at)], [shelved], 'silenced', 'red'],
    [[spare, bad], [shelved], 'ill', 'red'],
    [[bad], [shelved], 'blind', 'red'],
    [[bad], [shelved, blue], 'alarm', 'blue'],
    [[], [blue], 'alarm', 'blue'],
  ] as const
  for (const [points, alarms, state, level] of cases) {
    const cell = cellOf([...points], [...alarms])
    expect([cell.state, cell.level], state).toEqual([state, level])
  }
})

test('a drill raises nothing here but is counted', () => {
  const at = place('1', '1')
  const { state, level, drills, alarms } = cellOf([point('a', at)], [alarmAt('d', at, { drill: 'd-1' })])
  expect({ state, level, drills, alarms }).toEqual({ state: 'well', level: null, drills: 1, alarms: [] })
})

test('a place is blind where no detector of a kind works, and only there', () => {
  const [one, two] = [place('1', '5', '501'), place('1', '5', '502')]
  const where = (points: Point[]) => blindSpots(points).map(({ where, kind }) => `${kind} ${where?.room ?? 'whole'}`)
  expect(where([point('a', one, 'bad'), point('b', two)]), 'one room').toEqual(['gas.lel 501'])
  expect(where([point('a', one, 'bad'), point('b', one)]), 'another detector in the room works').toEqual([])
  expect(where([point('a', one, 'uncertain'), point('b', two, null)]), 'what is uncertain still watches').toEqual(['gas.lel 502'])
  expect(where([point('a', one, null), point('b', two, 'bad')]), 'the whole floor').toEqual(['gas.lel whole'])
  expect(where([point('a', one, 'bad')]), 'the only room').toEqual(['gas.lel 501'])
  expect(where([point('a', one, 'bad', { alarm_point: false })]), 'nobody relies on it').toEqual([])
  const smoke = point('s', one, 'good', { kind: 'fire.smoke' })
  expect(where([point('a', one, 'bad'), smoke]), 'another kind works').toEqual(['gas.lel 501'])
})

test('points that are not good are counted, those never heard of included', () => {
  const at = place('1', '1')
  const points = [point('a', at), point('b', at, 'uncertain'), point('c', at, 'bad'), point('d', at, null)]
  expect(cellOf(points).ill).toBe(3)
})
