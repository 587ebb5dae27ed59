import { expect, test } from 'vitest'
import { alarm } from './made'
import { Bell } from './ring'

test('only orange and red alarms that nobody has acknowledged are heard, red first', () => {
  const bell = new Bell()
  expect(bell.loudest([])).toBe(null)
  expect(bell.loudest([alarm('a', { level: 'yellow' }), alarm('b', { state: 'acknowledged' })])).toBe(null)
  expect(bell.loudest([alarm('a', { level: 'orange' })])).toBe('orange')
  expect(bell.loudest([alarm('a', { level: 'orange' }), alarm('b')])).toBe('red')
  expect(bell.loudest([alarm('a', { state: 'shelved' })])).toBe(null)
})

test('a call for help is heard whatever its level', () => {
  const bell = new Bell()
  const call = alarm('a', { level: 'yellow', rule: 'system/help', subject: 'help:r-1' })
  expect(bell.loudest([call])).toBe('orange')
  expect(bell.loudest([{ ...call, state: 'acknowledged' }])).toBe(null)
  bell.hush([call])
  expect(bell.loudest([call, alarm('b', { level: 'yellow', rule: 'system/help' })]), 'the next one').toBe('orange')
})

test('hushing silences what rings and nothing that comes later', () => {
  const bell = new Bell()
  const first = alarm('a', { level: 'orange' })
  bell.hush([first])
  expect(bell.loudest([first])).toBe(null)
  expect(bell.loudest([first, alarm('b')]), 'a new one').toBe('red')
  expect(bell.loudest([{ ...first, level: 'red' }]), 'it became graver').toBe('red')
  bell.hush([first])
  expect(bell.loudest([{ ...first, state: 'returned_unacknowledged' }])).toBe(null)
  expect(bell.loudest([first]), 'it came back').toBe('orange')
})
