/** Large type, fewer things, high contrast: a switch that this device keeps. */

import { ref, watchEffect } from 'vue'
import { remember, remembered } from './memory'

export const elder = ref(remembered('elder') === 'yes')

export function switchElder(on: boolean): void {
  elder.value = on
  remember('elder', on ? 'yes' : 'no')
}

export function start(): void {
  watchEffect(() => document.documentElement.classList.toggle('elder', elder.value))
}
