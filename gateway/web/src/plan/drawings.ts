/** Which drawings the site has: asked for once, and again whenever the site may have been read anew. */

import { ref, shallowRef, watch } from 'vue'
import { file, read } from '../api/client'
import type { Drawing } from '../api/wire'
import { remember, remembered } from '../desk/memory'
import { go } from '../desk/route'
import { heardAt } from '../desk/state'
import { drawingKey } from './drawing'

/** `null` until it is known. */
export const drawings = shallowRef<readonly Drawing[] | null>(null)

/** The id of the drawing that this device had last, empty for the houses. */
export const lastShown = ref(remembered('drawing') ?? '')

export function showOn(drawing: Drawing | null): void {
  lastShown.value = drawing?.id ?? ''
  remember('drawing', lastShown.value)
  go('plan', drawing ? drawingKey(drawing) : null)
}

/** Asked again at most so often: an answer that is still the same has no body. */
const AGAIN_MS = 60_000

let asked = Number.NEGATIVE_INFINITY

/** A site whose drawings cannot be had has none: everything is in the houses. */
export async function loadDrawings(): Promise<void> {
  if (performance.now() - asked < AGAIN_MS) return
  asked = performance.now()
  try {
    const found = read<{ drawings: Drawing[] }>(await (await file('/drawings')).text()).drawings
    if (JSON.stringify(found) !== JSON.stringify(drawings.value)) drawings.value = found
  } catch {
    // Asked again with the next beat that is late enough; what was known stays.
    drawings.value ??= []
  }
}

watch(heardAt, () => {
  if (drawings.value !== null) void loadDrawings()
})
