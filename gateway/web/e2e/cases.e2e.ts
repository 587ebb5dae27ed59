/** A quarrel about noise: opened by hand, moved on, closed with what it came to, and found again. One story, each test goes on from the last. */

import type { Browser, Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'

let browser: Browser
let desk: Watched
let phone: Watched

const cases = (watched: Watched): Locator => watched.page.getByRole('region', { name: /^(日常事项|Cases)$/ })
const card = (watched: Watched): Locator => cases(watched).locator('.card.incident', { hasText: '夜间装修噪声' })
const detail = (watched: Watched): Locator => watched.page.locator('article.detail')

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK)
  await desk.page.evaluate(() => localStorage.setItem('anmin.officer', '李值班'))
  await desk.page.reload()
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' })
})

afterAll(async () => {
  await browser?.close()
})

test('an officer opens a case, and stands before it', async () => {
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  await cases(desk).getByRole('button', { name: '登记事项' }).click()
  const dialog = desk.page.getByRole('dialog', { name: '登记事项' })
  expect(await dialog.innerText()).toContain('不要写居民的姓名')
  const open = dialog.getByRole('button', { name: '登记', exact: true })
  expect(await open.isDisabled()).toBe(true)
  await dialog.getByRole('button', { name: '矛盾调解' }).click()
  await dialog.getByLabel('什么事').fill('夜间装修噪声')
  await dialog.getByLabel('楼栋').fill('3')
  await dialog.getByLabel('单元').fill('2')
  await dialog.getByLabel('情况').fill('楼上晚上十点以后仍在钻墙')
  await desk.isSound('the form of a new case')
  await desk.picture('case-open-desk')
  await open.click()
  await detail(desk).getByRole('heading', { name: '夜间装修噪声' }).waitFor()
  expect(await detail(desk).locator('header').innerText()).toMatch(/事项 · 矛盾调解[\s\S]*待受理/)
  expect(await detail(desk).innerText()).not.toMatch(/119|Ⅳ级/)
  await detail(desk).locator('.notes', { hasText: '钻墙' }).waitFor()
})

test('it stands on every screen behind the alarms, and is no alarm', async () => {
  await card(desk).waitFor()
  await card(phone).waitFor()
  expect(await card(desk).innerText()).toMatch(/矛盾调解[\s\S]*待受理[\s\S]*承办人：李值班/)
  await desk.page.getByRole('heading', { name: '没有报警' }).waitFor()
  await phone.isSound('a case on a phone')
  await phone.picture('case-phone')
})

test('one tap moves it on, and says who sees to it', async () => {
  const stages = detail(desk).getByRole('group', { name: '办理进度' })
  await detail(desk).getByLabel('换承办人').fill('王网格')
  await detail(desk).getByLabel('说明').fill('已上门劝阻')
  await stages.getByRole('button', { name: '劝阻中' }).click()
  await stages.locator('[aria-pressed="true"]', { hasText: '劝阻中' }).waitFor()
  await detail(desk).locator('.progress', { hasText: '承办人：王网格' }).waitFor()
  await detail(desk).locator('.notes', { hasText: '已上门劝阻' }).waitFor()
  await detail(desk).locator('ol.rows', { hasText: '办理进度：劝阻中 · 承办人：王网格' }).waitFor()
  expect(await detail(desk).getByLabel('换承办人').inputValue()).toBe('')
  await stages.getByRole('button', { name: '调解中' }).click()
  await card(phone).getByText('In mediation').waitFor()
  await desk.isSound('the detail of a case')
  await desk.picture('case-detail-desk')
  await card(phone).locator('h2 a').click()
  await detail(phone).getByText('王网格').first().waitFor()
  await phone.isSound('the detail of a case on a phone')
  await phone.picture('case-detail-phone')
})

test('it ends with words of its own', async () => {
  await detail(desk).getByRole('button', { name: '结案…' }).click()
  const dialog = desk.page.getByRole('dialog', { name: '结案' })
  expect(await dialog.getByRole('button', { name: '误报' }).count()).toBe(0)
  await dialog.getByRole('button', { name: '达成一致' }).click()
  await desk.isSound('the question what a case came to')
  await dialog.getByRole('button', { name: '结案', exact: true }).click()
  await detail(desk).getByText('这个事件已结案').waitFor()
  expect(await detail(desk).locator('.gone').innerText()).toContain('达成一致')
  await card(desk).waitFor({ state: 'detached' })
})

test('it is found among the past ones by its kind', async () => {
  await desk.page.goto(`${URL}/#/reports/past`)
  const row = desk.page.locator('tbody tr', { hasText: '夜间装修噪声' })
  const find = async (kind: string) => {
    await desk.page.getByLabel('日常事项').selectOption({ label: kind })
    await desk.page.getByRole('button', { name: '查找' }).click()
  }
  await row.waitFor()
  await find('维修工单')
  await row.waitFor({ state: 'detached' })
  await find('矛盾调解')
  await row.waitFor()
  expect(await row.innerText()).toMatch(/矛盾调解[\s\S]*达成一致/)
  await desk.isSound('past cases')
  await desk.picture('case-past-desk')
  await row.getByRole('link').click()
  await detail(desk).getByText('这个事件已结案').waitFor()
  await desk.close()
  await phone.close()
})
