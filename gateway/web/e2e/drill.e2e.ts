/** A drill on a site that is real: started at the desk, told apart from what is real on every screen, ended, and its report kept. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
let desk: Watched
let phone: Watched

const both = () => [desk, phone]
const strip = ({ page }: Watched) => page.locator('.exercise')
const played = ({ page }: Watched) => page.locator('.card.alarm.drilled')
const real = ({ page }: Watched) => page.locator('.card.alarm:not(.drilled)')
/** How many red ones the head of the list counts. */
const red = ({ page }: Watched) => page.locator('.levels .level.red b').innerText()

async function twice(watched: Watched, name: string): Promise<void> {
  await watched.page.getByRole('button', { name: new RegExp(`^${name}`) }).click()
  await watched.page.locator('button.armed:not([aria-disabled=true])', { hasText: `再按一次：${name}` }).click()
}

beforeAll(async () => {
  browser = await launch()
  await stage('gas flat-1 1')
  await stage('gas flat-2 1')
  desk = await Watched.open(browser, DESK)
  await desk.page.evaluate(() => localStorage.setItem('anmin.officer', '李值班'))
  phone = await Watched.open(browser, PHONE)
})

afterAll(async () => {
  await browser?.close()
})

test('it is started by two taps, and every screen says so from then on', async () => {
  for (const watched of both()) {
    await watched.page.getByRole('heading', { name: '没有报警' }).waitFor()
    expect(await strip(watched).count()).toBe(0)
  }
  await desk.page.goto(`${URL}/#/system`)
  await desk.page.reload()
  const card = desk.page.locator('section.card', { hasText: '还没有演练记录' })
  await card.getByLabel('情景').selectOption('kitchen-gas')
  await card.getByLabel(/^楼栋/).fill('1')
  await card.getByLabel(/^时长/).fill('30')
  await twice(desk, '开始演练')
  for (const watched of both()) await expect.poll(() => strip(watched).innerText()).toMatch(/演练[\s\S]*正在演练，\d\d:\d\d/)
  await desk.isSound('a drill that is on')
  await desk.picture('drill-desk')
})

test('what it plays is marked on the card, in the alarm and at the calls, and counts for nothing', async () => {
  await desk.page.goto(`${URL}/#/now`)
  for (const watched of both()) {
    await played(watched).first().waitFor()
    expect(await played(watched).first().locator('.drill-mark').innerText()).toBe('演练')
    expect(await red(watched)).toBe('0')
    expect(await real(watched).count()).toBe(0)
  }
  await expect.poll(() => desk.page.title()).toMatch(/^\(1\) 红色 【演练】/)
  await played(desk).first().locator('h2 a').click()
  await expect.poll(() => desk.page.locator('article.detail .message').innerText()).toMatch(/^【演练】/)
  await desk.isSound('an alarm of a drill')
  await phone.isSound('a drill on a phone')
  await phone.picture('drill-phone')
})

test('a real alarm in the middle of it stands above it, unmarked', async () => {
  await stage('gas flat-2 60')
  for (const watched of both()) {
    await real(watched).waitFor()
    expect(await real(watched).locator('.drill-mark').count()).toBe(0)
    expect(await watched.page.locator('.card.alarm').first().getAttribute('class')).not.toContain('drilled')
    expect(await red(watched)).toBe('1')
  }
  await expect.poll(() => desk.page.title()).toMatch(/^\(1\) 红色 可燃/)
  await real(desk).locator('h2 a').click()
  await expect.poll(() => desk.page.locator('article.detail .message').innerText()).not.toContain('演练')
  await desk.picture('drill-and-real-desk')
})

test('ended by two taps, its alarms are gone, what is real stays, and its report can be kept', async () => {
  await desk.page.goto(`${URL}/#/system`)
  await twice(desk, '结束演练')
  for (const watched of both()) await strip(watched).waitFor({ state: 'detached' })
  const row = desk.page.locator('li', { hasText: '已结束' })
  const download = desk.page.waitForEvent('download')
  await row.getByRole('button', { name: '下载报告' }).click()
  expect((await download).suggestedFilename()).toMatch(/^drill-.*\.html$/)
  await desk.isSound('a drill that is over')
  await desk.page.goto(`${URL}/#/now`)
  for (const watched of both()) {
    await played(watched).waitFor({ state: 'detached' })
    expect(await real(watched).count()).toBe(1)
    await watched.close()
  }
})
