/** Whatever has a name is called something that wants to run: on every page it is text, stands there whole, and turns nothing around it. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, URL, Watched } from './browser'
import { stage } from './stage'

const EVIL = process.env.ANMIN_TOKEN ?? ''
/** As the page shows it: nothing turns the writing of what stands beside it. */
const SHOWN = EVIL.replace('\u202e', ' ').trim()
/** One of the marks that turn the writing. */
const TURNS = /[\u202a-\u202e\u2066-\u2069]/

interface Named {
  id: string
}
interface Kept {
  alarm: string
  incident: string
  drill: string
  crew: string
}

let browser: Browser
let desk: Watched
let phone: Watched
let kept: Kept

async function api<T>(path: string, body?: object): Promise<T> {
  const init = body && { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  const answer = await fetch(`${URL}/api/v1${path}`, init)
  expect(answer.status, `${path}: ${await answer.clone().text()}`).toBe(200)
  return (await answer.json()) as T
}

/** What people say and do: in the same words. */
async function said(): Promise<Kept> {
  await stage('gas flat-1 60')
  let alarms: { id: string; incident: string | null; rule: string }[] = []
  await expect
    .poll(async () => {
      ;({ alarms } = await api<{ alarms: typeof alarms }>('/alarms'))
      return alarms.filter(({ rule }) => rule === 'gas/leak' || rule === 'site/hostile').length
    })
    .toBe(2)
  const { id, incident } = alarms.find(({ rule }) => rule === 'gas/leak')!
  const mine = alarms.find(({ rule }) => rule === 'site/hostile')!
  const who = EVIL
  await api(`/alarms/${mine.id}/shelve`, { who, minutes: 20, why: EVIL })
  await api(`/alarms/${id}/acknowledge`, { who })
  await api(`/alarms/${id}/calls/st-9/decline`, { who, why: EVIL })
  await api(`/incidents/${incident}/note`, { who, text: EVIL })
  await api(`/incidents/${incident}/skip`, { who, step: 'gas/valve', why: EVIL })
  await api(`/incidents/${incident}/called-119`, { who, text: EVIL })
  await api('/incidents', { who, kind: 'mediation', title: EVIL, text: EVIL, owner: EVIL, place: { building: EVIL, room: EVIL } })
  await api('/stations/st-9/hand-over', { who, crew: ['wang'], note: EVIL })
  await api('/stations/st-9/check', { who, items: ['hose'], fit: false, note: EVIL })
  const rows = [{ id: 's1', name: EVIL, capacity: '20', state: 'open', address: EVIL }]
  await api('/registers/shelters/rows', { who, rows })
  await api('/tokens', { name: 'county', role: 'office', days: 1 })
  const links = await api<{ path: string }[]>(`/alarms/${id}/calls/st-9/links`)
  const drill = await api<Named>('/drills', { who, building: EVIL, scenario: 'kitchen-gas', minutes: 30, announced: true, name: EVIL })
  return { alarm: id, incident: incident!, drill: drill.id, crew: links[0]!.path }
}

/** Nothing of it has become an element or has run, and nothing is left that would turn the writing. */
async function isText({ page }: Watched, what: string): Promise<void> {
  const found = await page.evaluate(() => ({
    made: document.querySelectorAll('img[src="x"], [onerror], [onload], [onclick]').length,
    text: document.body.innerText + [...document.querySelectorAll('*')].map((it) => ['aria-label', 'title', 'alt', 'placeholder'].map((name) => it.getAttribute(name) ?? '').join('\n')).join('\n'),
    title: document.title,
  }))
  expect(found.made, `${what}: elements that came of a name`).toBe(0)
  expect(found.text, `${what}: what stands in braces was worked out`).not.toMatch(/>"'49/)
  expect(TURNS.test(found.text + found.title), `${what}: a mark that turns the writing`).toBe(false)
}

/** The same, once it stands there so often beside the name in the head. */
async function shows(watched: Watched, what: string, least = 1): Promise<void> {
  const shown = watched.page.locator(':is(main, body:not(:has(.app)))').getByText(SHOWN)
  await expect.poll(() => shown.count(), { message: `${what}: it is shown as it is` }).toBeGreaterThanOrEqual(least)
  await isText(watched, what)
}

beforeAll(async () => {
  browser = await launch()
})

afterAll(async () => {
  await browser?.close()
})

test('on every page of the desk it is shown as it is', async () => {
  await stage('hostile')
  kept = await said()
  desk = await Watched.open(browser, DESK)
  await desk.page.evaluate((name) => localStorage.setItem('anmin.officer', name), SHOWN)
  await desk.page.reload()
  phone = await Watched.open(browser, { ...PHONE, locale: 'en-GB' })
  const { alarm, incident } = kept
  const hashes = [
    ['#/now', 2],
    [`#/now/${alarm}`, 5],
    [`#/now/incident/${incident}`, 5],
    ['#/stations', 3],
    ['#/plan', 1],
    ['#/points', 1],
    ['#/points/flat-1/lel', 2],
    ['#/log', 5],
    ['#/reports/month', 0],
    ['#/reports/past', 0],
    ['#/reports/coverage', 1],
    ['#/reports/plans', 1],
    ['#/system', 1],
    ['#/rules', 1],
    ['#/rules/site/hostile', 2],
    ['#/audit', 1],
  ] as const
  for (const [watched, some] of [[desk, hashes], [phone, hashes.slice(0, 6)]] as const) {
    for (const [hash, least] of some) {
      await watched.page.goto(`${URL}/${hash}`)
      await watched.page.locator('main > :not(.loading)').waitFor()
      await shows(watched, `${hash} of ${watched === desk ? 'the desk' : 'the phone'}`, least)
    }
  }
})

test('what is opened on a page shows it as it is, too', async () => {
  await desk.page.goto(`${URL}/#/plan`)
  await desk.page.getByRole('button', { name: '图纸' }).click()
  await desk.page.locator('button.spot', { hasText: SHOWN }).waitFor()
  await shows(desk, 'the drawing', 2)
  await desk.picture('hostile-plan')
  await desk.page.goto(`${URL}/#/points`)
  await desk.page.getByRole('button', { name: '接纳设备 stranger' }).click()
  await desk.page.getByRole('dialog').waitFor()
  await isText(desk, 'the dialog of a strange device')
  await desk.page.keyboard.press('Escape')
  const cell = `"${EVIL.replaceAll('"', '""')}"`
  await desk.page.getByLabel('要导入的设备 CSV 文件').setInputFiles({
    name: `${SHOWN.replaceAll('/', '')}.csv`,
    mimeType: 'text/csv',
    buffer: Buffer.from(`编号,名称,型号,位置\r\nk1,${cell},${cell},b1\r\n`),
  })
  await desk.page.getByText(/第 2 行/).first().waitFor()
  await isText(desk, 'a sheet with a fault')
  await desk.page.goto(`${URL}/#/now`)
  await expect.poll(() => desk.page.title()).toContain('安民')
  await isText(desk, 'the title')
})

test('nor does it run on the pages of residents and crews, or in what is printed', async () => {
  const month = new Date().toISOString().slice(0, 7)
  const pages = ['residents', 'residents?lang=en', kept.crew.slice(1), `api/v1/drills/${kept.drill}/report`, `api/v1/reports/month/${month}/report`]
  for (const path of pages) {
    await desk.page.goto(`${URL}/${path}`)
    await shows(desk, path)
  }
  await desk.page.goto(`${URL}/residents/say`)
  await desk.page.locator('input[name=need]').first().check()
  await desk.page.locator('input[name=room]').fill(EVIL)
  await desk.page.locator('[name=said]').fill(EVIL)
  await desk.page.locator('select[name=building]').selectOption('1')
  await desk.page.getByRole('button', { name: '发送' }).click()
  await expect.poll(async () => (await api<{ rows: object[] }>('/registers/help')).rows.length).toBe(1)
  await isText(desk, 'what was sent')
  await desk.page.goto(`${URL}/#/reports/registers`)
  for (const [kind, least] of [['shelters', 2], ['help', 1]] as const) {
    await desk.page.locator('main select').first().selectOption(kind)
    await shows(desk, `the register of ${kind}`, least)
  }
  await desk.close()
  await phone.close()
})
