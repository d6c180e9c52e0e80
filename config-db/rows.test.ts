import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { SwitchError } from '../base/errors.ts';
import { groupId } from '../base/identifiers.ts';
import {
  columnsOf,
  configurationTables,
  decodeConfigurationChange,
  encodeConfigurationChange,
  keyColumnsOf,
  parseConfigurationRow,
  toSqlRow,
  type ConfigurationChange,
  type ConfigurationTable,
} from './rows.ts';

const range = {
  prefix: '990001',
  group_id: 'a',
  description: 'debit',
  issuer: 'Harbour',
  durability: 'quorum',
  hold_days: 7,
};
const limit = { prefix: '990001', currency: '840' };
const link = { link_id: 'acquirer', acquiring_institutions: '*', partial_approval: true, deadline_ms: 5_000 };

function refusal(message: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof SwitchError);
    assert.equal(error.code, 'CONFIGURATION_ROW_INVALID');
    assert.match(error.message, message);
    return true;
  };
}

const noStandIn = { stand_in_floor_minor: null, stand_in_card_count: null, stand_in_card_minor: null };

describe('a canonical row', () => {
  test('is the same whether it is read from YAML, JSON or SQLite', () => {
    const expected = {
      ...limit,
      ...noStandIn,
      transaction_maximum_minor: 500n,
      daily_maximum_minor: null,
      daily_maximum_count: 3,
    };
    const forms = [
      { ...limit, transaction_maximum_minor: 500, daily_maximum_count: 3 },
      { ...limit, transaction_maximum_minor: '500', daily_maximum_minor: null, daily_maximum_count: 3 },
      { ...limit, transaction_maximum_minor: 500n, daily_maximum_minor: null, daily_maximum_count: 3n },
    ];
    for (const form of forms) assert.deepEqual(parseConfigurationRow('range_limit', form), expected);
    for (const truth of [true, 1, 1n]) {
      assert.equal(parseConfigurationRow('acquirer_link', { ...link, partial_approval: truth }).partial_approval, true);
    }
  });

  test('has default values where the file may leave a column out', () => {
    assert.equal(parseConfigurationRow('acquirer_link', link).unmatched_reversal_request_code, '25');
    assert.deepEqual(parseConfigurationRow('range_limit', limit), {
      ...limit,
      ...noStandIn,
      transaction_maximum_minor: null,
      daily_maximum_minor: null,
      daily_maximum_count: null,
    });
  });

  test('goes into SQLite as numbers, texts and nulls only, and comes back', () => {
    const row = parseConfigurationRow('acquirer_link', link);
    assert.deepEqual(toSqlRow(row), { ...link, partial_approval: 1, unmatched_reversal_request_code: '25' });
    assert.deepEqual(parseConfigurationRow('acquirer_link', toSqlRow(row)), row);
  });

  const refused: [name: string, table: ConfigurationTable, values: unknown, message: RegExp][] = [
    [
      'a prefix of 20 digits',
      'pan_range',
      { ...range, prefix: '9'.repeat(20) },
      /^pan_range\.prefix: expected 0 to 19 digits$/,
    ],
    [
      'a prefix that YAML read as a number',
      'pan_range',
      { ...range, prefix: 990_001 },
      /prefix: expected digits in quotes/,
    ],
    ['letters in a prefix', 'pan_range', { ...range, prefix: '99x' }, /prefix: expected 0 to 19/],
    ['an unknown durability', 'pan_range', { ...range, durability: 'disk' }, /durability: invalid option/],
    ['half a day', 'pan_range', { ...range, hold_days: 1.5 }, /hold_days: expected a whole number, 1 to 365/],
    ['a group id of capitals', 'pan_range', { ...range, group_id: 'A' }, /group_id: expected a lower-case letter/],
    [
      'a card number in a description',
      'pan_range',
      { ...range, description: 'as 9900010000000019' },
      /description: looks like a card/,
    ],
    [
      'a line break in a description',
      'pan_range',
      { ...range, description: 'a\nb' },
      /description: control characters/,
    ],
    ['an unknown column', 'pan_range', { ...range, owner: 'n1' }, /^pan_range\.owner: unknown key$/],
    ['a missing column', 'pan_range', { prefix: '' }, /pan_range\.group_id: .*pan_range\.description: /],
    [
      'a limit of 2^53',
      'range_limit',
      { ...limit, daily_maximum_minor: 2 ** 53 },
      /daily_maximum_minor: expected whole minor units/,
    ],
    ['a negative limit', 'range_limit', { ...limit, daily_maximum_minor: -1 }, /expected whole minor units/],
    ['a limit with decimals', 'range_limit', { ...limit, daily_maximum_minor: '1.00' }, /expected whole minor units/],
    ['an unknown currency', 'range_limit', { ...limit, currency: '999' }, /currency: expected a known numeric/],
    [
      'an institution of letters',
      'acquirer_link',
      { ...link, acquiring_institutions: 'x' },
      /acquiring_institutions: expected \*/,
    ],
    [
      'a yes for a truth',
      'acquirer_link',
      { ...link, partial_approval: 'yes' },
      /partial_approval: expected true or false/,
    ],
    ['no row at all', 'failover_map', null, /^failover_map: /],
  ];
  for (const [name, table, values, message] of refused) {
    test(`is refused with its path: ${name}`, () => {
      assert.throws(() => parseConfigurationRow(table, values), refusal(message));
    });
  }

  test('knows its columns and its key', () => {
    assert.deepEqual(configurationTables, [
      'failover_map',
      'pan_range',
      'range_move',
      'range_limit',
      'merchant_limit',
      'node_state',
      'acquirer_link',
      'rewrite_rule_set',
    ]);
    assert.deepEqual(keyColumnsOf('range_limit'), ['prefix', 'currency']);
    for (const table of configurationTables) {
      const columns = columnsOf(table);
      assert.deepEqual(columns.slice(0, keyColumnsOf(table).length), keyColumnsOf(table));
    }
  });
});

