/** Warnings from above that are in force, asked for when the page opens, every half minute, and when an alarm says so. */

import { computed, ref, watch } from 'vue'
import { ask } from '../api/client'
import type { Warning } from '../api/wire'
import { alarms, listed, trusted } from './state'

const EVERY_MS = 30_000

export const warnings = ref<readonly Warning[]>([])

async function look(): Promise<void> {
  // What was known stays while anmin cannot be reached: the page says so by itself.
  if (!listed.value || trusted.value === 'lost') return
  warnings.value = await ask<Warning[]>('/warnings').catch(() => warnings.value)
}

/** Its alarm comes and goes with a warning, and changes with it. */
const said = computed(() =>
  alarms.value
    .filter(({ rule }) => rule === 'system/warning')
    .map(({ id, level, active }) => `${id} ${level} ${active}`)
    .join(),
)

watch([said, listed], look, { immediate: true })
setInterval(look, EVERY_MS)
