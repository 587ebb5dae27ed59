/** Which alarm is heard: orange and red ones, and every call for help, that nobody has acknowledged, until somebody does or hushes them. */

import type { Alarm, Level } from '../api/wire'

/** A hushed alarm that becomes graver is heard again. */
const key = (alarm: Alarm) => `${alarm.id} ${alarm.level}`

/** A resident asks for help. */
export const isHelp = (alarm: Alarm) => alarm.rule === 'system/help'

const rings = (alarm: Alarm) =>
  alarm.state === 'unacknowledged' && (alarm.level === 'red' || alarm.level === 'orange' || isHelp(alarm))

export class Bell {
  #hushed = new Set<string>()

  /** The gravest level that must be heard now. An alarm that came back after it was hushed is heard again. */
  loudest(alarms: readonly Alarm[]): Level | null {
    const ringing = alarms.filter(rings)
    const still = new Set(ringing.map(key))
    for (const hushed of this.#hushed) if (!still.has(hushed)) this.#hushed.delete(hushed)
    const heard = ringing.filter((alarm) => !this.#hushed.has(key(alarm)))
    if (heard.some(({ level }) => level === 'red')) return 'red'
    return heard.length > 0 ? 'orange' : null
  }

  /** Silences what rings now, and nothing that comes later. */
  hush(alarms: readonly Alarm[]): void {
    for (const alarm of alarms.filter(rings)) this.#hushed.add(key(alarm))
  }
}
