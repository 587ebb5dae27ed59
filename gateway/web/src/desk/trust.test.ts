import { expect, test } from 'vitest'
import { trust, type Signs, type Trust } from './trust'

test('the screen is trusted only while the main loop speaks', () => {
  const cases: [Partial<Signs>, Trust][] = [
    [{}, 'starting'],
    [{ openFor: 12_001 }, 'lost'],
    [{ openFor: 60_000, sinceBeat: 0 }, 'live'],
    [{ openFor: 60_000, sinceBeat: 12_000 }, 'live'],
    [{ openFor: 60_000, sinceBeat: 12_001 }, 'lost'],
    [{ openFor: 60_000, sinceBeat: 100, brokenFor: 3_000 }, 'live'],
    [{ openFor: 60_000, sinceBeat: 100, brokenFor: 3_001 }, 'lost'],
    [{ brokenFor: 3_001 }, 'lost'],
    [{ sinceBeat: 100, unlistedFor: 12_000 }, 'starting'],
    [{ sinceBeat: 100, unlistedFor: 12_001 }, 'lost'],
    [{ openFor: 60_000, sinceBeat: 12_001, unlistedFor: 1 }, 'lost'],
  ]
  for (const [signs, expected] of cases) {
    const all = { openFor: 0, sinceBeat: null, brokenFor: null, unlistedFor: null, ...signs }
    expect(trust(all), JSON.stringify(signs)).toBe(expected)
  }
})
