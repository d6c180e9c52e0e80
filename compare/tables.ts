import { hash } from 'node:crypto';

import { configGroup, type GroupId } from '../base/identifiers.ts';
import { allDerivedColumnsOf, derivedTables } from '../config-db/rewrite.ts';
import { columnsOf, configurationTables, keyColumnsOf } from '../config-db/rows.ts';
import { canonicalFormat } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';

/**
 * What of a group's file is compared. The columns are listed here rather than read from the file, so that a column
 * that somebody added or dropped in one copy is a finding and no different idea of equality.
 */

function table(name: string, keyColumns: string, columns: string, jsonColumns: string[] = []): TableSpecification {
  const [keys, others] = [keyColumns.split(' '), columns.split(' ')];
  return {
    name,
    keyColumns: keys,
    columns: [...keys, ...others],
    derivedColumns: [],
    jsonColumns,
    throughApplied: name === 'log',
  };
}

const log = table('log', 'log_index', 'term body hash', ['body']);

const ledgerTables: readonly TableSpecification[] = [
  table(
    'card',
    'card_id',
    'pan_hash pan_key_version pan_cipher expiry status currency limit_minor held_minor posted_minor usage_date' +
      ' usage_count usage_minor changed_at_index number version change entered_at_ms entered_by origin deleted_at_ms',
  ),
  table('card_place', 'card_id', 'bin left_by'),
  table('card_version', 'card_id version', 'change entered_at_ms entered_by origin expiry status limit_minor'),
  table(
    'card_restriction',
    'restriction_id',
    'card_id number status entered_at_ms entered_by origin log_index lifted_at_index',
  ),
  table('card_import', 'file prefix', 'through_line log_index entered_at_ms entered_by origin'),
  table('card_replaced_number', 'pan_hash', 'card_id number status'),
  table(
    'card_transaction',
    'log_index',
    'request_key mti_class link card_id acquirer terminal merchant stan transmission rrn processing_code amount_minor' +
      ' currency business_date response_code authorization_code additional_amounts decided_at_ms state billed_minor' +
      ' held_minor posted_minor hold_expires_at_ms original_index restores_minor config_index attempt',
  ),
  table('reversal_tombstone', 'log_index', 'card_id match_key link terminal tombstone', ['tombstone']),
  table('repeat_attempt', 'transaction_index attempt', 'log_index'),
  table('undelivered_attempt', 'attempt', 'log_index request_key transaction_index released'),
  table(
    'resolution',
    'offered_group offered_term offered_index',
    'offered_hash offered_by log_index entered_at_ms outcome reason request_key card_id',
  ),
  table(
    'stand_in',
    'attempt',
    'log_index node sequence card_id request_key outcome transaction_index amount_minor overspent_minor approved_at_ms' +
      ' entered_at_ms',
  ),
  table(
    'range_move',
    'move',
    'direction prefix nested other_group log_index end_index parts cards through rows_hash config_index',
    ['nested'],
  ),
];

const bookkeepingColumns = ['origin', 'entered_by', 'entered_at_ms', 'changed_at_index'];

const configurationSpecifications: readonly TableSpecification[] = configurationTables.map((name) => ({
  name,
  keyColumns: keyColumnsOf(name),
  columns: [...columnsOf(name), ...bookkeepingColumns],
  derivedColumns: derivedTables.flatMap((table) => (table === name ? allDerivedColumnsOf(table) : [])),
  jsonColumns: [],
  throughApplied: false,
}));

const history = table(
  'configuration_history',
  'log_index position',
  'table_name row_key before after rule_set_version change_id origin entered_by entered_at_ms',
);

/** Configuration holds no card data; rows of any other table never travel. */
export function isConfigurationTable(name: string): boolean {
  return (configurationTables as readonly string[]).includes(name);
}

/** The compared tables of a group's file on a full node; the witness has the first one only. */
export function tablesOf(group: GroupId): readonly TableSpecification[] {
  return [log, ...(group === configGroup ? [...configurationSpecifications, history] : ledgerTables)];
}

/** Names the canonical format and these tables: sides of which it differs cannot be compared. */
export function formatOf(tables: readonly TableSpecification[]): string {
  const content = tables.map(({ name, keyColumns, columns }) => [name, keyColumns, columns]);
  return `${canonicalFormat}.${hash('sha256', JSON.stringify(content), 'hex').slice(0, 16)}`;
}
