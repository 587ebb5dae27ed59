/** The geometry of a trend chart: from buckets of history to SVG paths and axis marks. It draws nothing itself. */

import type { Bucket } from '../api/wire'
import { number, stampAt } from '../words/format'

export interface Frame {
  /** What the chart covers, in milliseconds since 1970. */
  from: number
  to: number
  /** Into how many stretches of equal length that is cut. */
  stretches: number
  /** Size of the plot in pixels, axes not counted. */
  width: number
  height: number
  /** The site's offset in minutes. */
  offset: number
  /** Limits to draw in. */
  limits: readonly number[]
  /** Moments to mark. */
  moments: readonly Mark[]
}

export interface Mark {
  at: number
  text: string
}

export interface Trend {
  /** The mean of each stretch, broken where nothing was measured. */
  line: string
  /** From the smallest to the largest value of each stretch. */
  band: string
  /** Values that stand alone, which a line would not show. */
  dots: { x: number; y: number }[]
  /** Stretches in which only unusable readings came. */
  bad: { x: number; width: number }[]
  limits: { y: number; value: number }[]
  /** Those of the moments that lie inside. */
  moments: { x: number; text: string }[]
  xMarks: Mark[]
  yMarks: Mark[]
  /** Where each bucket lies, for pointing at it. */
  spots: { x: number; y: number | null; bucket: Bucket }[]
}

/** A gap is wider than so many times the usual distance between values. */
const GAP = 3

export function trend(buckets: readonly Bucket[], frame: Frame): Trend {
  const { from, to, width, height } = frame
  const x = (ms: number) => round(((ms - from) / (to - from)) * width)
  const [low, high] = range(buckets, frame.limits)
  const y = (value: number) => round(height - ((value - low) / (high - low)) * height)

  const step = usualStep(buckets)
  const spots = buckets.map((bucket) => ({
    x: x(Date.parse(bucket.at)),
    y: bucket.mean === null ? null : y(bucket.mean),
    bucket,
  }))
  const runs = cut(buckets, step * GAP)
  const dots: Trend['dots'] = []
  let [line, band] = ['', '']
  for (const run of runs) {
    const at = (bucket: Known) => x(Date.parse(bucket.at))
    const [only] = run
    if (only && run.length === 1) {
      dots.push({ x: at(only), y: y(only.mean) })
      continue
    }
    line += path(run.map((bucket) => [at(bucket), y(bucket.mean)]))
    const upper = run.map((bucket): [number, number] => [at(bucket), y(bucket.max)])
    const lower = run.map((bucket): [number, number] => [at(bucket), y(bucket.min)])
    band += `${path([...upper, ...lower.reverse()])}Z`
  }
  const bad = buckets
    .filter((bucket) => bucket.count === 0 && bucket.bad > 0)
    .map((bucket) => ({ x: x(Date.parse(bucket.at)), width: round(width / frame.stretches) }))
  return {
    line,
    band,
    dots,
    bad,
    limits: frame.limits.map((value) => ({ y: y(value), value })),
    moments: frame.moments.filter(({ at }) => at >= from && at <= to).map(({ at, text }) => ({ x: x(at), text })),
    xMarks: timeMarks(frame).map(({ at, text }) => ({ at: x(at), text })),
    yMarks: valueMarks(low, high, Math.max(2, Math.floor(height / 50))).map((value) => ({
      at: y(value),
      text: number(value),
    })),
    spots,
  }
}

type Known = { at: string; min: number; max: number; mean: number }

function isKnown(bucket: Bucket): bucket is Bucket & Known {
  return bucket.mean !== null && bucket.min !== null && bucket.max !== null
}

const round = (pixels: number) => Math.round(pixels * 10) / 10

const path = (points: readonly (readonly [number, number])[]) =>
  points.map(([x, y], n) => `${n === 0 ? 'M' : 'L'}${x} ${y}`).join('')

/** The median distance between values: a device that speaks once in five minutes has no gaps in its five-minute steps. */
function usualStep(buckets: readonly Bucket[]): number {
  const times = buckets.filter(isKnown).map((bucket) => Date.parse(bucket.at))
  const steps = times.slice(1).map((time, n) => time - (times[n] ?? time))
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? 0
}

/** Runs of values with no gap inside. */
function cut(buckets: readonly Bucket[], gap: number): Known[][] {
  const runs: Known[][] = []
  let last = Number.NEGATIVE_INFINITY
  for (const bucket of buckets) {
    if (!isKnown(bucket)) continue
    const at = Date.parse(bucket.at)
    const run = runs[runs.length - 1]
    if (run && at - last <= gap) run.push(bucket)
    else runs.push([bucket])
    last = at
  }
  return runs
}

/** From the lowest to the highest value with some air, limits included. A flat line stands in the middle. */
function range(buckets: readonly Bucket[], limits: readonly number[]): [number, number] {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const value of [...buckets.filter(isKnown).flatMap(({ min, max }) => [min, max]), ...limits]) {
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  if (low > high) return [0, 1]
  if (low === high) return [low - 1, high + 1]
  const air = (high - low) * 0.08
  // What cannot be negative is not drawn below zero.
  return [low >= 0 ? Math.max(0, low - air) : low - air, high + air]
}

/** Round values between two ends, at most `most` of them. */
export function valueMarks(low: number, high: number, most: number): number[] {
  const rough = (high - low) / most
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 5, 10].find((n) => n * power >= rough) ?? 10)
  const marks = []
  for (let n = Math.ceil(low / step); n * step <= high; n += 1) marks.push(Number((n * step).toPrecision(12)))
  return marks
}

const MINUTE = 60_000
const SECONDS = [1, 2, 5, 10, 15, 30].map((n) => n * 1_000)
const STEPS = [...SECONDS, ...[1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440, 2_880, 7_200, 10_080].map((n) => n * MINUTE)]

/** Round times of the site between the two ends, far enough apart to be read. */
function timeMarks({ from, to, width, offset }: Frame): Mark[] {
  const most = Math.max(2, Math.floor(width / 90))
  const step = STEPS.find((step) => (to - from) / step <= most) ?? (to - from) / most
  const local = offset * MINUTE
  const marks = []
  for (let at = Math.ceil((from + local) / step) * step - local; at <= to; at += step) {
    const stamp = stampAt(at, offset)
    marks.push({ at, text: step >= 1_440 * MINUTE ? stamp.slice(5, 10) : stamp.slice(11, step < MINUTE ? 19 : 16) })
  }
  return marks
}
