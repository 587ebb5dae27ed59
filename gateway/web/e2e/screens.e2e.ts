/** One alarm on three screens: two desks and a phone have it within a moment of the alarm itself, and in the same order. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

/** Each in a building of its own, so that each is a card of its own. */
const FLATS = ['flat-1', 'flat-2', 'flat-3', 'flat-4', 'flat-5', 'flat-6']

let browser: Browser
let screens: { name: string; watched: Watched }[]

type Seen = Record<string, number>

beforeAll(async () => {
  browser = await launch()
  screens = [
    { name: 'desk', watched: await Watched.open(browser, DESK) },
    { name: 'second desk', watched: await Watched.open(browser, { ...DESK, locale: 'en-GB', colorScheme: 'dark' }) },
    { name: 'phone', watched: await Watched.open(browser, PHONE) },
  ]
  for (const { watched } of screens) {
    await watched.page.getByRole('heading', { name: /^(没有报警|No alarms)$/ }).waitFor()
    await watched.page.evaluate(() => {
      const seen: Seen = {}
      Object.assign(globalThis, { seen })
      const look = () => {
        for (const link of document.querySelectorAll<HTMLAnchorElement>('.alarm h2 a')) seen[link.hash.split('/').at(-1) ?? ''] ??= Date.now()
      }
      new MutationObserver(look).observe(document.body, { childList: true, subtree: true })
    })
  }
})

afterAll(async () => {
  await browser?.close()
})

const seenBy = ({ page }: Watched) => page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen)

test('each alarm is on every screen before anybody could ask for it', async () => {
  const { page } = screens[0]!.watched
  const took = new Map<string, number[]>(screens.map(({ name }) => [name, []]))
  for (const [n, flat] of FLATS.entries()) {
    // Red ones and orange ones in turn.
    await stage(`gas ${flat} ${n % 2 === 0 ? 60 : 30}`)
    for (const { watched } of screens) await expect.poll(async () => Object.keys(await seenBy(watched)).length).toBe(n + 1)
  }
  // The clock of the browsers is the one of anmin: all are on this machine.
  const raised = await page.evaluate(async () => {
    const list = (await (await fetch('/api/v1/alarms')).json()) as { alarms: { id: string; raised_at: string }[] }
    return Object.fromEntries(list.alarms.map(({ id, raised_at }) => [id, Date.parse(raised_at)]))
  })
  for (const { name, watched } of screens) {
    for (const [id, at] of Object.entries(await seenBy(watched))) took.get(name)!.push(at - raised[id]!)
  }
  for (const [name, ms] of took) {
    console.log(`${name}: from the alarm to its card ${ms.join(', ')} ms`)
    // A second is what is wanted, and what the figures say; a machine that is busy may take its time.
    expect(ms.length, name).toBe(FLATS.length)
    expect(Math.max(...ms), name).toBeLessThan(10_000)
  }
})

test('all show them in one order, the gravest first', async () => {
  const orders = await Promise.all(
    screens.map(({ watched }) =>
      watched.page.locator('.card.alarm').evaluateAll((cards) =>
        cards.map((card) => `${card.className.match(/red|orange/)?.[0]} ${card.querySelector('a')?.hash.split('/').at(-1)}`),
      ),
    ),
  )
  expect(orders[0]!.map((one) => one.split(' ')[0])).toEqual(['red', 'red', 'red', 'orange', 'orange', 'orange'])
  for (const order of orders) expect(order).toEqual(orders[0])
})

test('what one does is seen by the others, too', async () => {
  const phone = screens[2]!.watched.page
  await phone.evaluate(() => localStorage.setItem('anmin.officer', '李值班'))
  await phone.reload()
  const first = phone.locator('.card.alarm.red').first()
  const address = await first.locator('h2 a').getAttribute('href')
  await first.getByRole('button', { name: /^确认/ }).click()
  await phone.getByRole('button', { name: /^再按一次：确认/ }).click()
  for (const { watched } of screens) await watched.page.locator('.card.alarm', { has: watched.page.locator(`a[href="${address}"]`) }).getByText('李值班').waitFor()
  for (const { watched } of screens) await watched.close()
})
