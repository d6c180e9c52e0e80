import { z } from 'zod';

import { SwitchError } from '../base/errors.ts';
import { groupId, identifierRule, isIdentifier, type GroupId } from '../base/identifiers.ts';
import { isKnownCurrency, maximumAmount, type CurrencyCode, type MinorUnits } from '../base/money.ts';
import { maskCardData } from '../base/pan.ts';

/**
 * The canonical rows of the `config` group, as they are entered, before any node's rewrite rules. Property names are
 * the column names in SQLite. One schema for each table reads a row from YAML, from JSON and from SQLite alike:
 * amounts may be integers, bigints or decimal strings, truths may be 0 and 1; the parsed row has one form only.
 */

/** Who owns a group's cards, and who takes over in which order: every node of the topology exactly once. */
export interface FailoverMapRow {
  readonly group_id: GroupId;
  /** `n1>n2>n3>n4` */
  readonly failover_order: string;
}

/** `quorum`: the answer waits for the commit. `local`: for the owner's disk and a valid lease (rule R2). */
export type Durability = 'quorum' | 'local';

export interface PanRangeRow {
  /** 0 to 19 leading digits of the card number; the longest prefix wins; '' is the one catch-all. */
  readonly prefix: string;
  readonly group_id: GroupId;
  readonly description: string;
  readonly issuer: string;
  readonly durability: Durability;
  /** Days after which an uncompleted hold is released. */
  readonly hold_days: number;
}

/**
 * A range that is on its way to another group (R12). It stands while the move is under way; with its end the range gets
 * the group, and the row goes.
 */
export interface RangeMoveRow {
  readonly prefix: string;
  readonly to_group: GroupId;
  /** Names the move in the logs of both groups; never used again. */
  readonly move_id: string;
}

/** Limits for every card of a range, for each currency; null: no limit of that kind. */
export interface RangeLimitRow {
  readonly prefix: string;
  readonly currency: CurrencyCode;
  readonly transaction_maximum_minor: MinorUnits | null;
  readonly daily_maximum_minor: MinorUnits | null;
  readonly daily_maximum_count: number | null;
  /**
   * Stand-in: what an edge may approve by itself while the group has no owner. At most this amount each, so many
   * approvals and this sum for a card that are in no log yet. All three, or no stand-in.
   */
  readonly stand_in_floor_minor: MinorUnits | null;
  readonly stand_in_card_count: number | null;
  readonly stand_in_card_minor: MinorUnits | null;
}

/** A limit for one kind of merchant, for every card of a range, beside the range's own: the stricter counts. */
export interface MerchantLimitRow {
  readonly prefix: string;
  /** DE 18 */
  readonly merchant_category: string;
  readonly currency: CurrencyCode;
  /** 0: nothing is approved there. */
  readonly transaction_maximum_minor: MinorUnits;
}

/** A node that operators have taken out of the succession of every group; without a row a node is in service. */
export interface NodeStateRow {
  readonly node_id: string;
  readonly state: 'in-service' | 'maintenance';
  readonly reason: string;
}

export interface AcquirerLinkRow {
  readonly link_id: string;
  /** Values of DE 32 that the link may use, separated by commas, or `*`. */
  readonly acquiring_institutions: string;
  /** The acquirer understands response code 10. */
  readonly partial_approval: boolean;
  readonly deadline_ms: number;
  /** DE 39 for a 0400 whose original is not found; a 0420 gets 00. */
  readonly unmatched_reversal_request_code: string;
}

/** A version of the rewrite rules; the highest version is the one in force. */
export interface RewriteRuleSetRow {
  readonly version: number;
  /** JSON text of the list of rules. */
  readonly rules: string;
}

export interface ConfigurationRows {
  readonly failover_map: FailoverMapRow;
  readonly pan_range: PanRangeRow;
  readonly range_move: RangeMoveRow;
  readonly range_limit: RangeLimitRow;
  readonly merchant_limit: MerchantLimitRow;
  readonly node_state: NodeStateRow;
  readonly acquirer_link: AcquirerLinkRow;
  readonly rewrite_rule_set: RewriteRuleSetRow;
}

