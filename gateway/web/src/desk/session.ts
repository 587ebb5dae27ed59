/** Who is asking: how one comes in, what one may do, and the screen that locks. */

import { computed, ref, shallowRef } from 'vue'
import { ask, command, Problem, whenLocked } from '../api/client'
import type { Address, Done, Myself, Right } from '../api/wire'

/** A touch keeps the screen open; told to anmin at most so often. */
const TOUCH_MS = 60_000

export const me = shallowRef<Myself | null>(null)
/** What was tried wants the password first. */
export const lockAsked = ref(false)

/** Why somebody who came back from the provider was not let in, in the words of anmin. */
const REASONS = ['away', 'unsound', 'refused', 'late', 'no_role', 'disabled', 'full', 'busy'] as const
export const notAdmitted = ref<(typeof REASONS)[number] | null>(null)

/** What must be done before the desk is shown, if anything. */
export const waitsFor = computed<'sign_in' | 'set_up' | 'password' | null>(() => {
  const said = me.value
  if (said === null) return null
  if (said.must_change) return 'password'
  if (!said.signed_in && (said.door === 'sign_in' || said.door === 'set_up')) return said.door
  return null
})

/** Until anmin has said it everything is offered: it decides in any case. */
export function may(right: Right): boolean {
  return me.value === null || me.value.rights.includes(right)
}

export async function loadMyself(): Promise<void> {
  me.value = await ask<Myself>('/session')
  // Who could not open a locked screen there is told so where they asked for it.
  if (notAdmitted.value !== null && me.value.locked) lockAsked.value = true
}

/** Leaves for the provider: who comes back is signed in, or their locked screen is open. */
export async function goToProvider(): Promise<void> {
  location.assign((await command<Address>('/session/oidc', {})).address)
}

/** The desk begins anew for whoever has come in: nothing that somebody else has seen stays on the screen. */
function begin(): void {
  location.reload()
}

export async function signIn(account: string, password: string, code: string): Promise<void> {
  await command<Myself>('/session', { account, password, ...(code === '' ? {} : { code }) })
  begin()
}

export async function setUp(code: string, account: string, shown: string, password: string): Promise<void> {
  await command<Myself>('/session/set-up', { code, account, shown, password })
  begin()
}

export async function signOut(everywhere: boolean): Promise<void> {
  await command<Done>(everywhere ? '/session/sign-ins/end' : '/session/sign-out', {})
  begin()
}

export async function changePassword(old: string, fresh: string): Promise<void> {
  await command<Done>('/session/password', { old, new: fresh })
  await loadMyself()
}

export async function lock(): Promise<void> {
  await command<Done>('/session/lock', {})
  lockAsked.value = true
}

export async function unlock(password: string): Promise<void> {
  await command<Done>('/session/unlock', { password })
  lockAsked.value = false
}

export function startSession(): void {
  const came = new URLSearchParams(location.search).get('oidc')
  if (came !== null) {
    notAdmitted.value = REASONS.find((reason) => reason === came) ?? null
    history.replaceState(null, '', `${location.pathname}${location.hash}`)
  }
  whenLocked(() => {
    lockAsked.value = true
  })
  let touched = performance.now()
  const touch = () => {
    const now = performance.now()
    if (!me.value?.account || lockAsked.value || now - touched < TOUCH_MS) return
    touched = now
    command<Done>('/session/touch', {}).catch((error: unknown) => {
      // What keeps it from being told is told by everything else.
      if (!(error instanceof Problem)) throw error
    })
  }
  for (const event of ['pointerdown', 'keydown']) document.addEventListener(event, touch, { passive: true })
}
