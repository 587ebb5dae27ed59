import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    dir: import.meta.dirname,
    include: ['*.e2e.ts'],
    // Each test goes on from the last: after one that failed the rest say nothing.
    bail: 1,
    reporters: ['verbose'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A machine that is busy may take its time; what never comes is still found.
    expect: { poll: { timeout: 15_000 } },
    // One story after the other: they share a site, and the machine may be small.
    fileParallelism: false,
  },
})
