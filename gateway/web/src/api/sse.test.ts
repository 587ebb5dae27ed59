import { expect, test } from 'vitest'
import { EventReader } from './sse'

const STREAM =
  'retry: 2000\n\nid: e-1\nevent: hello\ndata: {"now":"14:02"}\n\n: a comment\n\nevent: status\ndata: {}\n\n' +
  'id: e-2\nevent: transition\ndata: {"a":\ndata: "火"}\n\nevent: nothing\n\nevent: half'

const EXPECTED = [
  { id: 'e-1', name: 'hello', data: '{"now":"14:02"}' },
  { id: null, name: 'status', data: '{}' },
  { id: 'e-2', name: 'transition', data: '{"a":\n"火"}' },
]

test('events are the same whatever the pieces they arrive in', () => {
  for (const size of [1, 2, 3, 7, 50, STREAM.length]) {
    const reader = new EventReader()
    const events = []
    for (let at = 0; at < STREAM.length; at += size) events.push(...reader.push(STREAM.slice(at, at + size)))
    expect(events, `in pieces of ${size}`).toEqual(EXPECTED)
  }
})

test('an event that broke off in the middle is not told', () => {
  const reader = new EventReader()
  expect(reader.push('event: transition\ndata: {"a": 1}\n')).toEqual([])
  expect(reader.push('\n')).toHaveLength(1)
})
