import { expect, test } from 'vitest'
import { count, countdown, duration, instant, measured, moment, offsetOf, size, stampAt } from './format'

test('durations name their two largest parts', () => {
  const cases: [number, string, string][] = [
    [0, '0秒', '0 s'],
    [-5_000, '0秒', '0 s'],
    [45_999, '45秒', '45 s'],
    [60_000, '1分0秒', '1 min 0 s'],
    [192_000, '3分12秒', '3 min 12 s'],
    [7_500_000, '2小时5分', '2 h 5 min'],
    [273_600_000, '3天4小时', '3 d 4 h'],
  ]
  for (const [ms, zh, en] of cases) {
    expect([duration(ms, 'zh-CN'), duration(ms, 'en')]).toEqual([zh, en])
  }
})

test('a clock that runs down shows 0:00 only when the time is up', () => {
  const cases: [number, string][] = [
    [60_000, '1:00'],
    [41_001, '0:42'],
    [1, '0:01'],
    [0, '0:00'],
    [-999, '0:00'],
    [-13_000, '0:13'],
    [3_600_000, '1:00:00'],
  ]
  for (const [ms, text] of cases) expect(countdown(ms)).toBe(text)
})

test('moments are shown in the time of the site', () => {
  const now = '2026-01-31T14:02:11.000+08:00'
  expect(moment('2026-01-31T00:00:01.000+08:00', now)).toBe('00:00:01')
  expect(moment('2026-01-30T23:59:59.000+08:00', now)).toBe('01-30 23:59')
  expect(moment('2025-12-31T08:00:00.000+08:00', now)).toBe('2025-12-31 08:00')
  expect(instant('2026-01-31T00:00:01.000+08:00', now)).toBe('00:00:01')
  expect(instant('2026-01-30T23:59:59.000+08:00', now)).toBe('01-30 23:59:59')
  for (const stamp of ['2026-01-31T14:02:11+08:00', '2026-01-31T14:02:11-03:30', '2026-01-31T14:02:11+00:00']) {
    expect(stampAt(Date.parse(stamp), offsetOf(stamp))).toBe(stamp)
  }
})

test('values are read out as people would', () => {
  const cases: [Parameters<typeof measured>[0], string, string, string][] = [
    [26.400000001, '%LEL', '26.4 %LEL', '26.4 %LEL'],
    [-0.0001, 'degC', '0 ℃', '0 ℃'],
    [71.2, 'degC', '71.2 ℃', '71.2 ℃'],
    [5, '', '5', '5'],
    [true, '', '是', 'yes'],
    [false, '', '否', 'no'],
    ['E07', '', 'E07', 'E07'],
    [null, 'V', '—', '—'],
  ]
  for (const [shown, unit, zh, en] of cases) {
    expect([measured(shown, unit, 'zh-CN'), measured(shown, unit, 'en')]).toEqual([zh, en])
  }
  expect(count(1_204_331)).toBe('1,204,331')
  expect([0, 1_023, 1_536, 9_871_360].map(size)).toEqual(['0 B', '1023 B', '1.5 KiB', '9.4 MiB'])
})
