import { LatencyHistogram } from './histogram.ts';
import type { Operation } from './load-mix.ts';

export interface LatencySummary {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly p999: number;
  readonly maximum: number;
}

/** What a load did and got. */
export interface LoadSummary {
  /** Every request was answered, once, with its own echo, and nothing was left open. */
  readonly clean: boolean;
  readonly interrupted: boolean;
  readonly seed: number;
  readonly startedAt: string;
  readonly durationMs: number;
  /** Different requests; attempts are not counted. */
  readonly requests: number;
  readonly answers: number;
  readonly approved: number;
  readonly declined: number;
  readonly unanswered: number;
  /** Attempts after the first. */
  readonly repeats: number;
  /** 0420 sent because a request remained unanswered; they are among `requests` too. */
  readonly reversalsOfUnanswered: number;
  readonly answersPerSecond: number;
  /** From the first sending of a request to its answer, repeats included. Milliseconds. */
  readonly latencyMs: LatencySummary;
  /** How late the generator itself was, against its rate; 0 in a closed loop. */
  readonly generatorLateMs: number;
  /** MTI of the request, DE 39 of its answer, count. */
  readonly byMti: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly byOperation: Readonly<Record<string, number>>;
  readonly byNode: Readonly<Record<string, number>>;
  /** Attempts that got no answer, by reason. */
  readonly failedAttempts: Readonly<Record<string, number>>;
  readonly unexpected: UnexpectedCounts;
  readonly examples: readonly string[];
  readonly journal: string | undefined;
}

/** Answers that should not be. All but `late` make a load unclean. */
export interface UnexpectedCounts {
  /** An answer to nothing that was asked. */
  readonly unknown: number;
  /** A second answer to an attempt that had one. */
  readonly duplicate: number;
  /** An answer to an attempt that had been given up: allowed, and compared with the answer that counted. */
  readonly late: number;
  readonly undecodable: number;
  /** Answers with a field that is not as it was sent, not there, or of the wrong MTI. */
  readonly wrongEcho: number;
  /** Attempts of one request, or a request and its repeat, that got different decisions. */
  readonly contradicting: number;
}

const examplesKept = 20;

/** Counts while a load runs. */
export class LoadCounts {
  readonly latency = new LatencyHistogram();
  /** Of the answers since the last line for people. */
  readonly recentLatency = new LatencyHistogram();
  readonly unexpected = { unknown: 0, duplicate: 0, late: 0, undecodable: 0, wrongEcho: 0, contradicting: 0 };
  readonly examples: string[] = [];
  requests = 0;
  answers = 0;
  approved = 0;
  unanswered = 0;
  repeats = 0;
  reversalsOfUnanswered = 0;
  generatorLateMs = 0;
  readonly #byMti = new Map<string, Map<string, number>>();
  readonly #byOperation = new Map<string, number>();
  readonly #byNode = new Map<string, number>();
  readonly #failedAttempts = new Map<string, number>();

  get inFlight(): number {
    return this.requests - this.answers - this.unanswered;
  }

  /** Declines by DE 39 over all MTIs. */
  get declines(): ReadonlyMap<string, number> {
    const declines = new Map<string, number>();
    for (const codes of this.#byMti.values()) {
      for (const [code, count] of codes) if (!isApproval(code)) declines.set(code, (declines.get(code) ?? 0) + count);
    }
    return declines;
  }

