/** Which of anmin's parts and surroundings a trouble is about. */

import type { Status } from '../api/wire'

/** In the order of a reading's way through anmin. */
export const AREAS = ['sources', 'judging', 'storage', 'ways_out', 'others'] as const
export type Area = (typeof AREAS)[number]

/** By the first word of a part's name, as `mqtt` in `mqtt:site`; what a newer anmin may know is among the others. */
const BY_WORD: Record<string, Area> = {
  mqtt: 'sources',
  broker: 'sources',
  http: 'sources',
  gbt26875: 'sources',
  sparkplug: 'sources',
  bus: 'sources',
  unit: 'sources',
  loss: 'sources',
  gap: 'sources',
  double: 'sources',
  suspects: 'sources',
  'warning-source': 'sources',
  rules: 'judging',
  config: 'judging',
  clock: 'judging',
  'self-test': 'judging',
  store: 'storage',
  'way-out': 'ways_out',
  subscriber: 'ways_out',
}

export function areaOf(part: string): Area {
  return BY_WORD[part.split(':')[0] ?? ''] ?? 'others'
}

export type Trouble = Status['troubles'][number]

/** The troubles of each area; an area without any is well. */
export function byArea(troubles: readonly Trouble[]): Record<Area, Trouble[]> {
  const found: Record<Area, Trouble[]> = { sources: [], judging: [], storage: [], ways_out: [], others: [] }
  for (const trouble of troubles) found[areaOf(trouble.part)].push(trouble)
  return found
}

/** Whether something is the matter with a way out itself, whatever it owes. */
export function isIll(troubles: readonly Trouble[], wayOut: string): boolean {
  return troubles.some(({ part }) => part === `way-out:${wayOut}`)
}
