/**
 * Numbers and moments as an officer reads them. Moments are shown in the site's own time, which their RFC 3339 text
 * already carries: the time zone of the PC plays no part.
 */

import type { Value } from '../api/wire'

export type Language = 'zh-CN' | 'en'

export const millis = (stamp: string): number => Date.parse(stamp)

/** The offset at the end of a stamp, in minutes: `+08:00` is 480. */
export function offsetOf(stamp: string): number {
  const found = /([+-])(\d\d):(\d\d)$/.exec(stamp)
  if (!found) return 0
  const minutes = Number(found[2]) * 60 + Number(found[3])
  return found[1] === '-' ? -minutes : minutes
}

/** The stamp of a moment at an offset, without milliseconds. */
export function stampAt(ms: number, offset: number): string {
  const sign = offset < 0 ? '-' : '+'
  const two = (n: number) => String(n).padStart(2, '0')
  const minutes = Math.abs(offset)
  const local = new Date(ms + offset * 60_000).toISOString().slice(0, 19)
  return `${local}${sign}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`
}

/** `14:02:11`. */
export const clock = (stamp: string): string => stamp.slice(11, 19)

/** `2026-01-31`. */
export const day = (stamp: string): string => stamp.slice(0, 10)

/** `14:02:11` for a moment of today, else `01-31 14:02`, with the year where it is another one. */
export function moment(stamp: string, now: string): string {
  if (stamp.slice(0, 10) === now.slice(0, 10)) return clock(stamp)
  const date = stamp.slice(0, 4) === now.slice(0, 4) ? stamp.slice(5, 10) : stamp.slice(0, 10)
  return `${date} ${stamp.slice(11, 16)}`
}

/** The same to the second on other days, too: for what lies close together. */
export function instant(stamp: string, now: string): string {
  const said = moment(stamp, now)
  return said === clock(stamp) ? said : `${said}${stamp.slice(16, 19)}`
}

const UNITS = {
  'zh-CN': { day: '天', hour: '小时', minute: '分', second: '秒', between: '', space: '' },
  en: { day: 'd', hour: 'h', minute: 'min', second: 's', between: ' ', space: ' ' },
}

/** The two largest parts: `45秒`, `3分12秒`, `2小时5分`, `3天4小时`. */
export function duration(ms: number, language: Language): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000))
  const { day, hour, minute, second, between, space } = UNITS[language]
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), day],
    [Math.floor(seconds / 3_600) % 24, hour],
    [Math.floor(seconds / 60) % 60, minute],
    [seconds % 60, second],
  ]
  const first = parts.findIndex(([n]) => n > 0)
  const shown = first < 0 ? parts.slice(3) : parts.slice(first, first + 2)
  return shown.map(([n, unit]) => `${n}${space}${unit}`).join(between)
}

/** A running clock, up or down: `0:42`, `12:05`, `1:00:00`. */
export function countdown(ms: number): string {
  // What is left of a second still counts: 0:00 means that the time is up.
  const seconds = ms > 0 ? Math.ceil(ms / 1_000) : Math.floor(-ms / 1_000)
  const two = (n: number) => String(n).padStart(2, '0')
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60]
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`
}

/** Three decimals at most and no trailing zeros: what a person reads out loud. */
export const number = (value: number): string => String(Math.round(value * 1_000) / 1_000 || 0)

/** Thousands in groups: `1,204,331`. */
export const count = (value: number): string => value.toLocaleString('en-US')

/** `812 B`, `9.4 MiB`. */
export function size(bytes: number): string {
  if (bytes < 1_024) return `${bytes} B`
  const [amount, unit] = bytes < 1_048_576 ? [bytes / 1_024, 'KiB'] : [bytes / 1_048_576, 'MiB']
  return `${amount.toFixed(1)} ${unit}`
}

/** The unit as people write it. */
export function unit(name: string): string {
  return name === 'degC' ? '℃' : name
}

export function value(shown: Value | null, language: Language): string {
  if (shown === null) return '—'
  if (typeof shown === 'number') return number(shown)
  if (typeof shown === 'string') return shown
  if (language === 'en') return shown ? 'yes' : 'no'
  return shown ? '是' : '否'
}

/** `26.4 %LEL`; a value that is not there is a dash. */
export function measured(shown: Value | null, unitName: string, language: Language): string {
  const text = value(shown, language)
  return typeof shown === 'number' && unitName !== '' ? `${text} ${unit(unitName)}` : text
}
