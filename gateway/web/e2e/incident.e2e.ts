/** Several rooms of one floor: one incident, from the first smell to its end. One story, each test goes on from the last. */

import type { Browser, Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

const card = (watched: Watched): Locator => watched.page.locator('.card.incident').first()
const detail = (watched: Watched): Locator => watched.page.locator('article.detail')

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' })
})

afterAll(async () => {
  await browser?.close()
})

test('what belongs together is one card, and one alarm is as simple as ever', async () => {
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  await stage('gas flat-501 30')
  await desk.page.locator('.card.alarm', { hasText: '501' }).waitFor()
  expect(await desk.page.locator('.card.incident').count()).toBe(0)
  await stage('gas flat-502 60')
  await card(desk).waitFor()
  expect(await desk.page.locator('.card.alarm').count()).toBe(0)
  expect(await card(desk).innerText()).toMatch(/红色 Ⅰ级 · 燃气[\s\S]*× 2[\s\S]*2 条未确认/)
  await phone.page.locator('.card.incident', { hasText: '× 2' }).waitFor()
  await desk.isSound('a folded incident')
  await phone.isSound('a folded incident on a phone')
  await desk.picture('incident-desk')
  await phone.picture('incident-phone')
})

test('two taps acknowledge all its alarms', async () => {
  await card(desk).getByRole('button', { name: /^确认 2 条/ }).click()
  await desk.page.getByRole('textbox', { name: '姓名' }).fill('李值班')
  await desk.page.keyboard.press('Enter')
  await card(desk).getByRole('button', { name: /再按一次：确认 2 条/ }).click()
  await card(desk).getByRole('button', { name: /确认 2 条/ }).waitFor({ state: 'detached' })
  expect(await card(desk).innerText()).toContain('已确认')
})

test('the plan shows where both are, and what measures there', async () => {
  await desk.page.getByRole('link', { name: '楼栋' }).click()
  const cell = desk.page.locator('.cell', { hasText: '红色 · 2 条报警' })
  await cell.waitFor()
  await desk.isSound('the plan')
  await cell.getByRole('link').click()
  await detail(desk).locator('.point').first().waitFor()
  expect(await detail(desk).locator('.alarms li').count()).toBe(2)
  await desk.isSound('a floor of the plan')
  await desk.picture('plan-desk')
  await desk.page.getByRole('button', { name: '只看不正常的' }).click()
  await cell.waitFor()
  await phone.page.goto(`${URL}/#/plan`)
  await phone.page.locator('.cell', { hasText: /Red · 2 alarms/ }).waitFor()
  await phone.isSound('the plan on a phone')
  await phone.picture('plan-phone')
  await phone.page.goto(`${URL}/#/now`)
  await desk.page.getByRole('link', { name: '值班' }).click()
  await card(desk).waitFor()
})

test('its detail says what to do, who comes, and takes notes', async () => {
  await card(desk).locator('h2 a').click()
  await detail(desk).getByRole('heading', { name: '怎么办' }).waitFor()
  expect(await detail(desk).locator('.advice li').count()).toBeGreaterThan(0)
  await detail(desk).locator('.call').first().waitFor()
  await expect.poll(() => detail(desk).locator('.charts figure svg[role=img]').count()).toBe(2)
  await detail(desk).locator('.charts .moment').first().waitFor({ state: 'attached' })
  await detail(desk).locator('.charts .limit').first().waitFor({ state: 'attached' })
  await detail(desk).getByPlaceholder('写下情况').fill('总阀已关')
  await detail(desk).getByPlaceholder('照片的地址').fill('https://photos.example.cn/501')
  await detail(desk).getByRole('button', { name: '记下' }).click()
  await detail(desk).locator('.notes', { hasText: '总阀已关' }).waitFor()
  await detail(desk).locator('ol.rows', { hasText: '记录：总阀已关' }).waitFor()
  const photo = detail(desk).locator('.notes a', { hasText: 'photos.example.cn' })
  expect(await photo.getAttribute('href')).toBe('https://photos.example.cn/501')
  expect(await photo.getAttribute('rel')).toContain('noopener')
  await desk.isSound('the detail of an incident')
  await desk.picture('incident-detail-desk')
  await phone.page.locator('.card.incident h2 a').click()
  await detail(phone).locator('.notes', { hasText: '总阀已关' }).waitFor()
  await phone.isSound('the detail of an incident on a phone')
  await phone.picture('incident-detail-phone')
})

test('an alarm is taken out, and merged back', async () => {
  const out = detail(desk).locator('.alarms li', { hasText: '502' }).getByRole('button')
  await out.click()
  await desk.page.getByRole('button', { name: /再按一次：移出/ }).click()
  await expect.poll(() => desk.page.locator('.rows > .alarm').count()).toBe(2)
  await detail(desk).getByLabel('并入另一事件').selectOption({ index: 1 })
  await detail(desk).getByRole('button', { name: /^并入/ }).click()
  await detail(desk).getByRole('button', { name: /再按一次：并入/ }).click()
  await card(desk).waitFor()
  expect(await card(desk).innerText()).toContain('× 2')
  await detail(desk).getByText('这个事件已结案').waitFor()
})

test('it is closed with what it was, not before the danger is over', async () => {
  await card(desk).locator('h2 a').click()
  const dialog = desk.page.getByRole('dialog', { name: '结案' })
  const close = async () => {
    await detail(desk).getByRole('button', { name: '结案…' }).click()
    await dialog.getByRole('button', { name: '误报' }).click()
    await dialog.getByRole('button', { name: '烹饪油烟' }).click()
    await dialog.getByRole('button', { name: '结案', exact: true }).click()
  }
  desk.cut = true
  await close()
  await dialog.getByRole('alert').waitFor()
  desk.cut = false
  expect(await dialog.getByRole('alert').innerText()).toContain('仍在持续')
  await desk.isSound('the question how it ended')
  await desk.picture('incident-close-desk')
  await dialog.getByRole('button', { name: '取消' }).click()
  await stage('gas flat-501 0')
  await stage('gas flat-502 0')
  await expect.poll(() => detail(desk).locator('.alarms').innerText()).not.toContain('已确认')
  await close()
  await detail(desk).getByText('这个事件已结案').waitFor()
  expect(await detail(desk).locator('.gone').innerText()).toMatch(/误报（烹饪油烟）/)
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  await desk.close()
  await phone.close()
})
