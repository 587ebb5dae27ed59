/** Where one is, kept in the address after `#` so that Back works and a screen can be bookmarked. */

import { computed, ref } from 'vue'

/** The last two are reached from the system's page. */
export const TABS = ['now', 'stations', 'plan', 'points', 'log', 'reports', 'system', 'rules', 'audit'] as const
export type Tab = (typeof TABS)[number]

export interface Route {
  tab: Tab
  /** What is chosen in it: an alarm's or a point's id. */
  chosen: string | null
}

export function parse(hash: string): Route {
  const [, name = '', ...rest] = hash.replace(/^#/, '').split('/')
  const tab = TABS.find((tab) => tab === name) ?? 'now'
  try {
    const chosen = rest.map(decodeURIComponent).join('/')
    return { tab, chosen: chosen === '' ? null : chosen }
  } catch {
    return { tab, chosen: null }
  }
}

export function address(tab: Tab, chosen: string | null = null): string {
  return chosen === null ? `#/${tab}` : `#/${tab}/${chosen.split('/').map(encodeURIComponent).join('/')}`
}

const hash = ref('')

/** Follows the browser's address from now on. */
export function follow(): void {
  hash.value = location.hash
  window.addEventListener('hashchange', () => {
    hash.value = location.hash
  })
}

export const route = computed(() => parse(hash.value))

/** Goes there as a link would. */
export function go(tab: Tab, chosen: string | null): void {
  location.hash = address(tab, chosen)
}

/** Goes there without a new entry for Back. */
export function instead(tab: Tab, chosen: string | null): void {
  history.replaceState(null, '', address(tab, chosen))
  hash.value = location.hash
}
