/** From the first set-up to signing out everywhere: who comes in sees and may do what their role gives. One story. */

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DESK, launch, PHONE, Watched } from './browser'
import { stage } from './stage'

const CODE = process.env.ANMIN_TOKEN ?? ''
const PASSWORD = 'correct horse battery staple'

let browser: Browser
let admin: Watched
let manager: Watched
let once = ''

const field = (watched: Watched, name: string | RegExp) => watched.page.getByRole('dialog').getByLabel(name)
const press = (watched: Watched, name: string) => watched.page.getByRole('button', { name, exact: true }).click()
const quiet = (watched: Watched) => watched.page.locator('.signal.live').waitFor()

/** The first time: with the password for once, then one of one's own. */
async function firstSignIn(watched: Watched, account: string): Promise<void> {
  await signIn(watched, account, once)
  await watched.page.getByRole('dialog', { name: '请设置自己的密码' }).waitFor()
  await field(watched, '收到的一次性密码').fill(once)
  await field(watched, /^新密码/).fill(PASSWORD)
  await field(watched, '再输一次新密码').fill(PASSWORD)
  await press(watched, '保存')
}

async function signIn(watched: Watched, account: string, password: string): Promise<void> {
  await watched.page.getByRole('dialog', { name: '登录' }).waitFor()
  await field(watched, '账号名').fill(account)
  await field(watched, '密码').fill(password)
  await watched.page.keyboard.press('Enter')
}

beforeAll(async () => {
  browser = await launch()
  admin = await Watched.open(browser, DESK, '#/system')
})

afterAll(async () => {
  await browser?.close()
})

test('while nobody has an account the box says that it is open, and the code makes the first administrator', async () => {
  await admin.page.getByText('尚未建立账号').waitFor()
  await press(admin, '初始设置')
  await field(admin, '初始设置码').fill('aaaa-aaaa-aaaa-aaaa')
  await field(admin, '账号名').fill('li')
  await field(admin, '姓名').fill('李主管')
  await field(admin, /^新密码/).fill(PASSWORD)
  await field(admin, '再输一次新密码').fill(PASSWORD)
  await admin.isSound('the first set-up')
  await admin.picture('set-up-desk')
  // The browser reports each refusal; the page must not.
  admin.cut = true
  await press(admin, '建立管理员')
  await admin.page.getByRole('alert').filter({ hasText: '初始设置码不对' }).waitFor()
  await field(admin, '初始设置码').fill(CODE)
  await press(admin, '建立管理员')
  await admin.page.getByRole('heading', { name: /李主管/ }).waitFor()
  admin.cut = false
  await quiet(admin)
})

test('an account is added with a password for once', async () => {
  await press(admin, '新增账号')
  await field(admin, '账号名').fill('zhao')
  await field(admin, '姓名').fill('赵经理')
  await field(admin, '角色').selectOption('manager')
  await field(admin, '1号楼').check()
  await admin.isSound('a new account')
  await admin.picture('account-desk')
  await press(admin, '保存')
  once = await admin.page.locator('.secret').innerText()
  expect(once).toMatch(/^[a-z0-9]{4}(-[a-z0-9]{4}){3}$/)
  await press(admin, '已记下')
  await admin.page.locator('.people li', { hasText: '待改密码' }).waitFor()
  await admin.isSound('the accounts')
})

test('a property manager sets a password, sees the own building only, and is offered what the role may do', async () => {
  await stage('gas flat-501 30')
  await stage('gas flat-201 60')
  await admin.page.getByRole('link', { name: '值班' }).click()
  await admin.page.locator('.card.alarm', { hasText: '501' }).waitFor()
  await admin.page.locator('.card.alarm', { hasText: '201' }).waitFor()
  manager = await Watched.open(browser, PHONE)
  await manager.page.getByRole('dialog', { name: '登录' }).waitFor()
  await manager.isSound('signing in on a phone')
  await manager.picture('sign-in-phone')
  manager.cut = true
  await signIn(manager, 'zhao', 'not my password at all')
  await manager.page.getByRole('alert').filter({ hasText: '不对' }).waitFor()
  await firstSignIn(manager, 'zhao')
  await manager.page.locator('.card.alarm', { hasText: '501' }).waitFor()
  manager.cut = false
  expect(await manager.page.locator('.card.alarm').count()).toBe(1)
  expect(await manager.page.locator('main').innerText()).not.toContain('201')
  await manager.page.locator('.card.alarm h2 a, .alarm h3 a, .alarm a').first().click()
  await manager.page.locator('article.detail').getByRole('button', { name: /^确认/ }).waitFor()
  expect(await manager.page.getByRole('button', { name: /搁置|停用|应答/ }).count()).toBe(0)
  await manager.isSound('the detail for a manager')
  await manager.picture('manager-phone')
  await manager.page.locator('article.detail').getByRole('button', { name: /^确认/ }).click()
  await manager.page.locator('article.detail').getByRole('button', { name: /^再按一次/ }).click()
  await admin.page.locator('.card.alarm', { hasText: '501' }).getByText('赵经理').waitFor()
})

