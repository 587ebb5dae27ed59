import { expect, test } from 'vitest'
import { named, numberOf } from './place'

test('what a site writes in Chinese is in English where it is a number or a usual part of a site', () => {
  const cases: [string, string | null, string | null, string][] = [
    ['3', '3', '3', '3'],
    ['12-2', '12-2', '12-2', '12-2'],
    ['B1', 'B1', 'B1', 'B1'],
    ['3号楼', null, '3', '3号楼'],
    ['5层', null, '5', '5层'],
    ['院内', null, null, 'Courtyard'],
    ['公共走廊', null, null, 'Corridor'],
    ['东方大厦', null, null, '东方大厦'],
    ['号楼', null, null, '号楼'],
    ['__proto__', null, null, '__proto__'],
  ]
  for (const [part, zh, en, name] of cases) {
    expect([numberOf(part, 'zh-CN'), numberOf(part, 'en'), named(part, 'zh-CN'), named(part, 'en')]).toEqual([zh, en, part, name])
  }
})
