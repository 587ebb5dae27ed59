/** What is seen of the page when another one is in front: its title and its icon. */

import { watchEffect } from 'vue'
import type { Level } from '../api/wire'
import blue from '../frame/icons/blue.svg'
import calm from '../frame/icons/calm.svg'
import lost from '../frame/icons/lost.svg'
import orange from '../frame/icons/orange.svg'
import red from '../frame/icons/red.svg'
import yellow from '../frame/icons/yellow.svg'
import { say, t } from '../words'
import { alarms, status, trusted } from './state'

const ICONS: Record<Level | 'calm' | 'lost', string> = { red, orange, yellow, blue, calm, lost }

function show(title: string, icon: keyof typeof ICONS): void {
  const site = status.value?.exercise ? `【${t('exerciseShort')}】` : ''
  document.title = `${site}${title} · ${t('anmin')}`
  const link = document.querySelector<HTMLLinkElement>('link[rel=icon]')
  if (link && !link.href.endsWith(ICONS[icon])) link.href = ICONS[icon]
}

export function start(): void {
  watchEffect(() => {
    if (trusted.value === 'lost') return show(`⚠ ${t('lost.title')}`, 'lost')
    const unseen = alarms.value.filter(({ state }) => state === 'unacknowledged' || state === 'returned_unacknowledged')
    // As at the head of the list: beside what is real a drill counts for nothing.
    const real = unseen.filter(({ drill }) => drill === null)
    const shown = real.length > 0 ? real : unseen
    const [gravest] = shown
    if (!gravest) return show(status.value ? say(status.value.name) : t('now.title'), 'calm')
    show(`(${shown.length}) ${t(`level.${gravest.level}`)} ${say(gravest.title)}`, gravest.level)
  })
  watchEffect(() => {
    document.documentElement.dataset.trust = trusted.value
  })
}
