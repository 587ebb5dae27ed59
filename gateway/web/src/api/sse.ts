/** One server-sent event. */
export interface ServerEvent {
  /** `null` where the event has none: resuming goes on from the one before. */
  id: string | null
  name: string
  data: string
}

/** Cuts a `text/event-stream` into events, whatever the pieces it arrives in (HTML standard, section 9.2.6). */
export class EventReader {
  #rest = ''

  push(piece: string): ServerEvent[] {
    const events: ServerEvent[] = []
    const text = this.#rest + piece
    let from = 0
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n', from)) {
      const event = read(text.slice(from, end))
      if (event) events.push(event)
      from = end + 2
    }
    this.#rest = text.slice(from)
    return events
  }
}

function read(block: string): ServerEvent | null {
  let id: string | null = null
  let name = 'message'
  const data: string[] = []
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':')
    // A line that starts with a colon is a comment.
    if (colon === 0) continue
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'id') id = value
    if (field === 'event') name = value
    if (field === 'data') data.push(value)
  }
  return data.length > 0 ? { id, name, data: data.join('\n') } : null
}