  started(operation: Operation): void {
    this.requests += 1;
    increment(this.#byOperation, operation);
  }

  answered(mti: string, responseCode: string, node: string, latencyMs: number): void {
    this.answers += 1;
    if (isApproval(responseCode)) this.approved += 1;
    this.latency.record(latencyMs);
    this.recentLatency.record(latencyMs);
    let codes = this.#byMti.get(mti);
    if (codes === undefined) this.#byMti.set(mti, (codes = new Map<string, number>()));
    increment(codes, responseCode);
    increment(this.#byNode, node);
  }

  attemptFailed(reason: string): void {
    increment(this.#failedAttempts, reason);
  }

  /** `text` holds no card data. */
  fault(kind: Exclude<keyof UnexpectedCounts, 'late'>, text: string): void {
    this.unexpected[kind] += 1;
    if (this.examples.length < examplesKept) this.examples.push(`${kind}: ${text}`);
  }

  summary(run: {
    readonly seed: number;
    readonly startedAt: string;
    readonly durationMs: number;
    readonly interrupted: boolean;
    readonly journal: string | undefined;
  }): LoadSummary {
    const { late: _late, ...faults } = this.unexpected;
    const faultless = Object.values(faults).every((count) => count === 0);
    return {
      clean: faultless && this.unanswered === 0 && this.inFlight === 0,
      ...run,
      durationMs: Math.round(run.durationMs),
      requests: this.requests,
      answers: this.answers,
      approved: this.approved,
      declined: this.answers - this.approved,
      unanswered: this.unanswered,
      repeats: this.repeats,
      reversalsOfUnanswered: this.reversalsOfUnanswered,
      answersPerSecond: Math.round((this.answers / Math.max(1, run.durationMs)) * 1_000),
      latencyMs: {
        p50: this.latency.quantileMs(0.5),
        p95: this.latency.quantileMs(0.95),
        p99: this.latency.quantileMs(0.99),
        p999: this.latency.quantileMs(0.999),
        maximum: rounded(this.latency.maximumMs),
      },
      generatorLateMs: rounded(this.generatorLateMs),
      byMti: Object.fromEntries(sorted(this.#byMti).map(([mti, codes]) => [mti, Object.fromEntries(sorted(codes))])),
      byOperation: Object.fromEntries(this.#byOperation),
      byNode: Object.fromEntries(sorted(this.#byNode)),
      failedAttempts: Object.fromEntries(sorted(this.#failedAttempts)),
      unexpected: { ...this.unexpected },
      examples: this.examples,
    };
  }
}

/** 00, and 10 for a part. */
export function isApproval(responseCode: string): boolean {
  return responseCode === '00' || responseCode === '10';
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function sorted<Value>(counts: ReadonlyMap<string, Value>): [string, Value][] {
  return [...counts].sort(([left], [right]) => (left < right ? -1 : 1));
}

function rounded(milliseconds: number): number {
  return Math.round(milliseconds * 1_000) / 1_000;
}

function milliseconds(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}

/** One line while the load runs; the latencies are those since the line before. */
export function formatLiveLine(counts: LoadCounts, elapsedMs: number): string {
  const declines = [...counts.declines].map(([code, count]) => `${code}:${count}`).join(' ');
  return [
    `${(elapsedMs / 1_000).toFixed(0)} s`,
    `sent ${counts.requests}`,
    `answered ${counts.answers}`,
    `approved ${counts.approved}`,
    `declined ${counts.answers - counts.approved}${declines === '' ? '' : ` (${declines})`}`,
    `in flight ${counts.inFlight}`,
    `p50 ${milliseconds(counts.recentLatency.quantileMs(0.5))} ms`,
    `p99 ${milliseconds(counts.recentLatency.quantileMs(0.99))} ms`,
    `repeats ${counts.repeats}`,
    ...(counts.unanswered === 0 ? [] : [`unanswered ${counts.unanswered}`]),
  ].join(' · ');
}

/** The summary for people. */
export function formatSummary(summary: LoadSummary): string {
  const { latencyMs, unexpected } = summary;
  const rows: [string, string][] = [
    ['requests', `${summary.requests} in ${(summary.durationMs / 1_000).toFixed(1)} s (seed ${summary.seed})`],
    [
      'answers',
      `${summary.answers} (${summary.answersPerSecond}/s): ${summary.approved} approved, ${summary.declined} declined`,
    ],
    [
      'latency',
      `p50 ${milliseconds(latencyMs.p50)} · p95 ${milliseconds(latencyMs.p95)} · p99 ${milliseconds(latencyMs.p99)} · ` +
        `p99.9 ${milliseconds(latencyMs.p999)} · max ${milliseconds(latencyMs.maximum)} ms`,
    ],
    ...Object.entries(summary.byMti).map(([mti, codes]): [string, string] => [mti, countsText(codes, ' ')]),
    ['operations', countsText(summary.byOperation, ' ')],
    ['nodes', countsText(summary.byNode, ' ')],
    ['repeats', `${summary.repeats} attempts${textInBrackets(countsText(summary.failedAttempts, ' '))}`],
    ['unanswered', `${summary.unanswered}, ${summary.reversalsOfUnanswered} of them reversed by 0420`],
    ['unexpected', countsText({ ...unexpected }, ' ')],
    ...(summary.generatorLateMs > 10
      ? [['generator', `up to ${milliseconds(summary.generatorLateMs)} ms late`] as [string, string]]
      : []),
    ...(summary.journal === undefined ? [] : [['journal', summary.journal] as [string, string]]),
    ['verdict', verdict(summary)],
  ];
  return [
    ...rows.map(([name, text]) => `${name.padEnd(11)} ${text}`),
    ...summary.examples.map((text) => `  ${text}`),
    '',
  ].join('\n');
}

function verdict(summary: LoadSummary): string {
  if (summary.clean) return 'every request was answered exactly once, with its own echo';
  return summary.unanswered > 0 ? 'NOT clean: requests remained unanswered' : 'NOT clean: see unexpected';
}

function countsText(counts: Readonly<Record<string, number>>, separator: string): string {
  return Object.entries(counts)
    .map(([name, count]) => `${name}:${count}`)
    .join(separator);
}

function textInBrackets(text: string): string {
  return text === '' ? '' : ` (${text})`;
}
