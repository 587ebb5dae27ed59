/** Signing in at the provider of an office, and opening a locked screen there. One story. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, URL, Watched } from './browser'

let browser: Browser
let officer: Watched

const button = (name: string) => officer.page.getByRole('button', { name, exact: true })

/** The provider's own pages, until it sends the browser back. */
async function through(name: string): Promise<void> {
  const { page } = officer
  await page.locator('input[name=login]').fill(name)
  await page.locator('input[name=password]').fill('any')
  await page.keyboard.press('Enter')
  const consent = page.locator('input[name=prompt][value=consent]').waitFor({ state: 'attached' })
  // Who has said yes before is not asked again.
  await Promise.race([page.waitForURL(`${URL}/**`), consent.catch(() => {})])
  if (!page.url().startsWith(`${URL}/`)) {
    await page.locator('button[type=submit]').click()
    await page.waitForURL(`${URL}/**`)
  }
}

beforeAll(async () => {
  browser = await launch()
  officer = await Watched.open(browser, DESK)
  officer.beside.add(process.env.ANMIN_TOKEN ?? '')
  // The provider's own pages ask for a font, which a story without a network never gets.
  const fonts = 'https://fonts.googleapis.com'
  officer.beside.add(fonts)
  await officer.page.route(`${fonts}/**`, (route) => route.abort())
  // Nobody is signed in, and the provider has no picture for its tab: the browser says so of each.
  officer.cut = true
})

afterAll(async () => {
  await browser?.close()
})

test('the button leads by the keyboard to the provider and back to the desk', async () => {
  await officer.page.getByRole('dialog', { name: '登录' }).waitFor()
  await button('用政务统一认证登录').waitFor()
  await officer.isSound('the door with a provider')
  await officer.picture('oidc-door-desk')
  await button('用政务统一认证登录').focus()
  await officer.page.keyboard.press('Enter')
  await through('wang')
  await officer.page.locator('.signal.live').waitFor()
  await officer.page.getByRole('link', { name: '系统' }).click()
  await officer.page.getByRole('heading', { name: /姓名 wang/ }).waitFor()
  expect(await button('修改密码').count()).toBe(0)
  await officer.isSound('an account of the provider')
})

test('a locked screen is opened there and not by a password', async () => {
  await button('锁定').click()
  await officer.page.getByRole('dialog', { name: '屏幕已锁定' }).waitFor()
  expect(await officer.page.getByRole('dialog').getByLabel('密码').count()).toBe(0)
  await officer.isSound('a screen that the provider opens')
  await officer.picture('oidc-lock-desk')
  await button('用政务统一认证解锁').click()
  await through('wang')
  await officer.page.getByRole('link', { name: '系统' }).click()
  await officer.page.getByRole('heading', { name: /姓名 wang/ }).waitFor()
  expect(await officer.page.getByRole('dialog').count()).toBe(0)
})

test('who has no role is told so where they came in', async () => {
  await button('退出登录').click()
  await officer.page.getByRole('dialog', { name: '登录' }).waitFor()
  await button('用政务统一认证登录').click()
  await through('guest')
  await officer.page.getByRole('alert').filter({ hasText: '没有角色' }).waitFor()
  expect(officer.page.url()).not.toContain('oidc')
  await officer.isSound('the door after the provider')
  await officer.close()
})
