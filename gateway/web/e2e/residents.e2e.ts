/** What a resident sees without signing in, on a desk in Chinese and on a phone in English: nothing, a warning, a form, an answer. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

beforeAll(async () => {
  browser = await launch()
  desk = await Watched.open(browser, DESK, 'residents?at=b1')
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB', javaScriptEnabled: true }, 'residents')
})

afterAll(async () => {
  await browser?.close()
})

test('a quiet day is said to be one, with its time and whom to phone', async () => {
  await desk.page.getByText('目前没有通知').waitFor()
  await phone.page.getByText('There are no notices now.').waitFor()
  expect(await phone.page.locator('html').getAttribute('lang')).toBe('en')
  expect(await desk.page.locator('.shelters li').first().innerText()).toContain('一号楼大厅')
  expect(await desk.page.locator('.made b').innerText()).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/)
  expect(await desk.page.evaluate(() => document.cookie)).toBe('')
  await desk.isSound('a quiet day on a desk')
  await phone.isSound('a quiet day on a phone')
  await desk.picture('residents-quiet-desk')
  await phone.picture('residents-quiet-phone')
})

test('a warning stands there in the language of the reader, and the link leads to the other', async () => {
  await stage('warn Alert')
  await expect.poll(async () => {
    await desk.page.reload()
    return desk.page.locator('article').innerText()
  }).toMatch(/示例县气象台发布暴雨橙色预警[\s\S]*怎么做[\s\S]*检查地下车库挡水板/)
  await phone.page.reload()
  expect(await phone.page.locator('article').innerText()).toContain('Check the flood boards of the garage.')
  await desk.isSound('a warning on a desk')
  await phone.isSound('a warning on a phone')
  await desk.picture('residents-warned-desk')
  await phone.picture('residents-warned-phone')
  await phone.page.getByRole('link', { name: '中文' }).click()
  await phone.page.getByText('检查地下车库挡水板').waitFor()
  await phone.page.getByRole('link', { name: 'English' }).click()
})

test('who needs help says so in three taps, and sees when somebody has taken it on', async () => {
  await phone.page.getByRole('link', { name: 'I need help' }).click()
  await phone.isSound('the form')
  await phone.picture('residents-form-phone')
  await phone.page.getByLabel('Trapped: cannot get out').check()
  await phone.page.getByRole('button', { name: 'Send' }).click()
  await phone.page.getByRole('alert').waitFor()
  expect(await phone.page.getByRole('alert').innerText()).toContain('Say where you are')
  expect(await phone.page.getByLabel('Trapped: cannot get out').isChecked()).toBe(true)
  await phone.isSound('the form with what is wrong')
  await phone.page.getByLabel('Which building').selectOption('1')
  await phone.page.getByLabel(/Where exactly/).fill('-1层 车库')
  await phone.page.getByRole('button', { name: 'Send' }).click()
  await phone.page.getByText('Received: a duty officer will take it on.').waitFor()
  await phone.isSound('what was sent')
  await phone.picture('residents-sent-phone')
  const officer = await Watched.open(browser, DESK)
  const help = officer.page.getByRole('region', { name: '居民求助' })
  await help.getByText('1号楼：被困').waitFor()
  expect(await help.innerText()).toMatch(/1 待受理 · 0 处理中/)
  // Where exactly is asked for when somebody opens the list, and not before.
  expect(await help.innerText()).not.toContain('车库')
  await help.getByRole('button', { name: '查看求助人和位置' }).click()
  await help.getByText('1号楼 (-1层 车库)').first().waitFor()
  await officer.isSound('a call for help at the desk')
  await officer.picture('help-desk')
  await help.getByRole('button', { name: /^由我处理/ }).click()
  await officer.page.getByRole('textbox', { name: '姓名' }).fill('陈值班')
  await officer.page.keyboard.press('Enter')
  await help.getByRole('button', { name: /再按一次：由我处理/ }).click()
  await help.getByText('陈值班').waitFor()
  const kept = (await (await fetch(`${URL}/api/v1/registers/help`)).json()) as { rows: Record<string, string>[] }
  expect(kept.rows[0]).toMatchObject({ need: 'trapped', building: '1', room: '(-1层 车库)', state: 'taken', by: '陈值班' })
  await expect.poll(async () => {
    await phone.page.getByRole('link', { name: 'Look again' }).click()
    return phone.page.getByRole('status').innerText()
  }).toContain('has taken it on')
  // On a phone in English, at night: the list is the same, and ends with what became of it.
  const other = await Watched.open(browser, { ...PHONE, locale: 'en-GB', colorScheme: 'dark' })
  const strip = other.page.getByRole('region', { name: 'Residents who ask for help' })
  await strip.getByRole('button', { name: 'Show who and where' }).click()
  await strip.getByText('being helped: 陈值班').waitFor()
  await other.isSound('a call for help on a phone')
  await other.picture('help-phone')
  await strip.getByRole('button', { name: /^It is done/ }).click()
  await other.page.getByRole('button', { name: 'Brought to safety' }).click()
  await other.page.getByRole('dialog').getByRole('button', { name: 'It is done' }).click()
  await other.page.getByRole('textbox', { name: 'Name' }).fill('Zhao')
  await other.page.keyboard.press('Enter')
  await strip.waitFor({ state: 'detached' })
  const ended = (await (await fetch(`${URL}/api/v1/registers/help`)).json()) as { rows: Record<string, string>[] }
  expect(ended.rows[0]).toMatchObject({ state: 'done', note: 'Brought to safety' })
  await officer.close()
  await other.close()
})

test('who is safe says where, and nothing else is asked', async () => {
  await desk.page.getByRole('link', { name: '我平安' }).click()
  await desk.isSound('the form of who is safe')
  await desk.picture('residents-safe-desk')
  expect(await desk.page.getByLabel('哪栋楼').inputValue()).toBe('1')
  await desk.page.getByRole('button', { name: '发送' }).click()
  await desk.page.getByText('已记录').waitFor()
  phone.complaints.splice(0, phone.complaints.length, ...phone.complaints.filter((said) => !said.includes('400')))
  await desk.close()
  await phone.close()
})
