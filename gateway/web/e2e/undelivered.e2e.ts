/** The office refuses what anmin tells it: the page says what did not arrive, and an officer sends it again. */

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
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' }, '#/system')
})

afterAll(async () => {
  await browser?.close()
})

const card = ({ page }: Watched) => page.locator('section.card', { hasText: /未送达的消息|Not delivered/ })
const letters = (watched: Watched) => card(watched).getByRole('listitem')
/** The first message that the office refused: that there is gas. */
const leak = (watched: Watched) => letters(watched).filter({ hasText: /燃气|gas/i }).last()

test('as long as nothing was refused, it says so', async () => {
  await card(desk).getByText('没有被拒收的消息').waitFor()
  await card(phone).getByText('No receiver has refused anything').waitFor()
})

test('what was refused stands there with its way out, since when and why', async () => {
  await stage('refuse')
  await stage('gas kitchen 30')
  await leak(desk).waitFor()
  expect(await leak(desk).innerText()).toMatch(/发往 office · \d\d:\d\d:\d\d · 已停发 \d+秒\s+原因：\s+HTTP 400/)
  await leak(phone).waitFor()
  expect(await leak(phone).innerText()).toMatch(/To office · \d\d:\d\d:\d\d · given up for \d+ s\s+Because:\s+HTTP 400/)
  for (const watched of [desk, phone]) await leak(watched).scrollIntoViewIfNeeded()
  await desk.isSound('refused messages on the desk')
  await phone.isSound('refused messages on a phone')
  await desk.picture('undelivered-desk')
  await phone.picture('undelivered-phone')
})

test('one tap sends nothing, and what is refused again comes back', async () => {
  const refused = await leak(desk).locator('time').getAttribute('datetime')
  await leak(desk).getByRole('button', { name: /^重新发送/ }).click()
  await desk.page.getByRole('textbox', { name: '姓名' }).fill('李值班')
  await desk.page.keyboard.press('Enter')
  const again = leak(desk).getByRole('button', { name: /^再按一次：重新发送/ })
  await again.waitFor()
  expect(await leak(desk).locator('time').getAttribute('datetime')).toBe(refused)
  await again.click()
  await expect.poll(() => desk.page.locator('[aria-live=polite]').textContent()).toBe('已重新发往 office。')
  await expect.poll(() => leak(desk).locator('time').getAttribute('datetime')).not.toBe(refused)
})

test('once the office takes it, it is gone from every screen', async () => {
  await stage('take')
  const before = await letters(desk).count()
  await leak(desk).getByRole('button', { name: /^重新发送/ }).click()
  await leak(desk).getByRole('button', { name: /^再按一次：重新发送/ }).click()
  await stage('taken')
  for (const watched of [desk, phone]) await expect.poll(() => letters(watched).count()).toBe(before - 1)
  await desk.close()
  await phone.close()
})
