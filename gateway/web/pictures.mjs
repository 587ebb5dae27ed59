// The README's pictures, of a demo that runs: node pictures.mjs http://127.0.0.1:8420/ ../docs/pictures
import { chromium } from 'playwright-core'

const [url, folder] = process.argv.slice(2)
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
const screens = [
  ['desk', 1280, 800],
  ['phone', 390, 844],
]
for (const [screen, width, height] of screens) {
  for (const [word, locale] of [
    ['zh', 'zh-CN'],
    ['en', 'en-US'],
  ]) {
    const page = await browser.newPage({ viewport: { width, height }, locale, reducedMotion: 'reduce' })
    await page.goto(url)
    // The strip that says that the browser keeps quiet goes with the first tap.
    await page.getByRole('button', { name: /点此开启|tap to switch on/ }).click()
    await page.waitForTimeout(1000)
    await page.screenshot({ path: `${folder}/${screen}.${word}.png` })
    await page.close()
  }
}
await browser.close()
