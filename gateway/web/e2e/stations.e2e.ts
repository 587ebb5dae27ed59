/** A change of shift at the stations: what cannot respond is seen, checked, handed over, taken off duty and back. */

import type { Browser, Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK, '#/stations')
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' }, '#/stations')
})

afterAll(async () => {
  await browser?.close()
})

const west = ({ page }: Watched): Locator => page.locator('article', { hasText: /西区站|West station/ })

/** Two taps on a button of the card. */
async function twice(card: Locator, name: string): Promise<void> {
  await card.getByRole('button', { name: new RegExp(`^${name}`) }).first().click()
  await card.getByRole('button', { name: new RegExp(`再按一次：${name}`) }).click()
}

test('a station that cannot respond says why, on every screen', async () => {
  await west(desk).getByText('器材检查已过期（水带）').waitFor()
  await west(phone).getByText('equipment check overdue (hose)').waitFor()
  expect(await desk.page.getByText('未登记人员').count()).toBe(2)
  await desk.isSound('stations on the desk')
  await phone.isSound('stations on the phone')
  await desk.picture('stations-desk')
  await phone.picture('stations-phone')
})

test('checked and handed over in the name of the officer, it is ready', async () => {
  await west(desk).getByRole('button', { name: /^完好/ }).first().click()
  await desk.page.getByRole('textbox', { name: '姓名' }).fill('李值班')
  await desk.page.keyboard.press('Enter')
  await west(desk).getByRole('button', { name: /再按一次：完好/ }).click()
  await west(desk).getByText('能出动', { exact: true }).waitFor()
  await west(phone).getByText('Ready', { exact: true }).waitFor()

  await west(desk).getByRole('button', { name: '交接班' }).click()
  await west(desk).getByRole('checkbox', { name: /李勇/ }).uncheck()
  await desk.isSound('a hand-over')
  await twice(west(desk), '交接班')
  await west(desk).getByText(/交接班.*李值班/).waitFor()
  expect(await west(desk).getByText('李勇').count()).toBe(0)
})

test('off duty with a reason, and called for nothing until it is back', async () => {
  await west(desk).getByRole('button', { name: '停勤…' }).click()
  await desk.page.getByRole('button', { name: '外出训练' }).click()
  await desk.page.getByRole('dialog').getByRole('button', { name: '停勤…' }).click()
  await west(desk).getByText('已停勤（外出训练）').waitFor()
  await stage('gas kitchen 60')
  const called = desk.page.locator('article', { hasText: '一号站' }).first()
  await called.getByText('已呼叫，等待应答').waitFor()
  expect(await west(desk).getByText('已呼叫').count()).toBe(0)
  await desk.isSound('a call on the stations')
  await twice(west(desk), '恢复执勤')
  await west(desk).getByText('能出动', { exact: true }).waitFor()
})
