/** Light or dark: as the system has it, until this device is told otherwise. */

import { computed, ref, watchEffect } from 'vue'
import { remember, remembered } from './memory'

export const THEMES = ['system', 'light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

/** What was remembered; anything else is as the system has it. */
export function themeOf(kept: string | null): Theme {
  return THEMES.find((theme) => theme === kept) ?? 'system'
}

export function isDark(theme: Theme, systemIsDark: boolean): boolean {
  return theme === 'system' ? systemIsDark : theme === 'dark'
}

/** What a phone's browser paints around the page. */
const AROUND = { light: '#f3f5f7', dark: '#10161c' }

export const theme = ref<Theme>(themeOf(remembered('theme')))
const systemIsDark = ref(false)
const shown = computed(() => (isDark(theme.value, systemIsDark.value) ? 'dark' : 'light'))

export function switchTheme(to: Theme): void {
  theme.value = to
  remember('theme', to)
}

export function start(): void {
  const system = window.matchMedia('(prefers-color-scheme: dark)')
  systemIsDark.value = system.matches
  system.addEventListener('change', ({ matches }) => {
    systemIsDark.value = matches
  })
  watchEffect(() => {
    for (const name of ['light', 'dark']) document.documentElement.classList.toggle(name, name === shown.value)
    for (const meta of document.querySelectorAll<HTMLMetaElement>('meta[name=theme-color]')) meta.content = AROUND[shown.value]
  })
}
