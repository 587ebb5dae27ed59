/**
 * Views that no night hangs on come in files of their own, so that the first screen stays small. They are fetched as soon as
 * the browser has nothing else to do: later anmin may be away.
 */

import { type Component, defineAsyncComponent } from 'vue'
import NotLoaded from './NotLoaded.vue'

type Load = () => Promise<{ default: Component }>

const WITHIN_MS = 10_000

export function later(load: Load): Component {
  // One that fails now is fetched when it is opened.
  requestIdleCallback(() => void load().catch(() => {}), { timeout: WITHIN_MS })
  return defineAsyncComponent({ loader: load, errorComponent: NotLoaded, timeout: WITHIN_MS })
}
