/** Ten thousand alarms at once: the screen stays readable and quick. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, Watched } from './browser'
import { stage } from './stage'

const ALARMS = 10_000

let browser: Browser
let desk: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  await desk.page.evaluate(() => {
    const worst = { ms: 0 }
    Object.assign(globalThis, { worst })
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) worst.ms = Math.max(worst.ms, duration)
    }).observe({ type: 'longtask' })
  })
})

afterAll(async () => {
  await browser?.close()
})

const all = () => desk.page.getByRole('button', { name: /^全部/ }).innerText()

test('they arrive while the page goes on', async () => {
  await stage(`storm ${ALARMS}`)
  await expect.poll(all, { timeout: 50_000 }).toContain('10,000')
  expect(await desk.page.locator('.alarm').count()).toBeLessThanOrEqual(40)
  expect(await desk.page.locator('.signal').innerText()).toContain('实时')
  const { ms } = await desk.page.evaluate(() => (globalThis as unknown as { worst: { ms: number } }).worst)
  console.log(`the longest task took ${ms} ms`)
  expect(ms).toBeLessThan(1_500)
  await desk.picture('storm-desk')
})

test('a filter and more rows take no time that one would notice', async () => {
  const took = async (what: () => Promise<unknown>) => {
    const from = Date.now()
    await what()
    return Date.now() - from
  }
  const filter = await took(async () => {
    await desk.page.getByRole('button', { name: /橙色/ }).click()
    await desk.page.locator('.alarm.red').first().waitFor({ state: 'detached' })
  })
  const more = await took(async () => {
    // Whoever taps beside a button that has just moved taps again.
    const tap = async () => {
      const rows = await desk.page.locator('.alarm').count()
      if (rows < 80) await desk.page.getByRole('button', { name: /再显示 40 条/ }).click()
      return rows
    }
    await expect.poll(tap).toBeGreaterThanOrEqual(80)
  })
  console.log(`filter ${filter} ms, more rows ${more} ms`)
  expect(Math.max(filter, more)).toBeLessThan(2_000)
})

test('a fresh page shows them all, and a reload in the storm too', async () => {
  const from = Date.now()
  await desk.page.reload()
  await expect.poll(all, { timeout: 20_000 }).toContain('10,000')
  console.log(`ten thousand alarms were there after ${Date.now() - from} ms`)
  await desk.close()
})
