/** What screen readers say when something happens: one line at a time, the next one after the last. */

import { ref, watch } from 'vue'
import { say, t } from '../words'
import { moment } from '../words/format'
import { arrivals, heardAt, nowStamp, trusted } from './state'

/** Said when there is time. */
export const polite = ref('')
/** Said at once. */
export const urgent = ref('')

export function announce(text: string): void {
  polite.value = text
}

export function start(): void {
  watch(arrivals, (alarms) => {
    const [gravest] = alarms
    if (!gravest) return
    const level = t(`level.${gravest.level}`)
    const text =
      alarms.length === 1
        ? t('now.arrived', { level, title: say(gravest.title), place: say(gravest.place) })
        : t('now.arrivedMore', { n: alarms.length, level })
    const grave = gravest.level === 'red' || gravest.level === 'orange'
    ;(grave ? urgent : polite).value = text
  })
  watch(trusted, (trust, before) => {
    if (trust === 'live' && before === 'lost') announce(t('lost.back'))
    if (trust !== 'lost') return
    const time = heardAt.value === null ? '—' : moment(heardAt.value, nowStamp.value)
    urgent.value = t('lost.told', { time })
  })
}
