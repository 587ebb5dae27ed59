import { expect, test } from 'vitest'
import { qr } from './qr'

/** Which modules the path makes dark: it is of closed outlines, and what lies to the left of a module is counted. */
function dark(path: string, size: number): boolean[][] {
  const outlines = path.split('Z').map((outline) => [...outline.matchAll(/[ML](\d+) (\d+)/g)].map(([, x, y]) => [Number(x), Number(y)] as const))
  const edges = outlines.flatMap((corners) =>
    corners.map(([x, y], n) => {
      const [, before = y] = corners.at(n - 1) ?? []
      return { x, from: Math.min(y, before), to: Math.max(y, before) }
    }),
  )
  return Array.from({ length: size }, (_, row) =>
    Array.from({ length: size }, (_, column) =>
      edges.filter(({ x, from, to }) => x <= column && from <= row && row < to).length % 2 === 1,
    ),
  )
}

test('three corners have the pattern by which apps find the code', () => {
  const { size, path } = qr('otpauth://totp/anmin:li?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=anmin')
  expect((size - 21) % 4).toBe(0)
  expect(size, 'small enough for a phone').toBeLessThan(60)
  const modules = dark(path, size)
  const finder = ['1111111', '1000001', '1011101', '1011101', '1011101', '1000001', '1111111']
  for (const [row, column] of [
    [0, 0],
    [0, size - 7],
    [size - 7, 0],
  ] as const) {
    const found = finder.map((_, n) => modules[row + n]!.slice(column, column + 7).map(Number).join(''))
    expect(found, `at ${row} ${column}`).toEqual(finder)
  }
})

test('another text is another code', () => {
  expect(qr('one').path).not.toBe(qr('two').path)
})
