/** The time-series database is away: what waits for it is said, and goes when it is back. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK, '#/system')
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB' }, '#/system')
})

afterAll(async () => {
  await browser?.close()
})

const card = ({ page }: Watched, heading: string) => page.locator('section.card', { hasText: heading })

test('what waits, how old it is and how much room it takes stand on the page', async () => {
  await stage('gas kitchen 4.5')
  const waits = card(desk, '转存到时序数据库')
  await expect.poll(() => waits.innerText()).toMatch(/等待转存\s+2 · \d+ B/)
  expect(await waits.innerText()).toMatch(/其中最早\s+\d\d:\d\d:\d\d · \d+秒/)
  const way = card(desk, '数据的来路与去路')
  await expect.poll(() => way.innerText()).toMatch(/等待转存的数据\s+2 · \d+ B/)
  expect(await way.innerText()).toMatch(/本机时钟\s+可信[\s\S]*代理可能丢失的消息\s+没有/)
  const en = card(phone, 'On the way to time-series databases')
  await expect.poll(() => en.innerText()).toMatch(/Waiting\s+2 · \d+ B/)
  await desk.isSound('a backlog on the desk')
  await phone.isSound('a backlog on a phone')
  for (const watched of [waits, en]) await watched.scrollIntoViewIfNeeded()
  await desk.picture('backlog-desk')
  await phone.picture('backlog-phone')
})

test('when the database is back, nothing waits any more', async () => {
  await stage('database')
  await expect.poll(() => card(desk, '转存到时序数据库').innerText(), { timeout: 40_000 }).toMatch(/及时\s+等待转存\s+0 · 0 B/)
  await expect.poll(() => card(desk, '数据的来路与去路').innerText()).toMatch(/等待转存的数据\s+没有积压/)
  await desk.close()
  await phone.close()
})
