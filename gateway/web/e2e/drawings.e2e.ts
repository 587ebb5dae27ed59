/** A map and a floor: what stands on them by name and state, by keyboard and by touch, and what is not drawn. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

let browser: Browser
beforeAll(async () => {
  browser = await launch()
})
afterAll(() => browser.close())

test('an alarm is on the map at once, and a key opens its place', async () => {
  const watched = await Watched.open(browser, DESK, '#/plan')
  const { page } = watched
  const requests: string[] = []
  page.on('request', (request) => requests.push(request.url()))
  await page.getByRole('heading', { name: '楼栋与楼层' }).waitFor()
  expect(requests.filter((url) => url.includes('DrawingView')), 'a map that nobody looks at is not loaded').toEqual([])
  await page.getByRole('button', { name: '图纸' }).click()
  await page.getByRole('heading', { name: '小区图' }).waitFor()
  const three = page.getByRole('button', { name: /^1号楼/ })
  await three.waitFor()
  await stage('gas flat-501 60')
  await page.getByRole('button', { name: /^1号楼 红色.*1 条报警/ }).waitFor()
  await page.locator('path.outline.place.red').waitFor()
  expect(await three.innerText()).toContain('红色')
  await watched.isSound('the map with an alarm')
  await watched.picture('drawings-map')

  await three.focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: '1号楼', exact: true }).last().waitFor()
  expect(page.url()).toContain('#/plan/%40site/b1///')
  await page.getByRole('heading', { name: '这里的报警' }).waitFor()
  expect(await three.getAttribute('aria-current')).toBe('true')
  // The list says the same, for those to whom a map says nothing.
  await page.getByRole('link', { name: '1号楼', exact: true }).waitFor()
  await page.getByRole('button', { name: '放大' }).click()
  await page.getByRole('button', { name: '显示全图' }).click()

  // A floor: what is marked on it, and what is not.
  await page.getByRole('link', { name: '1号楼5层图' }).click()
  await page.locator('canvas.sheet').waitFor()
  await page.getByRole('button', { name: /^厨房 红色/ }).waitFor()
  await page.getByRole('heading', { name: /未画在这张图上/ }).waitFor()
  await watched.isSound('a floor')
  await watched.picture('drawings-floor')
  await page.reload()
  await page.getByRole('button', { name: /^厨房 红色/ }).waitFor()

  await page.getByRole('button', { name: '楼栋', exact: true }).click()
  await page.getByRole('heading', { name: '楼栋与楼层' }).waitFor()
  await watched.close()
})

test('an incident shows where it is and the floors around', async () => {
  const watched = await Watched.open(browser, PHONE, '#/now')
  const { page } = watched
  await page.locator('.card a').first().click()
  await page.locator('a[href*="incident/"]').first().click()
  await page.getByRole('heading', { name: '位置和相邻楼层' }).waitFor()
  await page.getByRole('button', { name: /^厨房 红色/ }).waitFor()
  await page.getByRole('link', { name: '5层', exact: true }).waitFor()
  await watched.isSound('an incident with its place, on a phone')
  await watched.picture('drawings-incident')
  await watched.close()
})
