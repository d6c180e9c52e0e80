import type { Logger } from './log.ts';

/** Log lines of one event a second, when nothing else is said. */
const linesPerSecond = 20;

/**
 * Log lines about single requests and connections: acquirers can provoke as many as they like, so of each event some a
 * second are written, and beyond that they are counted. Call `endOfSecond` every second.
 */
export class Remarks {
  readonly #log: Logger;
  readonly #perSecond: number;
  readonly #said = new Map<string, number>();

  constructor(log: Logger, perSecond: number = linesPerSecond) {
    this.#log = log;
    this.#perSecond = perSecond;
  }

  say(level: 'info' | 'warn', event: string, details: object, message: string): void {
    const said = (this.#said.get(event) ?? 0) + 1;
    this.#said.set(event, said);
    if (said <= this.#perSecond) this.#log[level]({ event, ...details }, message);
  }

  endOfSecond(): void {
    for (const [suppressedEvent, said] of this.#said) {
      const suppressed = said - this.#perSecond;
      if (suppressed > 0) {
        this.#log.warn({ event: 'suppressed', suppressedEvent, suppressed }, 'more lines like these were not written');
      }
    }
    this.#said.clear();
  }
}
