/**
 * The points that the plan shows: a small site's as a whole, a larger one's building by building as they are wanted; and
 * which buildings have any that are not good.
 */

import { computed, type ComputedRef, onBeforeUnmount, onMounted, ref, type ShallowRef, shallowRef, watch } from 'vue'
import { ask } from '../api/client'
import type { Alarm, Point, PointChoices, PointPage, Sample } from '../api/wire'
import { complain } from '../desk/officer'
import { alarms, readPoints, status } from '../desk/state'
import { withChanges } from '../points/rows'
import { inOrder } from './plan'

/** A site of no more points is asked for as a whole, a larger one building by building as they are shown. */
const WHOLE = 3_000
/** Points of one building; more are left out, and it is said. */
export const MOST = 5_000
/** The API gives no more rows at once. */
const ROWS = 1_000
/** What the stream brings is put on the screen so often, and everything asked for anew so often. */
const FLUSH_MS = 1_000
const AGAIN_MS = 60_000

export interface SitePoints {
  /** All buildings that there are, `''` for what is in none. */
  names: ComputedRef<string[]>
  /** Alarms that are somewhere in the site. */
  located: ComputedRef<Alarm[]>
  /** By building, as far as they have been asked for; those of no building under ''. */
  points: ShallowRef<ReadonlyMap<string, readonly Point[]>>
  /** Buildings with points that are not good: as was said when all was asked for, and as the stream has changed it since. */
  isIll: ComputedRef<ReadonlySet<string>>
  /** Whether the site is asked for as a whole. */
  whole: ComputedRef<boolean>
  truncated: ShallowRef<boolean>
  loading: ComputedRef<boolean>
}

/** `wanted`: the buildings that are shown; `live`: readings are followed as they come, and not only asked for now and then. */
export function useSitePoints(wanted: (all: Pick<SitePoints, 'names' | 'located' | 'isIll' | 'whole'>) => string[], live = true): SitePoints {
  const choices = shallowRef<PointChoices | null>(null)
  const points = shallowRef<ReadonlyMap<string, readonly Point[]>>(new Map())
  const ill = shallowRef<ReadonlySet<string>>(new Set())
  const truncated = ref(false)
  let asked = 0

  const located = computed(() => alarms.value.filter(({ subject_type: subject }) => subject !== 'part'))
  const names = computed(() => inOrder([...(choices.value?.buildings ?? []), ...located.value.map(({ place }) => place.building), '']))
  const isIll = computed(() => {
    const now = [...points.value].filter(([, its]) => its.some(({ sample }) => sample?.quality !== 'good'))
    return new Set([...ill.value, ...now.map(([name]) => name)])
  })
  const whole = computed(() => (status.value?.points ?? 0) <= WHOLE)
  const shown = computed(() => wanted({ names, located, isIll, whole }))
  const loading = computed(() => choices.value === null || shown.value.some((name) => !points.value.has(name)))

  /** All rows of a question, `MOST` at most. */
  async function pages(parameters: Record<string, string>): Promise<Point[]> {
    const found: Point[] = []
    let next: number | null = 0
    while (next !== null && found.length < MOST) {
      // An empty building is a question, too: what stands in none.
      const asks: string = new URLSearchParams({ ...parameters, from: String(next), limit: String(ROWS) }).toString()
      const page: PointPage = await ask<PointPage>(`/points?${asks}`)
      found.push(...page.points)
      next = page.next
    }
    if (next !== null) truncated.value = true
    return found
  }

  /** Asks for what is shown; `again`: also for what is there already. */
  async function load(again: boolean): Promise<void> {
    const turn = (asked += 1)
    if (again) truncated.value = false
    try {
      choices.value ??= await ask<PointChoices>('/points/choices')
      if (whole.value) {
        if (!again && shown.value.every((name) => points.value.has(name))) return
        const all = await pages({})
        if (turn !== asked) return
        const found = new Map<string, Point[]>(names.value.map((name) => [name, []]))
        for (const point of all) {
          const its = found.get(point.place.building)
          if (its) its.push(point)
          else found.set(point.place.building, [point])
        }
        points.value = found
        ill.value = new Set(all.filter(({ sample }) => sample?.quality !== 'good').map(({ place }) => place.building))
        return
      }
      const notGood = await ask<PointPage>('/points', { quality: 'not_good', limit: String(ROWS) })
      if (turn !== asked) return
      ill.value = new Set(notGood.points.map(({ place }) => place.building))
      for (const building of shown.value) {
        if (!again && points.value.has(building)) continue
        points.value = new Map(points.value).set(building, await pages({ building }))
        // Another question is on its way, and asks for what is shown by then.
        if (turn !== asked) return
      }
    } catch (error) {
      if (turn === asked) complain(error)
    }
  }

  watch(
    () => shown.value.join('\n'),
    () => void load(false),
  )

  /** What the stream has brought since the last flush. */
  let news = new Map<string, Sample>()

  function flush(): void {
    if (news.size === 0) return
    const changed = { points: [...news].map(([id, sample]) => ({ id, sample })), truncated: false }
    const told = news
    news = new Map()
    points.value = new Map(
      [...points.value].map(([building, its]) => [building, its.some(({ id }) => told.has(id)) ? withChanges(its, changed) : its] as const),
    )
  }

  let done: () => void = () => {}
  let [flushing, again] = [0, 0]
  onMounted(() => {
    void load(false)
    if (live) {
      done = readPoints((changed) => {
        for (const { id, sample } of changed.points) news.set(id, sample)
      })
      flushing = window.setInterval(flush, FLUSH_MS)
    }
    again = window.setInterval(() => {
      if (document.visibilityState === 'visible') void load(true)
    }, AGAIN_MS)
  })
  onBeforeUnmount(() => {
    asked += 1
    done()
    window.clearInterval(flushing)
    window.clearInterval(again)
  })

  return { names, located, points, isIll, whole, truncated, loading }
}
