/** A quiet night, and anmin is killed in it: nothing on any screen goes on saying that all is well. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched
let system: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' })
  system = await Watched.open(browser, PHONE, '#/system')
})

afterAll(async () => {
  await browser?.close()
})

const all = () => [desk, phone, system]
const quiet = ({ page }: Watched) => page.getByRole('heading', { name: /^(没有报警|No alarms|各部件正常)$/ })
const unknown = ({ page }: Watched) => page.getByRole('heading', { name: /不知道|not known/ })
const lost = ({ page }: Watched) => page.getByRole('region', { name: /实时连接中断|Live connection lost/ })

test('while anmin lives, each screen says that all is quiet', async () => {
  for (const watched of all()) await quiet(watched).waitFor()
  await desk.page.getByRole('button', { name: '声音未开，点此开启' }).click()
  await desk.page.getByText('声音已开').first().waitFor({ state: 'attached' })
  expect(await desk.tones()).toBe(0)
})

test('killed, it is said within seconds, and nothing says any more that all is quiet', async () => {
  for (const watched of all()) watched.cut = true
  const from = Date.now()
  await stage('stop')
  await Promise.all(all().map((watched) => lost(watched).waitFor()))
  expect(Date.now() - from).toBeLessThan(10_000)
  for (const watched of all()) {
    await unknown(watched).waitFor()
    expect(await quiet(watched).count()).toBe(0)
    expect(await watched.page.title()).toContain('⚠')
  }
  await expect.poll(() => desk.tones()).toBeGreaterThan(0)
  await desk.isSound('a lost desk')
  await phone.isSound('a lost phone')
  await desk.picture('quiet-lost-desk')
  await phone.picture('quiet-lost-phone')
})

test('wherever one is on a phone, the sign is in sight', async () => {
  await system.page.evaluate(() => window.scrollTo(0, document.body.scrollHeight))
  await expect.poll(() => system.page.evaluate(() => window.scrollY)).toBeGreaterThan(200)
  const box = await lost(system).boundingBox()
  expect(box?.y).toBe(0)
  await system.picture('quiet-lost-scrolled')
})

test('it stays until anmin speaks again', async () => {
  const ago = () => lost(desk).innerText()
  const before = await ago()
  await expect.poll(ago, { timeout: 5_000 }).not.toBe(before)
  await stage('start')
  for (const watched of all()) {
    await lost(watched).waitFor({ state: 'detached' })
    await quiet(watched).waitFor()
  }
  for (const watched of all()) await watched.close()
})
