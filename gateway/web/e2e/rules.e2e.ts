/** Limits, the audit and tokens: another number is tried on the past, set with a reason, and stands in the audit. One story. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched

const press = (name: string | RegExp) => desk.page.getByRole('button', { name, exact: typeof name === 'string' }).click()

beforeAll(async () => {
  browser = await launch()
  await stage('gas flat-501 12')
  desk = await Watched.open(browser, DESK)
  await desk.page.evaluate(() => localStorage.setItem('anmin.officer', '李值班'))
  await desk.page.reload()
  await desk.page.locator('.card.alarm').first().waitFor()
})

afterAll(async () => {
  await browser?.close()
})

test('a rule says its limits and where they come from', async () => {
  await desk.page.goto(`${URL}/#/system`)
  await desk.page.getByRole('link', { name: '规则', exact: true }).click()
  await desk.page.getByLabel('查找编号或名称').fill('leak')
  await desk.page.locator('li a', { hasText: 'gas/leak' }).click()
  const rule = desk.page.locator('article.rule')
  await rule.getByText('gas/leak', { exact: false }).first().waitFor()
  expect(await rule.locator('dl').innerText()).toContain('yellow')
  await desk.isSound('a rule')
  await desk.picture('rule-desk')
})

test('another limit is tried before it can be set', async () => {
  const form = desk.page.locator('form.change')
  expect(await form.getByRole('button', { name: '采用…' }).isDisabled()).toBe(true)
  await form.getByLabel('修改哪一项').selectOption('limit.yellow')
  await form.getByLabel(/^新数值/).fill('18')
  await form.getByRole('button', { name: '1 天' }).click()
  await form.getByRole('button', { name: '试算', exact: true }).click()
  const trial = desk.page.locator('.trial')
  await trial.getByText('消失 1').first().waitFor()
  expect(await trial.innerText()).toContain('flat-501')
  await desk.isSound('a trial')
  await desk.picture('trial-desk')
  // What was tried is not what stands in the form any more.
  await form.getByLabel(/^新数值/).fill('17')
  expect(await form.getByRole('button', { name: '采用…' }).isDisabled()).toBe(true)
  await form.getByRole('button', { name: '试算', exact: true }).click()
  await trial.getByText('消失 1').first().waitFor()
  await form.getByRole('button', { name: '采用…' }).click()
  await desk.page.getByRole('dialog').getByRole('button', { name: '误报过多' }).click()
  await desk.isSound('the reason for a limit')
  await desk.page.getByRole('dialog').getByRole('button', { name: '采用…' }).click()
  await desk.page.locator('article.rule .card', { hasText: '本站数值' }).getByText('值班台设定').waitFor()
})

test('whoever has read the limits before somebody else set one must look again', async () => {
  const other = await Watched.open(browser, DESK, '#/rules/gas/leak')
  await other.page.evaluate(() => localStorage.setItem('anmin.officer', '王班长'))
  await other.page.reload()
  for (const { page } of [other, desk]) {
    const form = page.locator('form.change')
    await form.getByLabel('修改哪一项').selectOption('limit.orange')
    await form.getByLabel(/^新数值/).fill(page === desk.page ? '30' : '31')
    await form.getByRole('button', { name: '试算', exact: true }).click()
    await page.locator('.trial').waitFor()
  }
  for (const { page } of [other, desk]) {
    await page.locator('form.change').getByRole('button', { name: '采用…' }).click()
    await page.getByRole('dialog').getByRole('button', { name: '试运行' }).click()
    desk.cut = true
    await page.getByRole('dialog').getByRole('button', { name: '采用…' }).click()
    if (page === other.page) await page.getByRole('dialog').waitFor({ state: 'detached' })
    else await page.getByRole('alert').filter({ hasText: '王班长 已于' }).waitFor()
  }
  await desk.page.keyboard.press('Escape')
  desk.cut = false
  await other.close()
})

test('the audit has both, is whole, and goes into a table', async () => {
  await desk.page.goto(`${URL}/#/audit`)
  await desk.page.locator('li', { hasText: 'rules.set' }).first().waitFor()
  await press('核验审计链')
  await desk.page.getByText(/完整：\d+ 条记录/).waitFor()
  await desk.page.getByLabel('操作人').fill('王班长')
  await press('查询')
  await desk.page.locator('li', { hasText: '李值班' }).first().waitFor({ state: 'detached' })
  expect(await desk.page.locator('ol.rows li').count()).toBeGreaterThan(0)
  await desk.isSound('the audit')
  await desk.picture('audit-desk')
  const [download] = await Promise.all([desk.page.waitForEvent('download'), press('导出表格')])
  expect(download.suggestedFilename()).toMatch(/^audit-\d{4}-\d\d-\d\d\.csv$/)
})

test('a token is shown once and revoked by two taps', async () => {
  await desk.page.goto(`${URL}/#/system`)
  await press('新建令牌')
  await desk.page.getByRole('dialog').getByLabel('名称').fill('county')
  await desk.isSound('a new token')
  await desk.page.getByRole('dialog').getByRole('button', { name: '保存' }).click()
  expect((await desk.page.locator('.secret').innerText()).length).toBeGreaterThan(20)
  await press('已记下')
  const row = desk.page.locator('.tokens li', { hasText: 'county' })
  await desk.isSound('the tokens')
  await row.getByRole('button', { name: /^吊销/ }).click()
  await row.getByRole('button', { name: /^再按一次/ }).click()
  await row.waitFor({ state: 'detached' })
})

test('elder mode is large, leaves things out, and stays on this device; paper has no buttons', async () => {
  const { page } = desk
  await page.goto(`${URL}/#/now`)
  const size = () => page.evaluate(() => parseFloat(getComputedStyle(document.body).fontSize))
  const usual = await size()
  await press('大字')
  expect(await size()).toBeCloseTo(usual * 1.25, 1)
  expect(await page.getByRole('link', { name: '测点' }).count()).toBe(0)
  await page.reload()
  await page.locator('.card.alarm').first().waitFor()
  expect(await size()).toBeCloseTo(usual * 1.25, 1)
  await desk.isSound('elder mode')
  await desk.picture('elder-desk')
  const phone = await Watched.open(browser, PHONE)
  await phone.page.evaluate(() => localStorage.setItem('anmin.elder', 'yes'))
  await phone.page.reload()
  await phone.page.locator('.card.alarm').first().waitFor()
  await phone.isSound('elder mode on a phone')
  await phone.picture('elder-phone')
  await phone.page.goto(`${URL}/#/rules`)
  await phone.page.locator('li a').first().waitFor()
  await phone.isSound('rules on a phone')
  await phone.page.evaluate(() => localStorage.setItem('anmin.elder', 'no'))
  await phone.page.goto(`${URL}/#/rules/gas/leak`)
  await phone.page.reload()
  await phone.page.locator('article.rule').waitFor()
  await phone.isSound('a rule on a phone')
  await phone.picture('rule-phone')
  await phone.close()
  await press('大字')
  expect(await size()).toBeCloseTo(usual, 1)
  await page.emulateMedia({ media: 'print' })
  await desk.picture('print')
  expect(await page.getByRole('button').count()).toBe(0)
  await page.emulateMedia({ media: 'screen' })
  await desk.close()
})
