import { describe, expect, test } from 'vitest'
import type { Alarm, AlarmState, Level } from '../api/wire'
import { AlarmBook, byGravity, countByBuilding, countByLevel, isArrival, passes } from './book'
import { alarm, call, PLACE } from './made'

describe('the book', () => {
  test('takes each piece of news once, in whatever order it comes', () => {
    const book = new AlarmBook()
    expect(book.take(alarm('a'))).toBe(true)
    expect(book.take(alarm('a', { seq: 3, state: 'acknowledged' }))).toBe(true)
    expect(book.take(alarm('a', { seq: 3, state: 'acknowledged' }))).toBe(false)
    expect(book.take(alarm('a', { seq: 2 }))).toBe(false)
    expect(book.get('a')?.state).toBe('acknowledged')
  })

  test('a closed alarm leaves with its calls and late news do not bring it back', () => {
    const book = new AlarmBook()
    book.take(alarm('a'))
    book.takeCall(call('a'))
    book.take(alarm('a', { seq: 5, state: 'normal', open: false }))
    expect(book.take(alarm('a', { seq: 4 }))).toBe(false)
    book.takeCall(call('a', { seq: 2 }))
    expect([book.size, book.calls('a')]).toEqual([0, []])
  })

  test('an answer that says the alarm is closed closes it', () => {
    const book = new AlarmBook()
    book.take(alarm('a'))
    book.takeView('a', { alarm: null, calls: [] })
    expect(book.take(alarm('a', { seq: 2 }))).toBe(false)
    expect(book.size).toBe(0)
  })

  test('the list replaces everything, but never by something older', () => {
    const book = new AlarmBook()
    book.take(alarm('gone'))
    book.take(alarm('newer', { seq: 4 }))
    book.takeCall(call('gone'))
    book.replace({ alarms: [alarm('newer', { seq: 3 }), alarm('other')], calls: [call('other')] })
    expect(book.all().map(({ id, seq }) => [id, seq])).toEqual([['newer', 4], ['other', 1]])
    expect([book.calls('gone').length, book.calls('other').length]).toEqual([0, 1])
  })

  test('each station has one call, the newest', () => {
    const book = new AlarmBook()
    book.take(alarm('a'))
    book.takeCall(call('a', { seq: 2, state: 'accepted' }))
    book.takeCall(call('a', { seq: 1 }))
    book.takeCall(call('a', { station: 'st-2' }))
    expect(book.calls('a').map(({ station, state }) => [station, state])).toEqual([
      ['st-1', 'accepted'],
      ['st-2', 'called'],
    ])
  })
})

test('the gravest stands on top, what nobody has seen before what is known, the first before the later', () => {
  const wanted: [string, Level, AlarmState][] = [
    ['02', 'red', 'unacknowledged'],
    ['07', 'red', 'unacknowledged'],
    ['01', 'red', 'returned_unacknowledged'],
    ['00', 'red', 'acknowledged'],
    ['03', 'red', 'latched'],
    ['06', 'orange', 'unacknowledged'],
    ['05', 'blue', 'unacknowledged'],
    ['04', 'red', 'shelved'],
    ['08', 'yellow', 'out_of_service'],
  ]
  const alarms = wanted.map(([id, level, state]) => alarm(id, { level, state }))
  const mixed = [...alarms].sort((a, b) => a.id.localeCompare(b.id))
  expect(mixed.sort(byGravity)).toEqual(alarms)
})

test('an alarm is told when it arrives, comes back or becomes graver, and only then', () => {
  const cases: [Partial<Alarm> | null, Partial<Alarm>, boolean][] = [
    [null, {}, true],
    [null, { state: 'acknowledged' }, false],
    [{}, { seq: 2 }, false],
    [{ level: 'orange' }, { level: 'red' }, true],
    [{ level: 'red' }, { level: 'orange' }, false],
    [{ state: 'acknowledged' }, {}, true],
    [{ state: 'shelved' }, {}, true],
    [{ state: 'returned_unacknowledged' }, {}, true],
    [{}, { state: 'returned_unacknowledged' }, false],
    [{ level: 'orange' }, { level: 'red', state: 'shelved' }, false],
  ]
  for (const [before, after, told] of cases) {
    const arrival = isArrival(before ? alarm('a', before) : undefined, alarm('a', after))
    expect(arrival, JSON.stringify([before, after])).toBe(told)
  }
})

test('filters take what they say', () => {
  const due = { which: 'due', level: null, building: '' } as const
  const states: [AlarmState, boolean, boolean][] = [
    ['unacknowledged', true, false],
    ['acknowledged', false, false],
    ['returned_unacknowledged', true, false],
    ['latched', true, false],
    ['shelved', false, true],
    ['suppressed', false, true],
    ['out_of_service', false, true],
  ]
  for (const [state, isDue, isSilenced] of states) {
    expect(passes(due, alarm('a', { state })), state).toBe(isDue)
    expect(passes({ ...due, which: 'silenced' }, alarm('a', { state })), state).toBe(isSilenced)
    expect(passes({ ...due, which: 'all' }, alarm('a', { state })), state).toBe(true)
  }
  expect(passes({ which: 'all', level: 'blue', building: '' }, alarm('a'))).toBe(false)
  expect(passes({ which: 'all', level: 'red', building: '3' }, alarm('a'))).toBe(true)
  expect(passes({ which: 'all', level: 'red', building: '1' }, alarm('a'))).toBe(false)
})

test('counts leave out what is silenced, buildings are sorted as people count', () => {
  const at = (building: string) => ({ ...PLACE, building })
  const alarms = [
    alarm('a'),
    alarm('b', { state: 'shelved' }),
    alarm('c', { level: 'blue', place: at('10') }),
    alarm('d', { place: at('9') }),
    alarm('e', { place: at('') }),
  ]
  expect(countByLevel(alarms)).toEqual({ red: 3, orange: 0, yellow: 0, blue: 1 })
  expect(countByBuilding(alarms).map(({ building, count }) => `${building}:${count}`)).toEqual(['3:2', '9:1', '10:1'])
})
