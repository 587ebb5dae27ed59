/** How buildings and floors are called. */

import { t } from '../words'

/** Numbers and letters need a word beside them, names do not. */
const numbered = (name: string) => /^[0-9A-Za-z-]+$/.test(name)

export function buildingName(building: string): string {
  if (building === '') return t('plan.elsewhere')
  return numbered(building) ? t('points.buildingOption', { building }) : building
}

export function floorName(floor: string): string {
  if (floor === '') return t('plan.noFloor')
  return numbered(floor) ? t('plan.floor', { floor }) : floor
}
