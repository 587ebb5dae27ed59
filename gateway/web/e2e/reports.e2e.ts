/** What is looked up, kept in lists and printed; and a walk test from the first detector to the list of those not tested. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched

const twice = async (name: string | RegExp) => {
  const button = desk.page.getByRole('button', { name })
  await button.click()
  // A double click is one tap.
  await desk.page.waitForTimeout(400)
  await desk.page.locator('button.armed, button[data-state="armed"]').or(button).first().click()
}

beforeAll(async () => {
  browser = await launch()
  await stage('gas flat-501 2')
  desk = await Watched.open(browser, DESK)
  await desk.page.evaluate(() => localStorage.setItem('anmin.officer', '李值班'))
  await desk.page.goto(`${URL}/#/system`)
  await desk.page.reload()
})

afterAll(async () => {
  await browser?.close()
})

test('a detector that is pressed in a walk test is ticked off and no alarm', async () => {
  const card = desk.page.locator('section.card', { hasText: '还没有巡检测试记录' })
  await card.waitFor()
  await twice('开始巡检测试')
  await desk.page.getByText(/正在巡检测试/).first().waitFor()
  await stage('gas flat-501 30')
  await desk.page.getByText(/仍未恢复即为真实报警/).first().waitFor()
  await desk.isSound('a walk test')
  await desk.picture('walk-desk')
  await stage('gas flat-501 0')
  await desk.page.getByText(/已测 1 \/ /).first().waitFor()
  await desk.page.getByRole('link', { name: '查看测试覆盖情况' }).click()
  await desk.page.getByText(/天内已测试 1 \/ /).waitFor()
  await desk.isSound('coverage')
  await desk.picture('coverage-desk')
  await desk.page.goto(`${URL}/#/points/flat-501/lel`)
  await desk.page.getByText('由 李值班 进行的巡检测试').waitFor()
  await desk.isSound('a point that was tested')
  await desk.page.getByText('由 李值班 进行的巡检测试').scrollIntoViewIfNeeded()
  await desk.picture('tested-desk')
  await desk.page.goBack()
})

test('a spreadsheet with a fault changes nothing, and a sound one is previewed before it is taken', async () => {
  await desk.page.getByRole('link', { name: '登记表' }).click()
  const choose = (text: string) =>
    desk.page.getByLabel('文件', { exact: true }).setInputFiles({ name: '物资.csv', mimeType: 'text/csv', buffer: Buffer.from(text) })
  await desk.page.getByText('没有记录').waitFor()
  await choose('编号,名称,数量\r\ns1,灭火器,许多\r\n')
  await desk.page.getByText(/第 2 行/).waitFor()
  await desk.isSound('a sheet with a fault')
  await choose('编号,名称,数量,最低数量,存放位置\r\ns1,灭火器,4,10,消防站\r\ns2,沙袋,200,50,车库\r\n')
  await desk.page.getByText('新增 2，修改 0，删除 0，不变 0').waitFor()
  expect(await desk.page.locator('tbody tr').count()).toBe(0)
  await twice('导入')
  await desk.page.locator('tbody tr').nth(1).waitFor()
  await desk.isSound('a register')
  await desk.picture('register-desk')
})

test('what somebody else has written meanwhile is not written over, and is loaded by a button', async () => {
  await desk.page.locator('tbody tr').first().getByRole('button', { name: '修改' }).click()
  const headers = { 'Content-Type': 'application/json' }
  const body = JSON.stringify({ who: '王仓管', rows: [{ id: 's1', name: '灭火器', quantity: '3', minimum: '10' }] })
  expect((await fetch(`${URL}/api/v1/registers/stock/rows`, { method: 'POST', headers, body })).status).toBe(200)
  desk.cut = true
  await desk.page.getByLabel(/^数量/).fill('8')
  await desk.page.getByRole('button', { name: '保存' }).click()
  await desk.page.getByRole('alert').getByText(/王仓管 已于 \d\d:\d\d:\d\d 先行修改/).waitFor()
  await desk.isSound('somebody else was first')
  await desk.picture('register-changed-desk')
  await desk.page.getByRole('button', { name: '重新载入' }).click()
  await desk.page.getByRole('cell', { name: '3', exact: true }).waitFor()
  expect(await desk.page.getByRole('alert').innerText()).toBe('')
  desk.cut = false
})

test('one row is changed by hand', async () => {
  const row = desk.page.locator('tbody tr', { hasText: '沙袋' })
  await row.getByRole('button', { name: '修改' }).click()
  const form = desk.page.locator('form.row')
  await form.getByLabel(/^数量/).fill('30')
  await form.getByRole('button', { name: '保存' }).click()
  await desk.page.locator('tbody tr', { hasText: '沙袋' }).getByText('30', { exact: true }).waitFor()
})

test('the month and the past stand on both screens in both languages, and on paper', async () => {
  const phone = await Watched.open(browser, PHONE, '#/reports/past')
  for (const [on, what] of [[desk, 'desk'], [phone, 'phone']] as const) {
    for (const [part, name] of [['month', '月报'], ['past', '历史事件'], ['coverage', '测试覆盖'], ['registers', '登记表'], ['plans', '处置预案']] as const) {
      await on.page.goto(`${URL}/#/reports/${part}`)
      await on.page.getByRole('link', { name, exact: true }).and(on.page.locator('[aria-current="true"]')).waitFor()
      await on.page.locator('.reports .card').first().waitFor()
      await on.isSound(`${part} on the ${what}`)
      await on.picture(`reports-${part}-${what}`)
    }
  }
  await desk.page.goto(`${URL}/#/reports/month`)
  // Low stock is on the month's page and a notice of the site.
  await desk.page.getByText('灭火器').first().waitFor()
  await desk.page.emulateMedia({ media: 'print' })
  expect(await desk.page.getByRole('link', { name: '历史事件' }).isVisible()).toBe(false)
  await desk.picture('reports-month-paper')
  await desk.page.emulateMedia({ media: 'screen' })
  await phone.page.getByRole('button', { name: /English|EN/ }).first().click()
  await phone.page.getByRole('heading', { name: 'Reports' }).waitFor()
  await phone.isSound('reports in English')
  // Six words of a foreign tongue fit side by side.
  expect(await phone.page.locator('.tabs').evaluate((of) => of.scrollWidth - of.clientWidth)).toBe(0)
  await phone.picture('reports-phone-en')
  await phone.close()
  await desk.close()
})
