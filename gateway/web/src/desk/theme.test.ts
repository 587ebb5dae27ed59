import { expect, test } from 'vitest'
import { isDark, themeOf } from './theme'

test('what this device was told holds, whatever the system has; without a word it is as the system has it', () => {
  for (const system of [true, false]) {
    expect(isDark(themeOf('dark'), system)).toBe(true)
    expect(isDark(themeOf('light'), system)).toBe(false)
    for (const kept of ['system', null, 'purple']) expect(isDark(themeOf(kept), system), `${kept}`).toBe(system)
  }
})
