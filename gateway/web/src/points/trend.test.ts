import { expect, test } from 'vitest'
import type { Bucket } from '../api/wire'
import { type Frame, trend, valueMarks } from './trend'

const START = Date.parse('2026-01-31T14:00:00+08:00')
const MINUTE = 60_000
const FRAME: Frame = { from: START, to: START + 60 * MINUTE, stretches: 60, width: 600, height: 100, offset: 480, limits: [], moments: [] }

function bucket(minute: number, mean: number | null, change: Partial<Bucket> = {}): Bucket {
  const at = new Date(START + minute * MINUTE).toISOString()
  return { at, count: mean === null ? 0 : 1, bad: 0, min: mean, max: mean, mean, ...change }
}

test('the line breaks where nothing was measured, and only there', () => {
  const moves = (minutes: number[]) => {
    const { line, dots } = trend(minutes.map((minute) => bucket(minute, minute)), FRAME)
    return [line.split('M').length - 1, dots.length]
  }
  expect(moves([0, 1, 2, 3]), 'no gap').toEqual([1, 0])
  expect(moves([0, 5, 10, 15, 20]), 'a device that speaks every five minutes').toEqual([1, 0])
  expect(moves([0, 1, 2, 30, 31, 32]), 'half an hour of silence').toEqual([2, 0])
  expect(moves([0, 1, 2, 30, 50, 51]), 'one value alone').toEqual([2, 1])
  expect(moves([7]), 'one value in all').toEqual([0, 1])
  expect(moves([]), 'none').toEqual([0, 0])
})

test('values lie where they should', () => {
  const { spots, line } = trend([bucket(0, 0), bucket(30, 10), bucket(60, 20)], { ...FRAME, limits: [25] })
  expect(spots.map(({ x }) => x)).toEqual([0, 300, 600])
  expect(line).toBe('M0 100L300 63L600 25.9')
})

test('limits are always inside, a flat line stands in the middle, nothing measured still has axes', () => {
  const flat = trend([bucket(0, 5), bucket(1, 5)], FRAME)
  expect(flat.spots[0]?.y).toBe(50)
  const limited = trend([bucket(0, 5), bucket(1, 5)], { ...FRAME, limits: [20, 50] })
  for (const { y } of limited.limits) expect(y).toBeGreaterThan(0)
  expect(trend([], FRAME).yMarks.length).toBeGreaterThan(1)
})

test('stretches of only unusable readings are shown', () => {
  const { bad, line } = trend([bucket(0, 1), bucket(1, 1), bucket(2, null, { bad: 4 }), bucket(3, 1, { bad: 1 })], FRAME)
  expect(bad).toEqual([{ x: 20, width: 10 }])
  expect(line.split('M').length - 1).toBe(1)
})

test('marks are round and few', () => {
  expect(valueMarks(0, 10, 4)).toEqual([0, 5, 10])
  expect(valueMarks(-0.3, 0.31, 4)).toEqual([-0.2, 0, 0.2])
  expect(valueMarks(219.2, 236, 3)).toEqual([220, 230])
  expect(trend([], FRAME).xMarks.map(({ text }) => text)).toEqual([
    '14:00', '14:10', '14:20', '14:30', '14:40', '14:50', '15:00',
  ])
  const month = { ...FRAME, from: START - 30 * 1_440 * MINUTE }
  expect(trend([], month).xMarks[0]?.text).toMatch(/^01-\d\d$/)
  const seconds = { ...FRAME, from: START, to: START + 10_000 }
  expect(trend([], seconds).xMarks.map(({ text }) => text)).toEqual([
    '14:00:00', '14:00:02', '14:00:04', '14:00:06', '14:00:08', '14:00:10',
  ])
})

test('a moment is marked where it lies, and not at all where it lies outside', () => {
  const moments = [0, 30, 61].map((minute) => ({ at: START + minute * MINUTE, text: `${minute}` }))
  expect(trend([], { ...FRAME, moments }).moments).toEqual([
    { x: 0, text: '0' },
    { x: 300, text: '30' },
  ])
})
