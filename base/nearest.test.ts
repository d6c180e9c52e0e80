import assert from 'node:assert/strict';
import { test } from 'node:test';

import { nearest } from './nearest.ts';

test('a slip of one or two letters finds the word that was meant, anything else finds none', () => {
  const words = ['acquirer', 'site', 'id', 'heartbeatMs', 'electionTimeoutMs'];
  for (const [text, meant] of [
    ['acqirer', 'acquirer'],
    ['aqcuirer', 'acquirer'],
    ['Site', 'site'],
    ['sites', 'site'],
    ['heartbeatms', 'heartbeatMs'],
    ['electionTimeout', 'electionTimeoutMs'],
    ['ids', 'id'],
    ['colour', undefined],
    ['', undefined],
    ['xy', undefined],
  ] as const) {
    assert.equal(nearest(text, words), meant, text);
  }
});
