/** What is real leaves the community by two people at two screens; what is played is seen to be no such thing. */

import type { Browser, Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

const PASSWORD = process.env.ANMIN_TOKEN ?? ''

let browser: Browser
let li: Watched
let wang: Watched

/** The card of the real warning. */
const card = ({ page }: Watched): Locator => page.locator('.broadcast', { hasText: '真实对外播报' })
const answer = (watched: Watched): Locator => card(watched).getByLabel('输入社区名称“验收社区”以确认')
const yes = (watched: Watched): Locator => card(watched).getByRole('button', { name: '同意对外播报' })

async function signIn(account: string, options: Parameters<typeof Watched.open>[1]): Promise<Watched> {
  const watched = await Watched.open(browser, options)
  const dialog = watched.page.getByRole('dialog', { name: '登录' })
  await dialog.waitFor()
  await dialog.getByLabel('账号名').fill(account)
  await dialog.getByLabel('密码').fill(PASSWORD)
  await watched.page.keyboard.press('Enter')
  await dialog.waitFor({ state: 'detached' })
  return watched
}

/** Says yes with these words, and reads what the page complains of. */
async function refused(watched: Watched, words: string): Promise<string> {
  watched.cut = true
  await answer(watched).fill(words)
  await yes(watched).click()
  const notice = watched.page.locator('.notices .notice').first()
  await notice.waitFor()
  const said = await notice.innerText()
  await notice.getByRole('button').click()
  await notice.waitFor({ state: 'detached' })
  watched.cut = false
  return said
}

beforeAll(async () => {
  browser = await launch()
  li = await signIn('li', DESK)
  wang = await signIn('wang', PHONE)
})

afterAll(async () => {
  await browser?.close()
})

test('an alarm that would be told outside asks two people, on every screen, and nothing has left', async () => {
  await stage('gas flat-1 60')
  for (const watched of [li, wang]) {
    await card(watched).waitFor()
    expect(await card(watched).innerText()).toMatch(/待批准[\s\S]*剩余[\s\S]*0\/2 人同意/)
    expect(await card(watched).getAttribute('class')).toContain('waiting')
  }
  await stage('actual 0')
  await li.isSound('a broadcast that waits')
  await wang.isSound('a broadcast that waits, on a phone')
  await li.picture('broadcast-desk')
  await wang.picture('broadcast-phone')
})

test('a yes is typed: without the name of the community there is none', async () => {
  expect(await yes(li).isDisabled()).toBe(true)
  expect(await refused(li, '验收')).toContain('验收社区')
  expect(await card(li).innerText()).toContain('0/2 人同意')
})

test('one person is one yes, however often it is said', async () => {
  await answer(li).fill('验收社区')
  await yes(li).click()
  for (const watched of [li, wang]) await expect.poll(() => card(watched).innerText()).toMatch(/1\/2 人同意[\s\S]*李值班 同意/)
  // The one who has said it is told that another person must.
  expect(await refused(li, '验收社区')).toMatch(/另一|其他|他人/)
  expect(await card(li).innerText()).toContain('1/2 人同意')
  await stage('actual 0')
})

test('a second person lets it out, and both screens say so', async () => {
  await answer(wang).fill('验收社区')
  await yes(wang).click()
  await stage('actual 1')
  await li.page.locator('.card.alarm h2 a').first().click()
  await wang.page.locator('.card.alarm h2 a').first().click()
  for (const watched of [li, wang]) {
    await expect.poll(() => card(watched).innerText()).toMatch(/已批准[\s\S]*2\/2 人同意[\s\S]*李值班 同意[\s\S]*王值班 同意[\s\S]*已对外发出：town/)
    expect(await answer(watched).count()).toBe(0)
  }
  await li.isSound('a broadcast that went out')
})

test('what a drill sends looks otherwise, says that it is one, and asks nobody', async () => {
  await stage('drill')
  await li.page.locator('.card.alarm.drilled h2 a').first().click()
  const other = li.page.locator('article.detail .broadcast')
  await other.waitFor()
  expect(await other.innerText()).toMatch(/对外播报（演练）[\s\S]*已对外发出：town/)
  expect(await other.innerText()).not.toContain('真实')
  expect(await other.locator('input').count()).toBe(0)
  expect(await other.getAttribute('class')).not.toContain('waiting')
  await li.picture('broadcast-drill-desk')
  await stage('exercise 1')
})

test('one person takes back what was wrong, with a reason', async () => {
  await li.page.goto(`${URL}/#/now`)
  await li.page.locator('.card.alarm:not(.drilled) h2 a').first().click()
  await card(li).getByRole('button', { name: '撤回播报…' }).click()
  const dialog = li.page.getByRole('dialog', { name: '撤回播报' })
  await dialog.getByRole('textbox').fill('探测器误报')
  await dialog.getByRole('button', { name: '撤回播报', exact: true }).click()
  await expect.poll(() => card(wang).innerText()).toContain('已撤回')
  await stage('actual 2')
  await li.close()
  await wang.close()
})
