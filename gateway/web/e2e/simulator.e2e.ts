/** The simulator plays a gas leak as a device of the site would: from the first smell on three screens to the case that is closed. One story. */

import type { Browser, Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched
let screens: Watched[]

const card = ({ page }: Watched): Locator => page.locator('.card.alarm', { hasText: '501' })
const detail = ({ page }: Watched): Locator => page.locator('article.detail')

/** Two taps on a button of the detail. */
async function twice(watched: Watched, name: string): Promise<void> {
  await detail(watched).getByRole('button', { name: new RegExp(`^${name}`) }).first().click()
  await detail(watched).getByRole('button', { name: new RegExp(`^再按一次：${name}`) }).click()
}

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
  phone = await Watched.open(browser, PHONE)
  screens = [desk, await Watched.open(browser, { ...DESK, locale: 'en-GB', colorScheme: 'dark' }), phone]
  for (const { page } of screens) await page.getByRole('heading', { name: /^(没有报警|No alarms)$/ }).waitFor()
})

afterAll(async () => {
  await browser?.close()
})

test('the concentration climbs, and every screen follows it', async () => {
  await stage('sim gas-leak')
  await Promise.all(screens.map((watched) => card(watched).waitFor()))
  await Promise.all(screens.map(({ page }) => page.locator('.card.alarm.red', { hasText: '501' }).waitFor()))
  for (const { page } of screens) expect(await page.locator('.card.alarm').count()).toBe(1)
})

test('it is acknowledged on the phone, and the station that was called comes', async () => {
  await card(phone).locator('h2 a').click()
  // One alarm all the way, and not one for each level.
  for (const change of ['由黄色变为橙色', '由橙色变为红色']) await detail(phone).locator('ol.rows li', { hasText: change }).waitFor()
  await detail(phone).getByRole('button', { name: /^确认/ }).click()
  await phone.page.getByRole('textbox', { name: '姓名' }).fill('李值班')
  await phone.page.keyboard.press('Enter')
  await detail(phone).getByRole('button', { name: /^再按一次：确认/ }).click()
  for (const watched of screens) await card(watched).getByText('李值班').waitFor({ state: 'attached' })
  for (const [step, said] of [
    ['应答', '已应答'],
    ['出动', '在途中'],
    ['到场', '已到场'],
  ] as const) {
    await twice(phone, step)
    await detail(phone).locator('.call header').getByText(said).waitFor()
  }
})

test('while a valve is exchanged it is shelved, and comes back', async () => {
  await detail(phone).getByRole('button', { name: '搁置…' }).click()
  await phone.page.getByRole('dialog').getByRole('button', { name: '正在检修' }).click()
  await phone.page.getByRole('dialog').getByRole('button', { name: '搁置', exact: true }).click()
  await card(desk).getByText('已搁置').waitFor()
  await twice(phone, '结束搁置')
  await card(desk).getByText('未确认').waitFor()
})

test('when the gas is gone it is reset, and the case is closed with what it was', async () => {
  await stage('gas flat-501 0')
  await desk.page.evaluate(() => localStorage.setItem('anmin.officer', '王班长'))
  await desk.page.reload()
  await card(desk).locator('h2 a').click()
  await detail(desk).locator('p.part a').click()
  await twice(desk, '确认 1 条')
  await detail(desk).locator('.alarms a').first().click()
  await twice(desk, '复位')
  await detail(desk).getByText('这条报警已结束').waitFor()
  await desk.page.goBack()
  await detail(desk).getByRole('button', { name: '结案…' }).click()
  const dialog = desk.page.getByRole('dialog', { name: '结案' })
  await dialog.getByRole('button', { name: '真实险情' }).click()
  await dialog.getByRole('button', { name: '结案', exact: true }).click()
  await detail(desk).getByText('这个事件已结案').waitFor()
  for (const { page } of [desk, screens[1]!]) await page.getByRole('heading', { name: /^(没有报警|No alarms)$/ }).waitFor()
  for (const watched of screens) await watched.close()
})
