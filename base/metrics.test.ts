import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Counter, formatMetrics, Histogram } from './metrics.ts';

test('a value counts in the first bucket whose bound it does not exceed, and beyond the last in +Inf', () => {
  const histogram = new Histogram([1, 5, 10]);
  for (const value of [0, 1, 1.5, 5, 7, 10, 11, 1000]) histogram.observe(value);
  assert.deepEqual(histogram.counts, [2, 2, 2, 2]);
  assert.equal(histogram.count, 8);
  assert.equal(histogram.sum, 1035.5);
});

test('what one thread counts in shared memory another one reads', () => {
  const cells = new Float64Array(new SharedArrayBuffer(8 * (Histogram.cells([1]) + 1)));
  const [writing, reading] = [0, 0].map(() => ({
    histogram: new Histogram([1], cells.subarray(0, 3)),
    counter: new Counter(cells.subarray(3)),
  }));
  writing?.histogram.observe(0.5);
  writing?.counter.add();
  writing?.counter.add(2);
  assert.equal(reading?.histogram.count, 1);
  assert.equal(reading.counter.value, 3);
});

test('the text is what Prometheus reads: buckets add up, times are in seconds, labels are escaped', () => {
  const histogram = new Histogram([5, 10]);
  for (const value of [3, 7, 20]) histogram.observe(value);
  const text = formatMetrics([
    { name: 'requests_total', help: 'requests', type: 'counter', samples: [{ labels: { mti: '0100' }, value: 3 }] },
    { name: 'nothing', help: 'has no samples', type: 'gauge', samples: [] },
    { name: 'time_seconds', help: 'how long', type: 'histogram', scale: 0.001, samples: [{ histogram }] },
    {
      name: 'odd',
      help: 'a \\ and a\nline',
      type: 'gauge',
      samples: [
        { labels: { a: 'quote " back \\ line\n', b: 'c' }, value: 0.1 + 0.2 },
        { value: Number.POSITIVE_INFINITY },
      ],
    },
  ]);
  assert.equal(
    text,
    `# HELP requests_total requests
# TYPE requests_total counter
requests_total{mti="0100"} 3
# HELP time_seconds how long
# TYPE time_seconds histogram
time_seconds_bucket{le="0.005"} 1
time_seconds_bucket{le="0.01"} 2
time_seconds_bucket{le="+Inf"} 3
time_seconds_sum 0.03
time_seconds_count 3
# HELP odd a \\\\ and a\\nline
# TYPE odd gauge
odd{a="quote \\" back \\\\ line\\n",b="c"} 0.3
odd +Inf
`,
  );
});
