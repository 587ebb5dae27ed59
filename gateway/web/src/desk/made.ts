/** Alarms and calls for tests. */

import type { Alarm, Call, Place } from '../api/wire'

export const PLACE: Place = {
  zh: '3号楼2单元5层501',
  en: 'Building 3, Unit 2, Floor 5, 501',
  area: 'b3',
  grid: 'G03',
  building: '3',
  unit: '2',
  floor: '5',
  room: '501',
  position: null,
}

export function alarm(id: string, change: Partial<Alarm> = {}): Alarm {
  return {
    id,
    seq: 1,
    rule: 'gas/leak',
    subject: 'b3-5-gas/lel',
    subject_type: 'point',
    class: 'gas',
    incident: null,
    drill: null,
    level: 'red',
    peak: 'red',
    state: 'unacknowledged',
    open: true,
    active: true,
    latched: true,
    title: { zh: '可燃气体泄漏', en: 'Combustible gas leak' },
    message: { zh: '浓度 26.4 %LEL', en: '26.4 %LEL' },
    advice: { zh: '关闭总阀', en: 'Shut the valve' },
    place: PLACE,
    reading: {
      point: 'b3-5-gas/lel',
      value: 26.4,
      unit: '%LEL',
      limit: { name: 'red', value: 20 },
      source_time: null,
      sequence: null,
      received: '2026-01-31T14:02:11.000+08:00',
    },
    raised_at: '2026-01-31T14:02:11.000+08:00',
    changed_at: '2026-01-31T14:02:11.000+08:00',
    clock_doubtful: false,
    acknowledged: null,
    shelved: null,
    out_of_service: null,
    escalation: 0,
    escalate_at: null,
    realarm_at: null,
    broadcast: null,
    told_outside: [],
    ...change,
  }
}

export function call(id: string, change: Partial<Call> = {}): Call {
  return {
    alarm: id,
    station: 'st-1',
    station_names: { zh: '南区微型消防站', en: 'South micro fire station' },
    state: 'called',
    live: true,
    late: false,
    not_controlled: false,
    respond_by: '2026-01-31T14:03:11.000+08:00',
    arrive_by: '2026-01-31T14:05:11.000+08:00',
    control_by: '2026-01-31T14:07:11.000+08:00',
    crew: [],
    steps: [{ state: 'called', at: '2026-01-31T14:02:11.000+08:00', by: 'anmin', why: '' }],
    seq: 1,
    ...change,
  }
}
