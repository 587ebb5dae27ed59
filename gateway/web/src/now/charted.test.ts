import { expect, test } from 'vitest'
import type { Alarm, JournalRow } from '../api/wire'
import { alarm } from '../desk/made'
import { charted } from './charted'

const on = (id: string, point: string | null, change: Partial<Alarm> = {}): Alarm =>
  alarm(id, { ...change, reading: { ...alarm(id).reading, point } })

const row = (n: number, its: Alarm): JournalRow => ({
  n,
  transition: { at: its.changed_at, cause: 'returned', by: null, why: null, from: 'unacknowledged', to: 'normal', from_level: null, alarm: its },
})

test('open alarms come first, then what only the history knows, and no more charts than asked for', () => {
  const rows = [row(1, on('c', 'old/lel')), row(2, on('d', 'older/lel')), row(3, on('a', 'one/lel'))]
  const charts = charted([on('a', 'one/lel'), on('b', 'two/lel')], rows, 3)
  expect(charts.map(({ point }) => point)).toEqual(['one/lel', 'two/lel', 'old/lel'])
})

test('alarms of one point share its chart, with the limit and the moment of each', () => {
  const later = on('b', 'one/lel', { raised_at: '2026-01-31T14:05:00.000+08:00' })
  later.reading.limit = { name: 'yellow', value: 5 }
  const [chart, ...others] = charted([later, on('a', 'one/lel')], [], 3)
  expect(others).toEqual([])
  expect(chart?.alarm.id).toBe('b')
  expect(chart?.limits).toEqual([5, 20])
  expect(chart?.raised).toEqual([Date.parse('2026-01-31T14:02:11+08:00'), Date.parse('2026-01-31T14:05:00+08:00')])
})

test('what rests on no reading has no chart', () => {
  expect(charted([on('a', null)], [{ n: 1, damaged: 'hash' }], 3)).toEqual([])
})