export interface ConfigurationKeys {
  readonly failover_map: Pick<FailoverMapRow, 'group_id'>;
  readonly pan_range: Pick<PanRangeRow, 'prefix'>;
  readonly range_move: Pick<RangeMoveRow, 'prefix'>;
  readonly range_limit: Pick<RangeLimitRow, 'prefix' | 'currency'>;
  readonly merchant_limit: Pick<MerchantLimitRow, 'prefix' | 'merchant_category' | 'currency'>;
  readonly node_state: Pick<NodeStateRow, 'node_id'>;
  readonly acquirer_link: Pick<AcquirerLinkRow, 'link_id'>;
  readonly rewrite_rule_set: Pick<RewriteRuleSetRow, 'version'>;
}

export type ConfigurationTable = keyof ConfigurationRows;

/** One change of one canonical row; `put` inserts or replaces the whole row. */
export type ConfigurationChange = {
  [Table in ConfigurationTable]:
    | { readonly table: Table; readonly operation: 'put'; readonly row: ConfigurationRows[Table] }
    | { readonly table: Table; readonly operation: 'delete'; readonly key: ConfigurationKeys[Table] };
}[ConfigurationTable];

/** What is wrong, and where: `pan_range[3].group_id`. Never holds a card number. */
export interface Problem {
  readonly path: string;
  readonly message: string;
}

const groupIdentifier = z
  .string()
  .refine(isIdentifier, `expected ${identifierRule}`)
  .transform((text) => groupId(text));

const prefix = z.string('expected digits in quotes').regex(/^[0-9]{0,19}$/, 'expected 0 to 19 digits');

const currency = z
  .string('expected a numeric ISO 4217 code in quotes')
  .refine(isKnownCurrency, 'expected a known numeric ISO 4217 code, three digits in quotes');

const freeText = z
  .string()
  .max(200)
  .refine(
    (text) => Array.from(text).every((each) => each >= ' ' && each !== '\u007f'),
    'control characters are not allowed',
  )
  .refine((text) => maskCardData(text) === text, 'looks like a card number');

const amountRule = `expected whole minor units, 0 to ${String(maximumAmount)}`;
const minorUnits = z
  .union([z.bigint(), z.number(), z.string()], amountRule)
  .refine((value) => typeof value === 'bigint' || /^[0-9]{1,12}$/.test(String(value)), amountRule)
  .transform((value) => BigInt(value))
  .refine((value) => value >= 0n && value <= maximumAmount, amountRule);

const truth = z
  .union([z.boolean(), z.literal([0, 1, 0n, 1n])], 'expected true or false')
  .transform((value) => Boolean(value));

/** SQLite may hand integers over as bigints. */
function integer(minimum: number, maximum: number) {
  const rule = `expected a whole number, ${minimum} to ${maximum}`;
  return z
    .union([z.bigint(), z.number()], rule)
    .transform(Number)
    .refine((value) => Number.isSafeInteger(value) && value >= minimum && value <= maximum, rule);
}

export const configurationSchemas = {
  failover_map: z.strictObject({
    group_id: groupIdentifier,
    failover_order: z.string().min(1).max(1_000),
  }),
  pan_range: z.strictObject({
    prefix,
    group_id: groupIdentifier,
    description: freeText,
    issuer: freeText,
    durability: z.enum(['quorum', 'local']),
    hold_days: integer(1, 365),
  }),
  range_move: z.strictObject({
    prefix,
    to_group: groupIdentifier,
    move_id: z.string().regex(/^[a-z0-9-]{1,40}$/, 'expected up to 40 small letters, digits and dashes'),
  }),
  range_limit: z.strictObject({
    prefix,
    currency,
    transaction_maximum_minor: minorUnits.nullable().default(null),
    daily_maximum_minor: minorUnits.nullable().default(null),
    daily_maximum_count: integer(0, 1_000_000).nullable().default(null),
    stand_in_floor_minor: minorUnits.nullable().default(null),
    stand_in_card_count: integer(0, 1_000_000).nullable().default(null),
    stand_in_card_minor: minorUnits.nullable().default(null),
  }),
  merchant_limit: z.strictObject({
    prefix,
    merchant_category: z
      .string('expected four digits in quotes')
      .regex(/^[0-9]{4}$/, 'expected a merchant category (DE 18), four digits in quotes'),
    currency,
    transaction_maximum_minor: minorUnits,
  }),
  node_state: z.strictObject({
    node_id: z.string().refine(isIdentifier, `expected ${identifierRule}`),
    state: z.enum(['in-service', 'maintenance']),
    reason: freeText.default(''),
  }),
  acquirer_link: z.strictObject({
    link_id: z.string().refine(isIdentifier, `expected ${identifierRule}`),
    acquiring_institutions: z
      .string('expected text in quotes')
      .regex(
        /^(?:\*|[0-9]{1,11}(?:,[0-9]{1,11})*)$/,
        'expected * or DE 32 values (1 to 11 digits) separated by commas',
      ),
    partial_approval: truth,
    deadline_ms: integer(1, 60_000),
    unmatched_reversal_request_code: z
      .string('expected two characters in quotes')
      .regex(/^[0-9A-Z]{2}$/, 'expected a response code of two digits or capitals')
      .default('25'),
  }),
  rewrite_rule_set: z.strictObject({
    version: integer(1, 1_000_000_000),
    rules: z.string().max(100_000),
  }),
} as const satisfies { [Table in ConfigurationTable]: z.ZodType<ConfigurationRows[Table]> };