describe('a change', () => {
  test('survives its JSON form, whatever the amounts', () => {
    const amount = fc.option(fc.bigInt({ min: 0n, max: 999_999_999_999n }));
    fc.assert(
      fc.property(amount, amount, fc.option(fc.nat(1_000_000)), (transaction, daily, count) => {
        const row = {
          stand_in_floor_minor: daily,
          stand_in_card_count: count,
          stand_in_card_minor: transaction,
          prefix: '990001',
          currency: '840',
          transaction_maximum_minor: transaction,
          daily_maximum_minor: daily,
          daily_maximum_count: count,
        };
        const change: ConfigurationChange = { table: 'range_limit', operation: 'put', row };
        assert.deepEqual(decodeConfigurationChange(encodeConfigurationChange(change)), change);
      }),
    );
  });

  test('has one JSON form, whatever the order of its properties', () => {
    const one = { group_id: groupId('a'), failover_order: 'n1>n2' };
    const other = { failover_order: 'n1>n2', group_id: groupId('a') };
    const texts = [one, other].map((row) =>
      encodeConfigurationChange({ table: 'failover_map', operation: 'put', row }),
    );
    assert.equal(texts[0], texts[1]);
  });

  test('may delete a row by its key', () => {
    const change: ConfigurationChange = { table: 'pan_range', operation: 'delete', key: { prefix: '990001' } };
    const text = encodeConfigurationChange(change);
    assert.equal(text, '{"table":"pan_range","operation":"delete","key":{"prefix":"990001"}}');
    assert.deepEqual(decodeConfigurationChange(text), change);
  });

  const refused: [text: string, message: RegExp][] = [
    ['{', /change: not JSON/],
    ['null', /^change: /],
    ['{"table":"cards","operation":"put","row":{}}', /change\.table: /],
    ['{"table":"pan_range","operation":"drop"}', /change\.operation: /],
    [
      '{"table":"pan_range","operation":"delete","key":{"prefix":"1","group_id":"a"}}',
      /pan_range\.group_id: unknown key/,
    ],
    ['{"table":"pan_range","operation":"delete","row":{"prefix":"1"}}', /change\.row: unknown key/],
  ];
  for (const [text, message] of refused) {
    test(`is refused: ${text}`, () => {
      assert.throws(() => decodeConfigurationChange(text), refusal(message));
    });
  }
});
