import type { Clock } from '../../base/clock.ts';

/** ISO 8601 of the present millisecond, made once for each. */
export class Times {
  readonly #clock: Clock;
  #wallMs = -1;
  #text = '';

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  now(): string {
    const wallMs = Math.floor(this.#clock.wallMs());
    if (wallMs !== this.#wallMs) {
      this.#wallMs = wallMs;
      this.#text = new Date(wallMs).toISOString();
    }
    return this.#text;
  }
}