export const keySchemas = {
  failover_map: configurationSchemas.failover_map.pick({ group_id: true }),
  pan_range: configurationSchemas.pan_range.pick({ prefix: true }),
  range_move: configurationSchemas.range_move.pick({ prefix: true }),
  range_limit: configurationSchemas.range_limit.pick({ prefix: true, currency: true }),
  merchant_limit: configurationSchemas.merchant_limit.pick({ prefix: true, merchant_category: true, currency: true }),
  node_state: configurationSchemas.node_state.pick({ node_id: true }),
  acquirer_link: configurationSchemas.acquirer_link.pick({ link_id: true }),
  rewrite_rule_set: configurationSchemas.rewrite_rule_set.pick({ version: true }),
} as const satisfies { [Table in ConfigurationTable]: z.ZodType<ConfigurationKeys[Table]> };

/** In the order in which a configuration is entered: groups before the ranges that name them. */
export const configurationTables = Object.keys(configurationSchemas) as readonly ConfigurationTable[];

/** Column names of a table, in their order in SQLite and in canonical JSON. */
export function columnsOf(table: ConfigurationTable): readonly string[] {
  return Object.keys(configurationSchemas[table].shape);
}

/** Column names of a table's primary key. */
export function keyColumnsOf(table: ConfigurationTable): readonly string[] {
  return Object.keys(keySchemas[table].shape);
}

export type SqlValue = string | number | bigint | null;

export function isConfigurationTable(name: string): name is ConfigurationTable {
  return Object.hasOwn(configurationSchemas, name);
}

/** A row's key as people write it, from its values: `990001`, or `990001/840` where two columns make it. */
export function keyTextOf(table: ConfigurationTable, values: Readonly<Record<string, unknown>>): string {
  return keyColumnsOf(table)
    .map((column) => String(values[column]))
    .join('/');
}

/** The inverse of `keyTextOf`. Throws CONFIGURATION_ROW_INVALID. */
export function parseKeyText<Table extends ConfigurationTable>(table: Table, text: string): ConfigurationKeys[Table] {
  const columns = keyColumnsOf(table);
  const parts = text.split('/');
  if (parts.length !== columns.length) {
    throw new SwitchError('CONFIGURATION_ROW_INVALID', `${table}: a key is written as ${columns.join('/')}`);
  }
  const values = columns.map((column, at) => [column, readColumnText(table, column, parts[at] ?? '')]);
  return parse(keySchemas[table] as unknown as z.ZodType<ConfigurationKeys[Table]>, table, Object.fromEntries(values));
}

/**
 * A column's value as people write it (`none`: no value). Throws CONFIGURATION_ROW_INVALID for what the column does not
 * take, and for a column that the table does not have.
 */
export function readColumnText(table: ConfigurationTable, column: string, text: string): unknown {
  const shape: Readonly<Record<string, z.ZodType>> = configurationSchemas[table].shape;
  const schema = Object.hasOwn(shape, column) ? shape[column] : undefined;
  if (schema === undefined) {
    throw new SwitchError(
      'CONFIGURATION_ROW_INVALID',
      `${table} has no column ${maskCardData(column)}; it has ${columnsOf(table).join(', ')}`,
    );
  }
  const other: unknown =
    text === 'none'
      ? null
      : text === 'true' || text === 'false'
        ? text === 'true'
        : /^[0-9]{1,15}$/.test(text)
          ? Number(text)
          : text;
  return schema.safeParse(text).success ? text : parse(schema, `${table}.${column}`, other);
}

