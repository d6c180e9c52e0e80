import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { LatencyHistogram } from './histogram.ts';

test('a quantile is never below the true one and at most 1.6 % and a microsecond above it', () => {
  const latency = fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 60_000, noNaN: true }));
  fc.assert(
    fc.property(
      fc.array(latency, { minLength: 1, maxLength: 200 }),
      fc.constantFrom(0.01, 0.5, 0.95, 0.99, 1),
      (values, quantile) => {
        const histogram = new LatencyHistogram();
        for (const value of values) histogram.record(value);
        const sorted = values.toSorted((left, right) => left - right);
        const truth = sorted[Math.ceil(values.length * quantile) - 1] ?? 0;
        const estimate = histogram.quantileMs(quantile);
        assert.ok(estimate >= truth - 1e-9 && estimate <= truth * 1.016 + 0.001, `${estimate} for ${truth}`);
        assert.equal(histogram.maximumMs, sorted.at(-1));
        assert.equal(histogram.count, values.length);
      },
    ),
  );
});

test('nothing recorded has quantiles of 0', () => {
  assert.equal(new LatencyHistogram().quantileMs(0.99), 0);
});
