/** A device that nobody knows is taken in by three buttons, and a spreadsheet of devices after a look at what it changes. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched

/** By keyboard, as whoever has no mouse does. */
async function press(name: string | RegExp): Promise<void> {
  const button = desk.page.getByRole('button', { name })
  await button.focus()
  expect(await button.evaluate((it) => it === document.activeElement)).toBe(true)
  await desk.page.keyboard.press('Enter')
}

async function open(options: typeof DESK, hash: string, language = 'zh-CN'): Promise<Watched> {
  const watched = await Watched.open(browser, options)
  await watched.page.evaluate((chosen) => {
    localStorage.setItem('anmin.officer', '李管理')
    localStorage.setItem('anmin.language', chosen)
  }, language)
  await watched.page.goto(`${URL}/${hash}`)
  await watched.page.reload()
  return watched
}

beforeAll(async () => {
  browser = await launch()
  await stage('gas flat-501 2')
  desk = await open(DESK, '#/points')
})

afterAll(async () => {
  await browser?.close()
})

test('a device in the quarantine is taken in by three buttons, and its point appears', async () => {
  await desk.page.getByText('stranger', { exact: true }).waitFor()
  await desk.isSound('the quarantine')
  await desk.page.getByRole('button', { name: '接纳设备 stranger' }).scrollIntoViewIfNeeded()
  await desk.picture('quarantine-desk')
  await press('接纳设备 stranger')
  const dialog = desk.page.getByRole('dialog', { name: '接纳设备 stranger' })
  await dialog.getByText('按此型号，最近一条消息为：').waitFor()
  await desk.isSound('what it may be')
  // What it looks like is only a guess: a gas detector, as everybody here knows.
  await dialog.getByLabel('型号').selectOption('anmin-json-gas')
  await dialog.getByLabel('名称', { exact: true }).fill('地下室燃气')
  await dialog.getByLabel('英文名称').fill('Basement gas')
  await desk.picture('adopt-desk')
  await press('预览')
  await dialog.getByText('stranger/lel').waitFor()
  await desk.isSound('what would be written')
  await desk.picture('adopt-preview-desk')
  await press('确认接纳')
  await dialog.waitFor({ state: 'detached' })
  await desk.page.getByRole('heading', { level: 2, name: '可燃气体浓度' }).waitFor()
  await desk.page.locator('dd', { hasText: '地下室燃气' }).waitFor()
  await desk.page.locator('.rows li, .rows a', { hasText: '地下室燃气' }).first().waitFor()
  await desk.page.getByText('没有登记的设备').waitFor({ state: 'detached' })
  // What it says now counts at once.
  await stage('gas flat-501 3')
  await desk.page.locator('.value', { hasText: '3' }).waitFor()
  await desk.page.getByText('从未测试').waitFor()
  await desk.isSound('the point of a device that was taken in')
  await desk.picture('adopted-desk')
})

test('a sheet of devices with a fault writes nothing, and the mended one is looked at before it is taken', async () => {
  const choose = (text: string) =>
    desk.page.getByLabel('要导入的设备 CSV 文件').setInputFiles({ name: '设备.csv', mimeType: 'text/csv', buffer: Buffer.from(text) })
  await choose('编号,名称,型号,位置\r\nk1,一号,anmin-json-gas,b1\r\nk2,二号,anmin-json-gsa,b1\r\n')
  await desk.page.getByText(/第 3 行 profile.*设备 k2：没有型号“anmin-json-gsa”，是否应为“anmin-json-gas”？/).waitFor()
  expect(await desk.page.getByRole('button', { name: /导入设备/ }).count()).toBe(0)
  await desk.isSound('a sheet of devices with a fault')
  await desk.page.getByText(/第 3 行 profile/).scrollIntoViewIfNeeded()
  await desk.picture('devices-faulty-desk')
  await choose('编号,名称,英文名称,型号,位置\r\nk1,一号,Number one,anmin-json-gas,b1\r\nk2,二号,,anmin-json-gas,b1\r\n')
  await desk.page.getByText('新增 2，修改 0，删除 0，不变 0；新测点 6').waitFor()
  expect(await desk.page.locator('.rows', { hasText: '二号' }).count()).toBe(0)
  await desk.isSound('what a sheet of devices would change')
  await desk.picture('devices-preview-desk')
  await press(/导入设备/)
  // A double click is one tap.
  await desk.page.waitForTimeout(400)
  await desk.page.keyboard.press('Enter')
  await desk.page.getByText('已导入').waitFor()
  await desk.page.locator('.rows', { hasText: '二号' }).waitFor()
})

test('what was taken in is taken out again with a reason, and a phone shows all of it', async () => {
  await press('移出设备清单')
  const dialog = desk.page.getByRole('dialog', { name: '移出设备清单' })
  await dialog.getByLabel('原因').fill('登记有误')
  await desk.isSound('taking a device out')
  await dialog.getByRole('button', { name: '移出设备清单' }).click()
  await dialog.waitFor({ state: 'detached' })
  await stage('stranger other 2')
  for (const [language, take, title, called] of [
    ['zh-CN', '接纳设备 other', '设备清单', '一号'],
    ['en', 'Take in device other', 'List of devices', 'Number one'],
  ] as const) {
    const phone = await open(PHONE, '#/points', language)
    await phone.page.getByRole('heading', { name: title }).waitFor()
    await phone.isSound(`the list on a phone in ${language}`)
    await phone.page.getByRole('heading', { name: title }).scrollIntoViewIfNeeded()
    await phone.picture(`devices-phone-${language}`)
    await phone.page.getByRole('button', { name: take }).click()
    await phone.page.getByRole('dialog').getByRole('combobox').first().waitFor()
    await phone.isSound(`taking in on a phone in ${language}`)
    await phone.picture(`adopt-phone-${language}`)
    await phone.page.keyboard.press('Escape')
    await phone.page.goto(`${URL}/#/points/k1/lel`)
    await phone.page.getByText('k1/lel').waitFor()
    await phone.page.getByRole('definition').getByText(called, { exact: true }).waitFor()
    await phone.isSound(`a point on a phone in ${language}`)
    await phone.picture(`device-phone-${language}`)
    await phone.close()
  }
  await desk.close()
})
