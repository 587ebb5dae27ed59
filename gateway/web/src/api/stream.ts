/**
 * The live stream with resume. It reads by `fetch`, since an `EventSource` cannot carry the access token.
 *
 * It gives up only when somebody must come in first: a stream that breaks off, or is silent for longer than anmin ever is, is opened again with the id
 * of the last event seen. It does not judge whether the screen can be trusted: `desk/trust.ts` does.
 */

import { checked, headers, isShutOut } from './client'
import { EventReader, type ServerEvent } from './sse'

/** anmin speaks every five seconds: after so long the connection is dead, whatever the system thinks. */
const SILENT_MS = 15_000
const RETRY_MS = 2_000

export interface Listener {
  /** The stream is open. */
  opened(): void
  /** The stream broke off; another attempt follows by itself. */
  broke(): void
  told(event: ServerEvent): void
}

export class LiveStream {
  #listener: Listener
  #readings = false
  #last: string | null = null
  #current: AbortController | null = null
  #wake: () => void = () => {}
  #running = false

  constructor(listener: Listener) {
    this.#listener = listener
  }

  start(): void {
    if (this.#running) return
    this.#running = true
    void this.#run()
  }

  /** Readings are only sent to those who show them. */
  wantReadings(wanted: boolean): void {
    if (this.#readings === wanted) return
    this.#readings = wanted
    this.reopen()
  }

  /** Drops the connection and opens it again at once. */
  reopen(): void {
    this.#current?.abort('reopen')
    this.#wake()
  }

  async #run(): Promise<void> {
    while (this.#running) {
      const current = new AbortController()
      this.#current = current
      try {
        await this.#listen(current)
      } catch (error) {
        // Asking again would only fill the log; `start` goes on once somebody has come in. Whatever else went
        // wrong, the stream is gone and is opened again.
        if (isShutOut(error)) this.#running = false
      }
      if (current.signal.reason === 'reopen') continue
      this.#listener.broke()
      if (!this.#running) return
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, RETRY_MS)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  async #listen(current: AbortController): Promise<void> {
    let timer = 0
    const heard = () => {
      window.clearTimeout(timer)
      timer = window.setTimeout(() => current.abort('silent'), SILENT_MS)
    }
    heard()
    try {
      const more: Record<string, string> = { Accept: 'text/event-stream' }
      if (this.#last !== null) more['Last-Event-ID'] = this.#last
      const path = `/api/v1/events?readings=${this.#readings ? 'yes' : 'no'}`
      const response = await checked(
        await fetch(path, { headers: headers(more), cache: 'no-store', signal: current.signal }),
      )
      if (!response.body) return
      this.#listener.opened()
      const events = new EventReader()
      const bytes = response.body.getReader()
      const text = new TextDecoder()
      for (;;) {
        const { done, value } = await bytes.read()
        if (done) return
        heard()
        for (const event of events.push(text.decode(value, { stream: true }))) {
          if (event.id !== null) this.#last = event.id
          this.#listener.told(event)
        }
      }
    } finally {
      window.clearTimeout(timer)
    }
  }
}
