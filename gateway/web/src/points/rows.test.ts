import { expect, test } from 'vitest'
import type { Point, Sample } from '../api/wire'
import { PLACE } from '../desk/made'
import { withChanges } from './rows'

const sample = (value: number): Sample => ({
  value,
  quality: 'good',
  reason: '',
  time: '2026-01-31T14:02:11.000+08:00',
  source_time: null,
  received: '2026-01-31T14:02:11.000+08:00',
  sequence: null,
  news: true,
})

const row = (id: string): Point => ({
  id,
  device: id,
  label: { zh: id, en: id },
  kind: 'gas.lel',
  hazard: 'gas',
  title: { zh: '可燃气体浓度', en: 'combustible gas' },
  unit: '%LEL',
  alarm_point: true,
  place: PLACE,
  sample: null,
})

test('a changed point changes its own row and no other', () => {
  const rows = [row('a/lel'), row('b/lel')]
  const after = withChanges(rows, { points: [{ id: 'b/lel', sample: sample(3) }, { id: 'c/lel', sample: sample(4) }], truncated: false })
  expect(after[0]).toBe(rows[0])
  expect(after[1]?.sample?.value).toBe(3)
  expect(after).toHaveLength(2)
})
