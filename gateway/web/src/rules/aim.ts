/** For which point somebody has gone to a rule: its form begins with it. */

import { shallowRef } from 'vue'

export const aim = shallowRef<{ rule: string; point: string } | null>(null)
