import { expect, test } from 'vitest'
import type { Level } from '../api/wire'
import { areaOf, byArea, isIll, type Trouble } from './parts'

const trouble = (part: string, level: Level = 'yellow'): Trouble => ({ part, level, message: { zh: '', en: '' } })

test('each trouble stands where a reading would meet it on its way', () => {
  const cases = [
    ['mqtt:site', 'sources'],
    ['unit:bus-a/7', 'sources'],
    ['clock', 'judging'],
    ['self-test', 'judging'],
    ['store:reserve', 'storage'],
    ['way-out:office', 'ways_out'],
    ['subscriber:office', 'ways_out'],
    ['drill:building-3', 'others'],
    ['what nobody knows yet', 'others'],
  ] as const
  for (const [part, area] of cases) expect(areaOf(part), part).toBe(area)
})

test('no trouble is left out, and the gravest stays first', () => {
  const troubles = [trouble('mqtt:site', 'red'), trouble('new:thing'), trouble('bus:a')]
  const found = byArea(troubles)
  expect(found.sources.map(({ part }) => part)).toEqual(['mqtt:site', 'bus:a'])
  expect(Object.values(found).flat()).toHaveLength(troubles.length)
  expect(found.ways_out).toEqual([])
})

test('a way out is ill by its own name and by no other that begins like it', () => {
  expect(isIll([trouble('way-out:office')], 'office')).toBe(true)
  expect(isIll([trouble('way-out:office-2'), trouble('mqtt:office')], 'office')).toBe(false)
})
