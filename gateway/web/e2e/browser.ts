/**
 * Debian's Chromium with a watchful eye: whatever the page complains about, breaks the policy with, or asks of anybody
 * but anmin is a failure, whether a story looks for it or not.
 */

import axe from 'axe-core'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { expect } from 'vitest'

export const URL = process.env.ANMIN_URL ?? 'http://127.0.0.1:8421'

export const DESK = { viewport: { width: 1280, height: 800 } }
export const PHONE = { viewport: { width: 360, height: 720 }, isMobile: true, hasTouch: true }

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--mute-audio',
    ],
  })
}

export class Watched {
  readonly complaints: string[] = []
  /** While requests must fail, the browser may say that they do. */
  cut = false
  /** Whom else the browser is sent to, each as an origin. */
  readonly beside = new Set<string>()

  private constructor(readonly page: Page) {
    const { origin } = new globalThis.URL(URL)
    page.on('pageerror', (error) => this.complaints.push(`error: ${error.message}`))
    page.on('console', (message) => {
      const network = message.text().startsWith('Failed to load resource')
      if (message.type() === 'error' && !(network && this.cut)) this.complaints.push(`console: ${message.text()} ${message.location().url}`)
    })
    page.on('dialog', (dialog) => {
      this.complaints.push(`dialog: ${dialog.message()}`)
      void dialog.dismiss()
    })
    page.on('request', (request) => {
      const asked = new globalThis.URL(request.url()).origin
      if (asked !== origin && !this.beside.has(asked)) this.complaints.push(`request: ${request.url()}`)
    })
  }

  static async open(browser: Browser, options: BrowserContextOptions, hash = ''): Promise<Watched> {
    const context = await browser.newContext({ locale: 'zh-CN', ...options })
    context.setDefaultTimeout(20_000)
    const page = await context.newPage()
    const watched = new Watched(page)
    await page.addInitScript(() => {
      const { start } = OscillatorNode.prototype
      Object.assign(globalThis, { tones: 0 })
      OscillatorNode.prototype.start = function (when) {
        Object.assign(globalThis, { tones: (globalThis as unknown as { tones: number }).tones + 1 })
        start.call(this, when)
      }
      document.addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`)
      })
    })
    await page.goto(`${URL}/${hash}`)
    return watched
  }

  /** No fault of accessibility, grave or small, and nothing wider than the screen. */
  async isSound(what: string): Promise<void> {
    // Evaluated by the debugger, which the content security policy does not bind.
    await this.page.evaluate(axe.source)
    const found = await this.page.evaluate(async () => {
      const { axe } = globalThis as unknown as { axe: typeof import('axe-core') }
      const { violations } = await axe.run(document, { resultTypes: ['violations'] })
      return violations.flatMap(({ id, impact, nodes }) =>
        nodes.map((node) => `${id} (${impact}): ${node.target.join(' ')}: ${node.failureSummary}`),
      )
    })
    expect(found, what).toEqual([])
    const wider = await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    expect(wider, `${what}: wider than the screen`).toBe(0)
  }

  /** How many tones the page has sounded. */
  tones(): Promise<number> {
    return this.page.evaluate(() => (globalThis as unknown as { tones: number }).tones)
  }

  async picture(name: string): Promise<void> {
    const folder = process.env.ANMIN_PICTURES
    if (folder) await this.page.screenshot({ path: `${folder}/${name}.png` })
  }

  async close(): Promise<void> {
    await this.page.context().close()
    expect(this.complaints).toEqual([])
  }
}
