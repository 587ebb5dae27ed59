/** What a building or a floor is called by where it stands alone: the same as within the words of a place, which the gateway has. */

import type { Language } from './format'
import KNOWN from './place.json'

const rooms = new Map(Object.entries(KNOWN.rooms))
const isNumber = (part: string) => /^[0-9A-Za-z-]+$/.test(part)

/** The number of a part that is called by one: `3`, and in English also `3号楼`. */
export function numberOf(part: string, language: Language): string | null {
  const after = language === 'en' ? KNOWN.numbered.find((after) => part.endsWith(after)) : undefined
  const number = after === undefined ? part : part.slice(0, -after.length)
  return isNumber(number) ? number : null
}

/** A part that has a name: in English where it is one that nearly every community has. */
export function named(part: string, language: Language): string {
  const en = language === 'en' ? rooms.get(part) : undefined
  return en === undefined ? part : en.charAt(0).toUpperCase() + en.slice(1)
}
