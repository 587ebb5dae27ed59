import { expect, test } from 'vitest'
import { approvalOf, caseOf } from './plans'

test('a plan says who stands for it', () => {
  expect(approvalOf({ approved_by: '王主任', own: true })).toBe('approved')
  expect(approvalOf({ approved_by: null, own: true })).toBe('not_approved')
  expect(approvalOf({ approved_by: null, own: false })).toBe('shipped')
})

test('a plan is for a kind of case or for a hazard', () => {
  expect(caseOf({ subject: 'mediation' })).toBe('mediation')
  expect(caseOf({ subject: 'gas' })).toBe(null)
})
