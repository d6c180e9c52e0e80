/*
 * Numbers that a process counts while it works, and their text for Prometheus (exposition format 0.0.4).
 *
 * Counting is an addition in a typed array: no lookup by label, no string, no allocation. The arrays can lie in memory
 * that threads share: each number has one thread that writes it, and whoever collects reads it when asked to.
 *
 * Why not prom-client: at the time of writing its last stable release is of June 2024, under a name that is being given
 * up for a successor in alpha; it brings the OpenTelemetry API with it; and it cannot take a histogram that another
 * thread has counted.
 */

/** A number that only grows. */
export class Counter {
  readonly #cells: Float64Array;

  constructor(cells: Float64Array = new Float64Array(1)) {
    this.#cells = cells;
  }

  get value(): number {
    return this.#cells[0] ?? 0;
  }

  add(count = 1): void {
    this.#cells[0] = this.value + count;
  }
}

/** How often values fell below each of a few bounds, and their sum. */
export class Histogram {
  /** Ascending; a value counts in the first bucket whose bound it does not exceed. */
  readonly bounds: readonly number[];
  /** A cell for each bound, one for what exceeds them all, one for the sum. */
  readonly #cells: Float64Array;

  constructor(bounds: readonly number[], cells: Float64Array = new Float64Array(Histogram.cells(bounds))) {
    this.bounds = bounds;
    this.#cells = cells;
  }

  /** How long an array a histogram with these bounds needs. */
  static cells(bounds: readonly number[]): number {
    return bounds.length + 2;
  }

  observe(value: number): void {
    const { bounds } = this;
    const cells = this.#cells;
    let bucket = 0;
    while (bucket < bounds.length && value > (bounds[bucket] ?? 0)) bucket++;
    cells[bucket] = (cells[bucket] ?? 0) + 1;
    cells[bounds.length + 1] = (cells[bounds.length + 1] ?? 0) + value;
  }

  /** Of each bucket alone; the last one has no bound. */
  get counts(): readonly number[] {
    return [...this.#cells.subarray(0, this.bounds.length + 1)];
  }

  get count(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  get sum(): number {
    return this.#cells[this.bounds.length + 1] ?? 0;
  }
}

export type Labels = Readonly<Record<string, string>>;

/** One metric with all its samples. `help` says what it is, in one line. */
export type MetricFamily = { readonly name: string; readonly help: string } & (
  | {
      readonly type: 'counter' | 'gauge';
      readonly samples: readonly { readonly labels?: Labels; readonly value: number }[];
    }
  | {
      readonly type: 'histogram';
      /** What bounds and sums are multiplied with: 0.001 where milliseconds were observed, for Prometheus has seconds. */
      readonly scale: number;
      readonly samples: readonly { readonly labels?: Labels; readonly histogram: Histogram }[];
    }
);

/** The text that a scrape gets. A metric without samples is left out. */
export function formatMetrics(families: readonly MetricFamily[]): string {
  const lines: string[] = [];
  for (const family of families) {
    if (family.samples.length === 0) continue;
    lines.push(`# HELP ${family.name} ${escapeText(family.help)}`, `# TYPE ${family.name} ${family.type}`);
    if (family.type === 'histogram') {
      for (const { labels, histogram } of family.samples) {
        lines.push(...formatHistogram(family.name, labels ?? {}, histogram, family.scale));
      }
    } else {
      for (const { labels, value } of family.samples) lines.push(sample(family.name, labels ?? {}, value));
    }
  }
  return `${lines.join('\n')}\n`;
}

function formatHistogram(name: string, labels: Labels, histogram: Histogram, scale: number): string[] {
  const { bounds, counts, sum } = histogram;
  let total = 0;
  const buckets = counts.map((count, bucket) => {
    total += count;
    const bound = bounds[bucket];
    return sample(`${name}_bucket`, { ...labels, le: bound === undefined ? '+Inf' : plain(bound * scale) }, total);
  });
  return [...buckets, sample(`${name}_sum`, labels, sum * scale), sample(`${name}_count`, labels, total)];
}

function sample(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeText(text).replaceAll('"', '\\"')}"`);
  return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${plain(value)}`;
}

/** Without the last digits of binary fractions: 0.005 and not 0.005000000000000001. */
function plain(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf';
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(12)));
}

function escapeText(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