test('an officer of one building sees and does what lies there, and the account says what that leaves out', async () => {
  await admin.page.getByRole('link', { name: '系统' }).click()
  await press(admin, '新增账号')
  await field(admin, '账号名').fill('sun')
  await field(admin, '姓名').fill('孙值班')
  await field(admin, '角色').selectOption('officer')
  await admin.page.getByRole('dialog').getByText('按网格').click()
  await field(admin, '1号楼').check()
  const leavesOut = admin.page.getByText('未选此项的值班员看不到平台自身的故障')
  await leavesOut.waitFor()
  await admin.isSound('the places of an officer')
  await admin.picture('places-desk')
  await field(admin, /^不属于任何楼栋的/).check()
  await leavesOut.waitFor({ state: 'detached' })
  await field(admin, /^不属于任何楼栋的/).uncheck()
  await press(admin, '保存')
  once = await admin.page.locator('.secret').innerText()
  await press(admin, '已记下')
  await admin.page.locator('.people li', { hasText: '孙值班' }).getByText(/值班员 · 1\b/).waitFor()

  const officer = await Watched.open(browser, PHONE)
  officer.cut = true
  await firstSignIn(officer, 'sun')
  await officer.page.locator('.card.alarm', { hasText: '501' }).waitFor()
  officer.cut = false
  expect(await officer.page.locator('.card.alarm').count()).toBe(1)
  expect(await officer.page.locator('main').innerText()).not.toContain('201')
  expect(await officer.page.getByRole('link', { name: '消防站' }).count()).toBe(0)
  await officer.page.locator('.card.alarm h2 a').click()
  const detail = officer.page.locator('article.detail')
  await detail.getByRole('button', { name: '搁置…' }).click()
  await officer.page.getByRole('dialog').getByRole('button', { name: '正在检修' }).click()
  await officer.page.getByRole('dialog').getByRole('button', { name: '搁置', exact: true }).click()
  await detail.getByText('已搁置').waitFor()
  await officer.isSound('the detail for an officer of one building')
  await officer.picture('officer-of-one-building-phone')

  // What is theirs becomes part of what began elsewhere: that it did comes by itself, and nothing of what lies there.
  const incident = () => detail.locator('.part a').evaluateAll((links) => links.map((link) => link.getAttribute('href')))
  const [own] = await incident()
  await admin.page.getByRole('link', { name: '值班' }).click()
  await admin.page.locator('.card.alarm', { hasText: '501' }).locator('h2 a').click()
  const whole = admin.page.locator('article.detail')
  await whole.locator('.part').getByRole('link').click()
  await whole.getByLabel('并入另一事件').selectOption({ index: 1 })
  await whole.getByRole('button', { name: /^并入/ }).click()
  await whole.getByRole('button', { name: /再按一次：并入/ }).click()
  await expect.poll(incident, { timeout: 20_000 }).toEqual([expect.not.stringContaining(own!)])
  await detail.locator('.part').getByRole('link').click()
  await detail.getByText('另有 1 条报警在您的范围以外').waitFor()
  expect(await officer.page.locator('main').innerText()).not.toContain('201')
  await officer.picture('incident-from-elsewhere-phone')
  await officer.close()
})

test('the secret of one-time passwords can be scanned', async () => {
  await admin.page.getByRole('link', { name: '系统' }).click()
  await press(admin, '启用动态验证码')
  await field(admin, '密码').fill(PASSWORD)
  await admin.page.keyboard.press('Enter')
  await admin.page.getByRole('img', { name: '身份验证器应用用的密钥二维码' }).waitFor()
  await admin.isSound('the code to scan')
  await admin.picture('totp-desk')
  await press(admin, '取消')
  await admin.page.getByRole('dialog').waitFor({ state: 'detached' })
})

test('a locked screen goes on showing and wants the password before it acts', async () => {
  await admin.page.getByRole('link', { name: '系统' }).click()
  await press(admin, '锁定')
  await admin.page.getByRole('dialog', { name: '屏幕已锁定' }).waitFor()
  await admin.isSound('a locked screen')
  await field(admin, '密码').fill(PASSWORD)
  await press(admin, '解锁')
  await admin.page.getByRole('dialog').waitFor({ state: 'detached' })
})

test('signing out everywhere shuts every screen of the account at once', async () => {
  const other = await Watched.open(browser, DESK, '#/system')
  await signIn(other, 'zhao', PASSWORD)
  await other.page.getByRole('heading', { name: /赵经理/ }).waitFor()
  expect(await other.page.getByRole('heading', { name: '账号', exact: true }).count()).toBe(0)
  other.cut = manager.cut = true
  await press(other, '退出所有设备')
  for (const watched of [other, manager]) await watched.page.getByRole('dialog', { name: '登录' }).waitFor()
  await other.close()
  await manager.close()
  await admin.close()
})
