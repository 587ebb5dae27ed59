/** An office above warns of rain: the first screen says so, and so does the incident that it bears on. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' })
})

afterAll(async () => {
  await browser?.close()
})

const strip = ({ page }: Watched) => page.locator('section.warnings')

test('as long as nobody warns there is nothing to be seen', async () => {
  await desk.page.getByRole('heading', { name: '没有未处理的报警' }).or(desk.page.locator('.quiet')).first().waitFor()
  expect(await strip(desk).count()).toBe(0)
})

test('a warning in force stands above the alarms, in the language of the reader, and says what to do', async () => {
  await stage('warn Alert')
  await strip(desk).getByText('示例县气象台发布暴雨橙色预警').waitFor()
  await strip(phone).getByText('Orange rainstorm warning for Example County').waitFor()
  await strip(desk).locator('summary').click()
  await strip(desk).getByText('检查地下车库挡水板').waitFor()
  await strip(phone).locator('summary').click()
  await strip(phone).getByText(/in force until/).waitFor()
  await desk.isSound('a warning on the desk')
  await phone.isSound('a warning on a phone')
  await desk.picture('warnings-desk')
  await phone.picture('warnings-phone')
})

test('when it is cancelled it is gone from every screen', async () => {
  await stage('warn Cancel')
  for (const watched of [desk, phone]) await expect.poll(() => strip(watched).count(), { timeout: 40_000 }).toBe(0)
  await desk.close()
  await phone.close()
})
