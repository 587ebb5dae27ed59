/** What the list of plans says of each. */

import { CASE_KINDS, type CaseKind, type Plan } from '../api/wire'

/** Whether somebody stands for it: nobody has approved what anmin ships until the site takes it over. */
export function approvalOf({ approved_by: by, own }: Pick<Plan, 'approved_by' | 'own'>): 'approved' | 'not_approved' | 'shipped' {
  if (by !== null) return 'approved'
  return own ? 'not_approved' : 'shipped'
}

/** The kind of case that it is for; `null`: it is for a hazard. */
export function caseOf({ subject }: Pick<Plan, 'subject'>): CaseKind | null {
  return CASE_KINDS.find((kind) => kind === subject) ?? null
}