/** The values of a row or a key as SQLite holds them, by column: truths are 0 and 1, amounts 64-bit integers. */
export function toSqlRow(row: object): Record<string, SqlValue> {
  return Object.fromEntries(
    Object.entries(row).map(([column, value]: [string, SqlValue | boolean]) => [
      column,
      typeof value === 'boolean' ? Number(value) : value,
    ]),
  );
}

/** Reads a canonical row of any source. Throws CONFIGURATION_ROW_INVALID with the path; the values are never told. */
export function parseConfigurationRow<Table extends ConfigurationTable>(
  table: Table,
  values: unknown,
): ConfigurationRows[Table] {
  // The lookup by a generic key loses which schema belongs to which row; `satisfies` above has checked the pairing.
  const schema = configurationSchemas[table] as unknown as z.ZodType<ConfigurationRows[Table]>;
  return parse(schema, table, values);
}

function parse<T>(schema: z.ZodType<T>, path: string, values: unknown): T {
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  throw new SwitchError('CONFIGURATION_ROW_INVALID', problemsOf(result.error, path).map(formatProblem).join('; '));
}

/** Canonical JSON of a change: columns in schema order, amounts as decimal strings. */
export function encodeConfigurationChange(change: ConfigurationChange): string {
  const content =
    change.operation === 'put'
      ? { row: ordered(change.row, columnsOf(change.table)) }
      : { key: ordered(change.key, keyColumnsOf(change.table)) };
  return canonicalJson({ table: change.table, operation: change.operation, ...content });
}

/** Canonical JSON of a row: columns in schema order, amounts as decimal strings. */
export function encodeConfigurationRow(table: ConfigurationTable, row: ConfigurationRows[ConfigurationTable]): string {
  return canonicalJson(ordered(row, columnsOf(table)));
}

function ordered(content: object, columns: readonly string[]): Record<string, unknown> {
  const values = new Map<string, unknown>(Object.entries(content));
  return Object.fromEntries(columns.map((column) => [column, values.get(column)]));
}

function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => (typeof each === 'bigint' ? each.toString() : each));
}

const changeEnvelope = z.discriminatedUnion('operation', [
  z.strictObject({
    table: z.enum(Object.keys(configurationSchemas)),
    operation: z.literal('put'),
    row: z.unknown(),
  }),
  z.strictObject({
    table: z.enum(Object.keys(configurationSchemas)),
    operation: z.literal('delete'),
    key: z.unknown(),
  }),
]);

/** The inverse of `encodeConfigurationChange`. Throws CONFIGURATION_ROW_INVALID. */
export function decodeConfigurationChange(text: string): ConfigurationChange {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw new SwitchError('CONFIGURATION_ROW_INVALID', 'change: not JSON');
  }
  const envelope = parse(changeEnvelope, 'change', content);
  const table = envelope.table as ConfigurationTable;
  const change =
    envelope.operation === 'put'
      ? { table, operation: envelope.operation, row: parseConfigurationRow(table, envelope.row) }
      : { table, operation: envelope.operation, key: parse<unknown>(keySchemas[table], table, envelope.key) };
  // Row and key have just been read by the schemas of this very table.
  return change as ConfigurationChange;
}

/** A schema's findings as problems. */
export function problemsOf(error: z.ZodError, root = ''): Problem[] {
  return error.issues.flatMap((issue) => problemsOfIssue(issue, root));
}

/** One finding; each unknown key is a problem at its own path. */
export function problemsOfIssue(issue: z.core.$ZodIssue, root = ''): Problem[] {
  const path = joinPath(root, issue.path);
  if (issue.code !== 'unrecognized_keys') return [{ path, message: lowerFirst(issue.message) }];
  return issue.keys.map((key) => ({ path: joinPath(path, [maskCardData(key)]), message: 'unknown key' }));
}

export function formatProblem(problem: Problem): string {
  return problem.path === '' ? problem.message : `${problem.path}: ${problem.message}`;
}

function joinPath(root: string, steps: readonly PropertyKey[]): string {
  return steps.reduce<string>((path, step) => {
    if (typeof step === 'number') return `${path}[${step}]`;
    return path === '' ? String(step) : `${path}.${String(step)}`;
  }, root);
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
