/**
 * Both languages, switched at once. Messages are interpreted, never compiled to code: the content security policy
 * allows no `eval`.
 */

import { computed } from 'vue'
import { createI18n } from 'vue-i18n'
import type { Text } from '../api/wire'
import { remembered, remember } from '../desk/memory'
import { en } from './en'
import * as format from './format'
import type { Language } from './format'
import { named, numberOf } from './place'
import { zh, type Words } from './zh'

function usual(): Language {
  const kept = remembered('language')
  if (kept === 'zh-CN' || kept === 'en') return kept
  return navigator.language.toLowerCase().startsWith('zh') ? 'zh-CN' : 'en'
}

export const i18n = createI18n<[Words], Language, false>({
  legacy: false,
  locale: usual(),
  fallbackLocale: 'zh-CN',
  messages: { 'zh-CN': zh, en },
})

export const t = i18n.global.t

export const language = computed<Language>(() => i18n.global.locale.value as Language)

export function speak(chosen: Language): void {
  i18n.global.locale.value = chosen
  remember('language', chosen)
}

/** The words of a text that comes in both languages. */
export function say(text: Text): string {
  return language.value === 'en' ? text.en : text.zh
}

export const measured = (shown: Parameters<typeof format.measured>[0], unit: string): string =>
  format.measured(shown, unit, language.value)

export const duration = (ms: number): string => format.duration(ms, language.value)

export function buildingName(building: string): string {
  if (building === '') return t('place.elsewhere')
  const number = numberOf(building, language.value)
  return number === null ? named(building, language.value) : t('place.building', { number })
}

export function floorName(floor: string): string {
  if (floor === '') return t('place.noFloor')
  const number = numberOf(floor, language.value)
  return number === null ? named(floor, language.value) : t('place.floor', { number })
}
