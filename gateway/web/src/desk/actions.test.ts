import { expect, test } from 'vitest'
import { ALARM_STATES, type CallState } from '../api/wire'
import { acts, folded, leading, runningClock, steps, wayOf } from './actions'
import { alarm, call } from './made'

test('each state of an alarm offers what makes sense in it', () => {
  const offers = ALARM_STATES.map((state) => {
    const { next, more } = acts(alarm('a', { state }))
    return `${state}: ${next} | ${more.join(' ')}`
  })
  expect(offers).toEqual([
    'normal: null | ',
    'unacknowledged: acknowledge | shelve out-of-service',
    'acknowledged: null | reset shelve out-of-service',
    'returned_unacknowledged: acknowledge | shelve out-of-service',
    'latched: reset | shelve out-of-service',
    'shelved: unshelve | acknowledge out-of-service',
    'suppressed: null | ',
    'out_of_service: return-to-service | acknowledge',
  ])
})

test('each state of a call offers its next step and runs its own clock', () => {
  const states: CallState[] = [
    'called', 'accepted', 'on_the_way', 'on_scene', 'under_control', 'stood_down', 'declined', 'unanswered',
  ]
  const said = states.map((state) => {
    const one = call('a', { state })
    return `${state}: ${steps(one).next}, ${runningClock(one)?.what ?? 'no clock'}`
  })
  expect(said).toEqual([
    'called: accept, respond',
    'accepted: on-the-way, arrive',
    'on_the_way: on-scene, arrive',
    'on_scene: under-control, control',
    'under_control: stand-down, no clock',
    'stood_down: null, no clock',
    'declined: accept, no clock',
    'unanswered: accept, no clock',
  ])
})

test('a station that is called again begins its way again', () => {
  const went = (...states: CallState[]) => {
    const steps = states.map((state, n) => ({ state, at: `14:0${n}`, by: 'li', why: '' }))
    return wayOf(call('a', { steps, state: states[states.length - 1] ?? 'called' })).map(({ at, done }) => [at, done])
  }
  expect(went('called')).toEqual([['14:00', true], [null, false], [null, false], [null, false], [null, false]])
  expect(went('called', 'accepted', 'on_scene')).toEqual([['14:00', true], ['14:01', true], [null, true], ['14:02', true], [null, false]])
  expect(went('called', 'accepted', 'declined', 'called')).toEqual([['14:03', true], [null, false], [null, false], [null, false], [null, false]])
  expect(went('called', 'unanswered')).toEqual([['14:00', true], [null, false], [null, false], [null, false], [null, false]])
})

test('a station called for several alarms of one incident is one card, the furthest call', () => {
  const one = (alarm: string, station: string, state: CallState) => call(alarm, { station, state })
  const cards = folded([one('a', 'st-1', 'accepted'), one('a', 'st-2', 'declined'), one('b', 'st-1', 'on_scene')])
  expect(cards.map(({ alarm, station, state }) => [alarm, station, state])).toEqual([
    ['b', 'st-1', 'on_scene'],
    ['a', 'st-2', 'declined'],
  ])
})

test('the crew that is nearest to coming speaks for an alarm', () => {
  const states = (...list: CallState[]) => list.map((state, n) => call('a', { state, station: `st-${n}` }))
  expect(leading([])).toBe(undefined)
  expect(leading(states('unanswered', 'called'))?.state).toBe('called')
  expect(leading(states('called', 'on_the_way'))?.state).toBe('on_the_way')
  expect(leading(states('declined', 'unanswered'))?.station).toBe('st-1')
})
