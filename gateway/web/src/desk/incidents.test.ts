import { describe, expect, test } from 'vitest'
import type { Call, Case, ChecklistItem, Incident } from '../api/wire'
import { casesAlone, gather, IncidentBook, levelOf, mergeable, outcomesOf, reminderOf119, whereOf } from './incidents'
import { alarm, call, PLACE } from './made'

function incident(id: string, more: Partial<Incident> = {}): Incident {
  return {
    id,
    seq: 1,
    state: 'standing',
    case: null,
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

const MEDIATION: Case = {
  kind: 'mediation',
  stage: 'new',
  owner: null,
  stages: ['new', 'dissuading', 'mediating', 'follow_up'],
  outcomes: ['quiet', 'agreed', 'referred', 'unfounded', 'test'],
}

/** As a person opens it: no alarm has named a hazard. */
function opened(id: string, more: Partial<Incident> = {}): Incident {
  return incident(id, { case: MEDIATION, hazards: [], peak: 'blue', alarms: 0, ...more })
}

const step = (more: Partial<ChecklistItem>): ChecklistItem => ({
  id: 'mediation/visit',
  plan: 'mediation',
  version: '2026-1',
  text: { zh: '上门劝阻', en: 'Ask for quiet' },
  owner: 'grid',
  due: null,
  late: true,
  done_at: null,
  by: null,
  skipped: null,
  ...more,
})

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

describe('cases', () => {
  test('stand by themselves where no alarm of theirs is open, those with late steps first', () => {
    const incidents = [
      incident('emergency'),
      opened('a'),
      opened('ringing', { hazards: ['care'], alarms: 1 }),
      opened('elsewhere', { place: { ...PLACE, building: '5' } }),
      opened('late', { checklist: [step({})] }),
      opened('done', { checklist: [step({ done_at: '2026-01-01T08:05:00.000+08:00' })], state: 'settled' }),
    ]
    // Also one that is shelved: a case stands once on the screen.
    const alarms = [alarm('1', { incident: 'ringing', state: 'shelved' }), alarm('2', { incident: 'emergency' })]
    const ids = (building: string) => casesAlone(incidents, alarms, building).map(({ id }) => id)
    expect(ids('')).toEqual(['late', 'a', 'elsewhere', 'done'])
    expect(ids('5')).toEqual(['elsewhere'])
    expect(ids('9')).toEqual([])
  })

  test('end with words of their own', () => {
    expect(outcomesOf(opened('a'))).toEqual(['quiet', 'agreed', 'referred', 'unfounded', 'test'])
    expect(outcomesOf(incident('b'))).toEqual(['real', 'false_alarm', 'test', 'maintenance'])
  })

  test('take no emergency in, and may become part of one', () => {
    const all = [incident('fire'), incident('gas'), opened('noise'), opened('quarrel')]
    const into = (one: Incident) => mergeable(one, all).map(({ id }) => id)
    expect(into(incident('fire'))).toEqual(['gas'])
    expect(into(opened('noise'))).toEqual(['fire', 'gas', 'quarrel'])
  })
})

test('119 is spoken of where a station was called or it is grave, urgently where nobody masters it, and never of a case', () => {
  const rows: [Incident, Call[], ReturnType<typeof reminderOf119>][] = [
    [incident('a', { peak: 'red' }), [], 'where_needed'],
    [incident('a', { peak: 'orange' }), [], 'where_needed'],
    [incident('a', { peak: 'yellow' }), [], 'none'],
    [incident('a', { peak: 'yellow' }), [call('1')], 'where_needed'],
    [incident('a'), [call('1', { not_controlled: true })], 'due'],
    [incident('a'), [call('1', { live: false, state: 'unanswered' })], 'due'],
    [incident('a'), [call('1', { live: false, state: 'unanswered' }), call('1', { station: 'st-2' })], 'where_needed'],
    [incident('a'), [call('1', { live: false, state: 'stood_down' })], 'where_needed'],
    [opened('a', { peak: 'red' }), [call('1', { not_controlled: true })], 'none'],
  ]
  for (const [of, calls, said] of rows) expect(reminderOf119(of, calls), `${of.peak} ${calls.length} ${said}`).toBe(said)
})
