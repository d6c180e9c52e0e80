import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createLogger } from './log.ts';
import { Remarks } from './remarks.ts';

test('of each event so many lines a second are written, the rest are counted, and other events are not held up', () => {
  const lines: Record<string, unknown>[] = [];
  const log = createLogger({
    process: 'n1',
    destination: { write: (line) => lines.push(JSON.parse(line) as Record<string, unknown>) },
  });
  const remarks = new Remarks(log, 3);
  for (let attempt = 1; attempt <= 10; attempt++) remarks.say('warn', 'slow-request', { attempt }, 'a slow request');
  remarks.say('info', 'acquirer-connected', { remote: '127.0.0.1:1' }, 'an acquirer connected');
  remarks.endOfSecond();
  remarks.say('warn', 'slow-request', { attempt: 11 }, 'a slow request');
  remarks.endOfSecond();
  assert.deepEqual(
    lines.map(({ event, level, attempt, suppressed, suppressedEvent }) =>
      [level, event, attempt ?? suppressedEvent ?? '', suppressed ?? ''].join(' ').trim(),
    ),
    [
      'warn slow-request 1',
      'warn slow-request 2',
      'warn slow-request 3',
      'info acquirer-connected',
      'warn suppressed slow-request 7',
      'warn slow-request 11',
    ],
  );
});
