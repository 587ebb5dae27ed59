/** Where anmin asks for a token, the page asks for it too and keeps it until it is closed. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, Watched } from './browser'

const TOKEN = process.env.ANMIN_TOKEN ?? ''

let browser: Browser
let desk: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
})

afterAll(async () => {
  await browser?.close()
})

const enter = async (token: string) => {
  await desk.page.getByRole('textbox', { name: '访问口令' }).fill(token)
  await desk.page.keyboard.press('Enter')
}

test('a wrong token is said to be wrong, the right one opens the desk and its live stream', async () => {
  // The browser reports each refusal; the page must not.
  desk.cut = true
  await desk.page.getByRole('dialog', { name: '请输入访问口令' }).waitFor()
  await desk.isSound('the question for the token')
  await enter('a-token-that-is-wrong')
  await desk.page.getByText('口令不对').waitFor()
  desk.cut = false
  await enter(TOKEN)
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  await desk.page.locator('.signal.live').waitFor()
})

test('a reload keeps it, another window does not have it, and leaving forgets it', async () => {
  await desk.page.reload()
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  const other = await Watched.open(browser, DESK)
  other.cut = true
  await other.page.getByRole('dialog', { name: '请输入访问口令' }).waitFor()
  await other.close()
  await desk.page.getByRole('link', { name: '系统' }).click()
  desk.cut = true
  await desk.page.getByRole('button', { name: '退出（清除口令）' }).click()
  await desk.page.getByRole('dialog', { name: '请输入访问口令' }).waitFor()
  expect(await desk.page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }))).not.toContain(TOKEN)
  await desk.close()
})
