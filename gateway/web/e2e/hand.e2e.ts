/** What need not wait for a clock: an officer calls another station and tells those above, with reasons that everybody reads. */

import type { Browser, Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

const detail = ({ page }: Watched): Locator => page.locator('article.detail')
const dialog = ({ page }: Watched): Locator => page.getByRole('dialog')

/** What of the rows of an alarm's story says these words. */
const row = (watched: Watched, words: RegExp): Locator => detail(watched).locator('ol.rows li', { hasText: words })

beforeAll(async () => {
  browser = await launch()
  await stage('gas kitchen 60')
  desk = await Watched.open(browser, DESK)
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' })
  for (const [watched, name] of [
    [desk, '李值班'],
    [phone, 'Wang'],
  ] as const) {
    await watched.page.evaluate((name) => localStorage.setItem('anmin.officer', name), name)
    await watched.page.reload()
    await watched.page.locator('.card.alarm h2 a').first().click()
    await detail(watched).locator('.call').first().waitFor()
  }
})

afterAll(async () => {
  await browser?.close()
})

test('the stations say which is called already, which cannot respond and why', async () => {
  await detail(desk).getByRole('button', { name: '呼叫消防站…' }).click()
  const first = dialog(desk).locator('label', { hasText: '一号站' })
  await first.getByText('已呼叫，等待应答').waitFor()
  expect(await first.getByRole('radio').isDisabled()).toBe(true)
  await dialog(desk).locator('label', { hasText: '西区站' }).getByText(/器材检查已过期/).waitFor()
  // The next one that can respond.
  expect(await dialog(desk).getByRole('radio', { name: /二号站/ }).isChecked()).toBe(true)
  await desk.isSound('which station is called')
  await desk.picture('hand-call-desk')
})

test('nothing is called without a reason, and one that cannot respond only by who insists', async () => {
  const call = dialog(desk).getByRole('button', { name: '呼叫消防站', exact: true })
  await call.click()
  expect(await dialog(desk).count()).toBe(1)
  await dialog(desk).getByRole('radio', { name: /西区站/ }).check()
  await dialog(desk).getByRole('button', { name: '力量不足' }).click()
  await call.click()
  expect(await dialog(desk).count()).toBe(1)
  await dialog(desk).getByRole('checkbox', { name: /仍要呼叫/ }).check()
  await call.click()
  await dialog(desk).waitFor({ state: 'detached' })
  for (const watched of [desk, phone]) {
    await detail(watched).locator('.call', { hasText: /西区站|West station/ }).locator('.clock').first().waitFor()
  }
  // Who said so and why stands with the call for everybody.
  await row(desk, /西区站[\s\S]*李值班[\s\S]*力量不足/).waitFor()
  await row(phone, /West station[\s\S]*李值班[\s\S]*力量不足/).waitFor()
})

test('on a phone the same, by somebody else', async () => {
  await detail(phone).getByRole('button', { name: 'Call a station…' }).click()
  await dialog(phone).locator('label', { hasText: 'West station' }).getByText('Called, no answer yet').waitFor()
  expect(await dialog(phone).getByRole('radio', { name: /二号站/ }).isChecked()).toBe(true)
  await phone.isSound('which station is called, on a phone')
  await phone.picture('hand-call-phone')
  await dialog(phone).getByLabel('Reason').fill('the second flat smells too')
  await dialog(phone).getByRole('button', { name: 'Call a station', exact: true }).click()
  await dialog(phone).waitFor({ state: 'detached' })
  await row(desk, /二号站[\s\S]*Wang[\s\S]*the second flat smells too/).waitFor()
})

test('those above are told now: two people who do so at once take one step', async () => {
  for (const watched of [desk, phone]) {
    await detail(watched).getByRole('button', { name: /^(升级通知|Escalate)…$/ }).click()
    await dialog(watched).locator('p', { hasText: /第 1 级|Step 1 of/ }).waitFor()
    await watched.isSound('an escalation by hand')
  }
  await desk.picture('hand-escalate-desk')
  await phone.picture('hand-escalate-phone')
  await dialog(desk).getByRole('button', { name: '情况严重' }).click()
  await dialog(desk).getByRole('button', { name: '升级通知', exact: true }).click()
  await dialog(desk).waitFor({ state: 'detached' })
  await row(desk, /人工升级[\s\S]*李值班[\s\S]*情况严重/).waitFor()
  phone.cut = true
  await dialog(phone).getByLabel('Reason').fill('nobody comes')
  await dialog(phone).getByRole('button', { name: 'Escalate', exact: true }).click()
  await row(phone, /李值班[\s\S]*情况严重/).waitFor()
  phone.cut = false
  await expect.poll(() => row(desk, /人工升级/).count()).toBe(1)
  await desk.close()
  await phone.close()
})
