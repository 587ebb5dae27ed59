/** What this device remembers from one visit to the next; a browser that refuses to store anything forgets. */

type Key = 'language' | 'officer' | 'sound' | 'elder' | 'theme' | 'drawing'

export function remembered(key: Key): string | null {
  try {
    return localStorage.getItem(`anmin.${key}`)
  } catch {
    return null
  }
}

export function remember(key: Key, text: string): void {
  try {
    localStorage.setItem(`anmin.${key}`, text)
  } catch {
    // It is known until the page is closed, which is enough to work with.
  }
}

/** The access token is kept only until the page is closed. */
export function tokenOfSession(): string | null {
  try {
    return sessionStorage.getItem('anmin.token')
  } catch {
    return null
  }
}

export function keepToken(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem('anmin.token')
    else sessionStorage.setItem('anmin.token', token)
  } catch {
    // Kept in memory only.
  }
}
