/** A timer that was set; `cancel` is idempotent. */
export interface Timer {
  cancel(): void;
}

/**
 * The only source of time in the project. Real time is `base/real.ts`; tests inject a clock that they advance.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch; may jump. For dates and records, never for intervals. */
  wallMs(): number;
  /** Milliseconds from an arbitrary origin; never goes back. For intervals, timeouts and leases. */
  monotonicMs(): number;
  /** Calls `action` once after `delayMs`. */
  after(delayMs: number, action: () => void): Timer;
  /** Calls `action` after the present turn of the event loop, in order. Cannot be cancelled. */
  soon(action: () => void): void;
}

/** A promise that resolves after `delayMs` of the given clock. */
export function delay(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}

/** Resolves after the present turn of the event loop: long work lets others have their turn in between. */
export function nextTurn(clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    clock.soon(resolve);
  });
}

/** Polls `condition` until it gives a value; throws what `onTimeout` returns when `timeoutMs` have passed. */
export async function waitFor<T>(
  clock: Clock,
  condition: () => T | undefined | Promise<T | undefined>,
  options: { readonly timeoutMs: number; readonly everyMs?: number; readonly onTimeout: () => Error },
): Promise<T> {
  const deadline = clock.monotonicMs() + options.timeoutMs;
  for (;;) {
    const value = await condition();
    if (value !== undefined) return value;
    if (clock.monotonicMs() >= deadline) throw options.onTimeout();
    await delay(clock, options.everyMs ?? 50);
  }
}
