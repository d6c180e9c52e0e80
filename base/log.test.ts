import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { createLogger, logLevel } from './log.ts';
import { Pan } from './pan.ts';

const clear = '4000001234567899';

function capture(): { readonly lines: string[]; readonly sink: { write(line: string): void } } {
  const lines: string[] = [];
  return { lines, sink: { write: (line) => void lines.push(line) } };
}

test('a card number never reaches the log, wherever it stood', () => {
  const { lines, sink } = capture();
  const log = createLogger({ process: 'n1', level: 'trace', destination: sink });
  const failure = new Error(`no card ${clear}`, { cause: new Error(`inner ${clear}`) });
  const entries: readonly (() => void)[] = [
    () => {
      log.info(`card ${clear}`);
    },
    () => {
      log.info({ a: { b: [{ pan: clear }] } }, 'nested');
    },
    () => {
      log.error({ err: failure }, 'failed');
    },
    () => {
      log.error(failure);
    },
    () => {
      log.info({ [clear]: 'as a key' });
    },
    () => {
      log.info({ pan: 4000001234567899, list: [4000001234567899], minus: -4000001234567899 });
    },
    () => {
      log.info({ pan: 4000001234567899n });
    },
    () => {
      log.info('4000-0012-3456-7899 and 4000 0012 3456 7899 and 4000\t0012\n3456 7899');
    },
    () => {
      log.info({ track2: `${clear}=2512101123`, hexadecimal: `${clear}D2512101123F` });
    },
    () => {
      log.info('number %s, %d, %j', clear, 4000001234567899, { pan: clear });
    },
    () => {
      log.child({ pan: clear }).warn('from a child');
    },
    () => {
      log.info({ raw: Buffer.from(clear), bytes: new Uint8Array(Buffer.from(clear)) });
    },
    () => {
      log.info({ text: `{"pan":"\\u0034${clear.slice(1)}"}` });
    },
    () => {
      log.info({ pan: Pan.parse(clear) });
    },
    () => {
      log.info({ late: { toJSON: () => ({ pan: clear }) } });
    },
  ];
  for (const [position, entry] of entries.entries()) {
    entry();
    assert.equal(lines.length, position + 1);
    const line = lines[position] ?? '';
    assert.doesNotMatch(line, /123456|001234|3456|2512|52,48,48/, line);
    assert.match(line, /\*{6}/, line);
    assert.equal(typeof JSON.parse(line), 'object', line);
  }
});

test('a line is JSON with an ISO time, its level by name and its process', () => {
  const { lines, sink } = capture();
  createLogger({ process: 'n2', destination: sink }).info({ port: 8581 }, 'ready');
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  assert.match(String(line['time']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual([line['level'], line['process'], line['msg'], line['port']], ['info', 'n2', 'ready', 8581]);
});

test('a line that cannot be masked is withheld, not written', () => {
  const { lines, sink } = capture();
  const mask = (): string => {
    throw new Error('defect');
  };
  createLogger({ process: 'n1', destination: sink, mask }).info(`card ${clear}`);
  assert.deepEqual(lines, ['{"level":"error","msg":"a log line was withheld: it could not be masked"}\n']);
});

test('a file is appended to, and each line is there when the call returns', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-log-'));
  context.after(() => {
    rmSync(folder, { recursive: true });
  });
  const file = join(folder, 'n1', 'node.log');
  createLogger({ process: 'n1', destination: file }).info('first');
  createLogger({ process: 'n1', destination: file }).info(`second ${clear}`);
  assert.equal(readFileSync(file, 'utf8').trim().split('\n').length, 2);
  assert.ok(!readFileSync(file, 'utf8').includes(clear));
});

test('QUADRANT_LOG_LEVEL sets the level, and an unknown one is refused', () => {
  assert.equal(logLevel({}), 'info');
  assert.equal(logLevel({ QUADRANT_LOG_LEVEL: 'debug' }), 'debug');
  assert.throws(() => logLevel({ QUADRANT_LOG_LEVEL: 'loud' }), { code: 'CONFIG_INVALID', message: /"loud".*debug/ });
});
