/**
 * What is heard. Browsers let a page sound only after somebody has touched it: until then it says that it is mute.
 * The pattern repeats until the alarm is acknowledged or hushed.
 */

import { ref, watch } from 'vue'
import { Bell } from './ring'
import { remember, remembered } from './memory'
import { alarms, arrivals, now, trusted } from './state'

export type Sound = 'locked' | 'on' | 'off'
type Pattern = 'red' | 'orange' | 'lost'

export const sound = ref<Sound>(remembered('sound') === 'off' ? 'off' : 'locked')
/** What sounds now, or would if sound were on. */
export const ringing = ref<Pattern | null>(null)

/** Tones as (hertz, start, length) in seconds, and how often the whole comes again, in milliseconds. */
const PATTERNS: Record<Pattern, { tones: [number, number, number][]; everyMs: number; buzz: number[] }> = {
  red: {
    tones: [0, 0.4, 0.8].flatMap((at) => [
      [932, at, 0.16],
      [698, at + 0.2, 0.16],
    ]),
    everyMs: 3_000,
    buzz: [300, 100, 300, 100, 300],
  },
  orange: {
    tones: [
      [740, 0, 0.22],
      [740, 0.32, 0.22],
    ],
    everyMs: 6_000,
    buzz: [300, 100, 300],
  },
  lost: {
    tones: [
      [392, 0, 0.35],
      [262, 0.4, 0.5],
    ],
    everyMs: 20_000,
    buzz: [600],
  },
}

const bell = new Bell()
let lossHushed = false
let context: AudioContext | null = null
let nextAt = 0

function judge(): void {
  if (sound.value !== 'off') sound.value = context?.state === 'running' ? 'on' : 'locked'
}

async function wake(): Promise<void> {
  if (sound.value === 'off') return
  context ??= new AudioContext()
  context.onstatechange = judge
  if (context.state !== 'running') await Promise.race([context.resume(), new Promise((later) => setTimeout(later, 200))])
  judge()
}

export function switchSound(on: boolean): void {
  remember('sound', on ? 'on' : 'off')
  sound.value = on ? 'locked' : 'off'
  nextAt = 0
  if (on) void wake()
}

/** Silences what sounds now. Whatever comes later is heard. */
export function hush(): void {
  bell.hush(alarms.value)
  lossHushed = trusted.value === 'lost'
  ring()
}

function play(pattern: Pattern): void {
  if (!context || sound.value !== 'on') return
  for (const [hertz, at, length] of PATTERNS[pattern].tones) {
    const [start, end] = [context.currentTime + at, context.currentTime + at + length]
    const tone = new OscillatorNode(context, { type: 'triangle', frequency: hertz })
    const volume = new GainNode(context, { gain: 0 })
    volume.gain.setValueAtTime(0, start)
    volume.gain.linearRampToValueAtTime(0.6, start + 0.02)
    volume.gain.setValueAtTime(0.6, end - 0.03)
    volume.gain.linearRampToValueAtTime(0, end)
    tone.connect(volume).connect(context.destination)
    tone.start(start)
    tone.stop(end)
  }
}

function ring(): void {
  if (trusted.value !== 'lost') lossHushed = false
  const loudest = bell.loudest(alarms.value)
  const lost = trusted.value === 'lost' && !lossHushed ? 'lost' : null
  const pattern = loudest === 'red' || loudest === 'orange' ? loudest : lost
  if (pattern !== ringing.value) nextAt = 0
  ringing.value = pattern
  if (pattern === null || performance.now() < nextAt) return
  nextAt = performance.now() + PATTERNS[pattern].everyMs
  play(pattern)
}

export function start(): void {
  // Works at once where the browser was told to allow it, as on a kiosk.
  void wake()
  for (const gesture of ['pointerdown', 'keydown'] as const) {
    window.addEventListener(gesture, () => void wake(), { capture: true, passive: true })
  }
  watch([now, alarms, trusted], ring)
  watch(sound, () => {
    nextAt = 0
    ring()
  })
  watch(arrivals, ([gravest]) => {
    nextAt = 0
    ring()
    const pattern = gravest?.level === 'red' ? 'red' : 'orange'
    if (gravest && sound.value !== 'off' && navigator.userActivation.hasBeenActive) {
      navigator.vibrate?.(PATTERNS[pattern].buzz)
    }
  })
}
