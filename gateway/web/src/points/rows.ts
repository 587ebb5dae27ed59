/** The points on the screen, kept up to date by what changes. */

import type { ChangedPoints, Point } from '../api/wire'

/** Puts newer samples into the rows they belong to. Rows that did not change stay the same objects. */
export function withChanges(rows: readonly Point[], changed: ChangedPoints): Point[] {
  const news = new Map(changed.points.map(({ id, sample }) => [id, sample]))
  return rows.map((row) => {
    const sample = news.get(row.id)
    return sample ? { ...row, sample } : row
  })
}
