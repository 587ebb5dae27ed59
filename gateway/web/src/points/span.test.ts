import { expect, test } from 'vitest'
import { chosen, LONGEST_MS, SHORTEST_MS, spanOf, stepped, zoomed } from './span'

const NOW = Date.parse('2026-01-31T14:00:00+08:00')
const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

test('what the last hour is moves on with the clock', () => {
  expect(spanOf({ last: HOUR }, NOW)).toEqual({ from: NOW - HOUR, to: NOW })
  expect(spanOf({ last: HOUR }, NOW + MINUTE)).toEqual({ from: NOW - HOUR + MINUTE, to: NOW + MINUTE })
})

test('around what happened some time before and after is shown', () => {
  const cases: [string, number, number | null, number, number][] = [
    ['it has just begun', 1 * MINUTE, null, 11 * MINUTE, 0],
    ['it goes on for ten hours', 10 * HOUR, null, 11 * HOUR, 0],
    ['a minute, three days ago', 3 * DAY, 3 * DAY - MINUTE, 3 * DAY + 10 * MINUTE, 3 * DAY - 11 * MINUTE],
    ['a minute, just over', 2 * MINUTE, 1 * MINUTE, 12 * MINUTE, 0],
    ['it went on for twenty days', 22 * DAY, 2 * DAY, 23 * DAY, 1 * DAY],
    ['it goes on for a year', 365 * DAY, null, 30 * DAY, 0],
  ]
  for (const [what, began, over, from, to] of cases) {
    const span = spanOf({ began: NOW - began, over: over === null ? null : NOW - over }, NOW)
    expect({ from: NOW - span.from, to: NOW - span.to }, what).toEqual({ from, to })
  }
})

test('zooming keeps what is pointed at where it is, between seconds and thirty days', () => {
  const span = { from: NOW - 4 * HOUR, to: NOW - 2 * HOUR }
  expect(zoomed(span, 0.5, NOW - 3 * HOUR, NOW)).toEqual({ from: NOW - 3.5 * HOUR, to: NOW - 2.5 * HOUR })
  expect(zoomed(span, 0.5, span.from, NOW)).toEqual({ from: span.from, to: NOW - 3 * HOUR })
  expect(zoomed({ from: NOW - 15_000, to: NOW - 1_000 }, 0.5, NOW - 8_000, NOW), 'no less than seconds').toEqual({
    from: NOW - 13_000,
    to: NOW - 13_000 + SHORTEST_MS,
  })
  expect(zoomed({ from: NOW - 20 * DAY, to: NOW }, 2, NOW - 10 * DAY, NOW), 'no more than a month').toEqual({ last: LONGEST_MS })
})

test('whoever zooms out or steps beyond now is at now again', () => {
  const span = { from: NOW - 2 * HOUR, to: NOW - HOUR }
  expect(zoomed(span, 4, NOW - HOUR, NOW)).toEqual({ from: NOW - 5 * HOUR, to: NOW - HOUR })
  expect(zoomed(span, 8, NOW - 1.5 * HOUR, NOW)).toEqual({ last: 8 * HOUR })
  expect(stepped(span, -1, NOW)).toEqual({ from: NOW - 2.5 * HOUR, to: NOW - 1.5 * HOUR })
  expect(stepped(span, 1, NOW)).toEqual({ from: NOW - 1.5 * HOUR, to: NOW - 0.5 * HOUR })
  expect(stepped({ from: NOW - 1.5 * HOUR, to: NOW - 0.5 * HOUR }, 1, NOW)).toEqual({ last: HOUR })
})

test('what is drawn with the pointer is shown, from left to right and from right to left', () => {
  const wanted = { from: NOW - 50 * MINUTE, to: NOW - 40 * MINUTE }
  expect(chosen(wanted.from, wanted.to, NOW)).toEqual(wanted)
  expect(chosen(wanted.to, wanted.from, NOW)).toEqual(wanted)
  expect(chosen(NOW - MINUTE, NOW - MINUTE, NOW), 'a point').toEqual({ from: NOW - 65_000, to: NOW - 55_000 })
})
