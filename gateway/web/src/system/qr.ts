/** A text as a QR code: one path in units of a module, without the quiet zone around it. */

import { generate } from 'lean-qr'
import { toSvgPath } from 'lean-qr/extras/svg'

export interface Qr {
  /** Modules from side to side. */
  size: number
  path: string
}

export function qr(text: string): Qr {
  const code = generate(text)
  return { size: code.size, path: toSvgPath(code) }
}
