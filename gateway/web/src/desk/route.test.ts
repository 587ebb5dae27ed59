import { expect, test } from 'vitest'
import { address, parse, type Route } from './route'

test('an address leads back to where it came from', () => {
  const routes: Route[] = [
    { tab: 'now', chosen: null },
    { tab: 'now', chosen: '01900000-0000-7000-8000-000000000001' },
    { tab: 'points', chosen: '3号楼 烟感?#%/lel' },
    { tab: 'plan', chosen: '3/' },
    { tab: 'plan', chosen: '/水泵房' },
    { tab: 'system', chosen: null },
  ]
  for (const route of routes) expect(parse(address(route.tab, route.chosen))).toEqual(route)
})

test('an address that nobody knows leads to the alarms', () => {
  for (const hash of ['', '#', '#/', '#nonsense', '#/nothing', '#/now/%E0%A4%A']) {
    expect(parse(hash), hash).toEqual({ tab: 'now', chosen: null })
  }
})
