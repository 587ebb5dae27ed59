import { describe, expect, test } from 'vitest'
import type { Incident } from '../api/wire'
import { gather, IncidentBook, levelOf, whereOf } from './incidents'
import { alarm, PLACE } from './made'

function incident(id: string, more: Partial<Incident> = {}): Incident {
  return {
    id,
    seq: 1,
    state: 'standing',
    title: { zh: '燃气泄漏', en: 'Gas leak' },
    place: PLACE,
    drill: null,
    hazards: ['gas'],
    peak: 'red',
    storm: false,
    alarms: 1,
    opened_at: '2026-01-01T08:00:00.000+08:00',
    changed_at: '2026-01-01T08:00:00.000+08:00',
    settled_at: null,
    closes_at: null,
    notes: [],
    checklist: [],
    called_119: null,
    end: null,
    ...more,
  }
}

describe('the book of incidents', () => {
  test('takes each piece of news once, and late ones do not bring back what is closed', () => {
    const book = new IncidentBook()
    book.take(incident('a', { seq: 2 }))
    book.take(incident('a', { seq: 1, storm: true }))
    expect(book.get('a')?.storm).toBe(false)
    book.take(incident('a', { seq: 4, state: 'closed' }))
    book.take(incident('a', { seq: 3 }))
    expect(book.all()).toEqual([])
  })

  test('the list replaces everything, but never by something older', () => {
    const book = new IncidentBook()
    book.take(incident('gone'))
    book.take(incident('newer', { seq: 3 }))
    book.replace([incident('newer', { seq: 2 }), incident('other')])
    expect(book.all().map(({ id, seq }) => [id, seq])).toEqual([
      ['newer', 3],
      ['other', 1],
    ])
  })
})

test('alarms are gathered by their incident, the gravest first, and those about anmin stand alone but where they say the same', () => {
  const own = { incident: null, class: 'system' } as const
  const known = incident('x')
  const groups = gather(
    [
      alarm('1', { incident: 'x' }),
      alarm('2', { incident: 'unknown' }),
      alarm('3', { incident: 'x' }),
      alarm('4', { ...own, rule: 'system/part' }),
      alarm('5', { ...own, rule: 'system/part' }),
      ...['6', '7', '8', '9'].map((id) => alarm(id, { ...own, rule: 'system/silent' })),
    ],
    (id) => (id === 'x' ? known : undefined),
  )
  expect(groups.map(({ key, incident, alarms }) => [key, incident?.id, alarms.map(({ id }) => id).join()])).toEqual([
    ['x', 'x', '1,3'],
    ['unknown', undefined, '2'],
    ['4', undefined, '4'],
    ['5', undefined, '5'],
    ['system/silent', undefined, '6,7,8,9'],
  ])
})

test('an incident stands at the level of its gravest alarm in force', () => {
  expect(levelOf([alarm('1', { level: 'orange' }), alarm('2', { level: 'red', state: 'shelved' })])).toBe('orange')
  expect(levelOf([alarm('2', { level: 'red', state: 'shelved' })])).toBe(null)
  expect(levelOf([])).toBe(null)
})

test('an alarm among many is told from the others, where its place does not do so by its point', () => {
  expect(whereOf(alarm('1'), '3号楼501')).toBe('3号楼501')
  expect(whereOf(alarm('1', { place: { ...PLACE, room: '' } }), '3号楼')).toBe('3号楼 b3-5-gas/lel')
})
