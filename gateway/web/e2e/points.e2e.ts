/**
 * Five thousand points whose values stream in: however one scrolls, filters and opens them, few rows are drawn. How long
 * the browser was busy at a stretch is printed; `make bench BENCH=page` holds it against a bound (ANMIN_LONGEST_MS).
 */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'

/** None in a story: a machine that is busy may take its time. */
const BOUND_MS = Number(process.env.ANMIN_LONGEST_MS ?? Infinity)
const SCREENS = [
  ['a desk', DESK],
  ['a phone', PHONE],
] as const
/** Rows that are drawn at most. */
const MOST_ROWS = 250

let browser: Browser

interface Task {
  at: number
  ms: number
}

/** The page as an officer has it, with every task of more than 50 ms written down. */
async function open(options: typeof DESK): Promise<Watched> {
  const watched = await Watched.open(browser, options, '#/points')
  // A main loop that is busy may say "come again", and the page does.
  watched.cut = true
  await watched.page.evaluate(() => {
    const tasks: Task[] = []
    Object.assign(globalThis, { tasks })
    new PerformanceObserver((list) => {
      for (const { startTime, duration } of list.getEntries()) tasks.push({ at: startTime, ms: duration })
    }).observe({ type: 'longtask' })
  })
  return watched
}

/** Does it, lets values stream in for a while, and gives the longest task meanwhile. */
async function longest({ page }: Watched, what: () => Promise<unknown>): Promise<number> {
  const from = await page.evaluate(() => performance.now())
  await what()
  // Three changes of what is shown: values come once a second.
  const values = () => page.locator('.point .value').allInnerTexts()
  for (let n = 0; n < 3; n += 1) {
    const before = await values()
    await expect.poll(values).not.toEqual(before)
  }
  return page.evaluate((from) => {
    const { tasks } = globalThis as unknown as { tasks: Task[] }
    return Math.max(0, ...tasks.filter(({ at }) => at >= from).map(({ ms }) => Math.round(ms)))
  }, from)
}

beforeAll(async () => {
  browser = await launch()
})

afterAll(async () => {
  await browser?.close()
})

for (const [name, options] of BOUND_MS === Infinity ? SCREENS.slice(0, 1) : SCREENS) {
  test(`on ${name} few of five thousand rows are drawn, and nothing holds the page up`, { timeout: 180_000 }, async () => {
    const watched = await open(options)
    const { page } = watched
    const figures: Record<string, number> = {}
    const rows = page.locator('.point')
    const shown = page.locator('.count')
    await expect.poll(() => shown.innerText()).toMatch(/ 5,000 个$/)
    // On a phone the list begins below what it is filtered by, and what nobody sees is not drawn.
    await rows.first().scrollIntoViewIfNeeded()
    figures['values alone'] = await longest(watched, async () => {})
    figures['all rows'] = await longest(watched, async () => {
      // Whoever taps beside a button that has just moved taps again.
      const tap = async () => {
        const more = page.getByRole('button', { name: '再显示一些' })
        if ((await more.count()) > 0) await more.click()
        return shown.innerText()
      }
      await expect.poll(tap, { timeout: 60_000 }).toBe('显示 5,000 个，全站 5,000 个')
    })
    expect(await rows.count(), 'rows that are drawn').toBeLessThanOrEqual(MOST_ROWS)
    figures['scrolling'] = await longest(watched, async () => {
      await page.locator('.point').first().hover()
      for (let n = 0; n < 30; n += 1) {
        await page.mouse.wheel(0, 2_000)
        await rows.first().waitFor()
      }
    })
    const drawn = await rows.count()
    console.log(`${name}: ${drawn} of 5,000 rows are drawn`)
    expect(drawn, 'rows that are drawn after scrolling').toBeLessThanOrEqual(MOST_ROWS)
    figures['filtering'] = await longest(watched, async () => {
      await page.getByLabel('查找编号或名称').fill('0123')
      await expect.poll(() => shown.innerText()).toBe('显示 11 个，全站 5,000 个')
    })
    if (name === 'a desk') {
      figures['opening'] = await longest(watched, async () => {
        await rows.nth(3).getByRole('link').click()
        await page.locator('article.detail figure svg[role=img]').waitFor()
      })
    }
    console.log(`${name}: the longest task in ms: ${JSON.stringify(figures)}`)
    expect(Math.max(...Object.values(figures))).toBeLessThanOrEqual(BOUND_MS)
    await watched.close()
  })
}
