import { say, t } from '../words'
import { count } from '../words/format'
import type { Cell } from './plan'

/** How a place stands, in words, the gravest first. */
export function standing({ state, level, alarms, blind, ill, points }: Cell): string[] {
  const words = []
  if (state === 'alarm' && level) words.push(t(`level.${level}`))
  if (state === 'alarm') words.push(t('plan.alarms', { n: count(alarms.length) }, alarms.length))
  const [spot] = blind
  if (spot && blind.length === 1) words.push(t('plan.blindOne', { kind: say(spot.title) }))
  else if (spot) words.push(t('plan.blind', { n: count(blind.length) }, blind.length))
  if (ill > 0) words.push(t('plan.ill', { n: count(ill) }, ill))
  if (state !== 'alarm' && alarms.length > 0) words.push(t('plan.silenced', { n: count(alarms.length) }, alarms.length))
  if (state === 'well') words.push(t('plan.well', { n: count(points.length) }, points.length))
  return words
}
