import { z } from 'zod';

import { SwitchError } from '../base/errors.ts';
import { configGroup } from '../base/identifiers.ts';
import { parseFailoverOrder } from './failover-order.ts';
import { checkRuleSet, compileRuleSetRow, type RewriteTopology, type RuleSet } from './rewrite.ts';
import {
  configurationSchemas,
  configurationTables,
  keyColumnsOf,
  type ConfigurationChange,
  type ConfigurationRows,
  type ConfigurationTable,
  type Problem,
  type RewriteRuleSetRow,
} from './rows.ts';
import { readYamlDocument } from './yaml-document.ts';

/** Every canonical row of the `config` group. */
export type Configuration = { readonly [Table in ConfigurationTable]: readonly ConfigurationRows[Table][] };

const configurationSchema: z.ZodType<Configuration> = z.strictObject({
  failover_map: z.array(configurationSchemas.failover_map),
  pan_range: z.array(configurationSchemas.pan_range),
  range_move: z.array(configurationSchemas.range_move).default([]),
  range_limit: z.array(configurationSchemas.range_limit).default([]),
  merchant_limit: z.array(configurationSchemas.merchant_limit).default([]),
  node_state: z.array(configurationSchemas.node_state).default([]),
  acquirer_link: z.array(configurationSchemas.acquirer_link).default([]),
  rewrite_rule_set: z.array(configurationSchemas.rewrite_rule_set).default([]),
});

/**
 * A whole configuration from YAML text: the tables' names as keys, lists of rows below them. Only its shape is
 * checked here; `validateConfiguration` checks the whole. The rewrite rules have a file of their own
 * (`rule-file.ts`), whose row the caller adds.
 * Throws CONFIGURATION_FILE_INVALID with line and path of every fault; an unknown key is a fault.
 */
export function loadConfigurationFile(text: string, fileName: string): Configuration {
  return readYamlDocument(text, fileName, configurationSchema, 'CONFIGURATION_FILE_INVALID');
}

/** The changes that enter a configuration into an empty cluster, groups before the ranges that name them. */
export function changesOf(configuration: Configuration): ConfigurationChange[] {
  return configurationTables.flatMap((table) =>
    // A row of the table's own list is the table's row; the union type cannot say so.
    configuration[table].map((row) => ({ table, operation: 'put', row }) as ConfigurationChange),
  );
}

/** The rule set in force: the one with the highest version. */
export function currentRuleSetRow(rows: readonly RewriteRuleSetRow[]): RewriteRuleSetRow | undefined {
  return rows.reduce<RewriteRuleSetRow | undefined>(
    (highest, row) => (highest === undefined || row.version > highest.version ? row : highest),
    undefined,
  );
}

/**
 * What is wrong with the configuration as a whole; empty when it may be entered. Checked: keys differ; every order
 * names every node of the topology exactly once; every range's group exists and exactly one range is the catch-all;
 * every limit has its range; the rule set in force is total.
 */
export function validateConfiguration(configuration: Configuration, topology: RewriteTopology): Problem[] {
  const problems = [
    ...configurationTables.flatMap((table) => repeatedKeys(configuration, table)),
    ...problemsOfOrders(configuration, topology),
    ...problemsOfRanges(configuration),
    ...configuration.node_state.flatMap(({ node_id: node }, index) =>
      topology.nodes.some(({ id }) => id === node)
        ? []
        : [{ path: `node_state[${index}].node_id`, message: `"${node}" is not a node` }],
    ),
  ];
  // The rules are only held against rows that make sense by themselves: else they would repeat every fault.
  return problems.length > 0 ? problems : problemsOfRules(configuration, topology);
}

function repeatedKeys(configuration: Configuration, table: ConfigurationTable): Problem[] {
  const seen = new Map<string, number>();
  return configuration[table].flatMap((row, index): Problem[] => {
    const values = new Map<string, unknown>(Object.entries(row));
    const key = JSON.stringify(keyColumnsOf(table).map((column) => values.get(column)));
    const first = seen.get(key);
    if (first === undefined) {
      seen.set(key, index);
      return [];
    }
    const columns = keyColumnsOf(table).join(' and ');
    return [{ path: `${table}[${index}]`, message: `same ${columns} as ${table}[${first}]` }];
  });
}

function problemsOfOrders(configuration: Configuration, topology: RewriteTopology): Problem[] {
  const nodes: readonly string[] = topology.nodes.map(({ id }) => id);
  return configuration.failover_map.flatMap((row, index): Problem[] => {
    const problems: Problem[] = [];
    if (row.group_id === configGroup) {
      problems.push({
        path: `failover_map[${index}].group_id`,
        message: `${configGroup} is the configuration's own group`,
      });
    }
    const order = parseFailoverOrder(row.failover_order);
    const faults = [
      ...nodes.filter((node) => !order.includes(node)).map((node) => `${node} is missing`),
      ...order.filter((node, at) => order.indexOf(node) !== at).map((node) => `${node} is repeated`),
      ...order.filter((node) => !nodes.includes(node)).map((node) => `"${node}" is not a node`),
    ];
    for (const message of faults) problems.push({ path: `failover_map[${index}].failover_order`, message });
    return problems;
  });
}

function problemsOfRanges(configuration: Configuration): Problem[] {
  const groups = new Set(configuration.failover_map.map((row) => row.group_id));
  const prefixes = new Set(configuration.pan_range.map((row) => row.prefix));
  const problems: Problem[] = [];
  configuration.pan_range.forEach((row, index) => {
    if (groups.has(row.group_id)) return;
    problems.push({ path: `pan_range[${index}].group_id`, message: `no group ${row.group_id} in failover_map` });
  });
  // A second catch-all is a repeated key already.
  if (!prefixes.has('')) problems.push({ path: 'pan_range', message: "no catch-all range (prefix '')" });
  for (const table of ['range_limit', 'merchant_limit'] as const) {
    configuration[table].forEach((row, index) => {
      if (prefixes.has(row.prefix)) return;
      problems.push({ path: `${table}[${index}].prefix`, message: 'no range has this prefix' });
    });
  }
  configuration.range_move.forEach((row, index) => {
    const path = `range_move[${index}]`;
    const range = configuration.pan_range.find(({ prefix }) => prefix === row.prefix);
    if (range === undefined) problems.push({ path: `${path}.prefix`, message: 'no range has this prefix' });
    if (!groups.has(row.to_group)) {
      problems.push({ path: `${path}.to_group`, message: `no group ${row.to_group} in failover_map` });
    }
    if (range?.group_id === row.to_group) {
      problems.push({ path: `${path}.to_group`, message: `the range is group ${row.to_group}'s already` });
    }
    if (row.prefix === '') problems.push({ path: `${path}.prefix`, message: 'the catch-all range cannot be moved' });
  });
  return problems;
}

function problemsOfRules(configuration: Configuration, topology: RewriteTopology): Problem[] {
  const row = currentRuleSetRow(configuration.rewrite_rule_set);
  if (row === undefined) return [{ path: 'rewrite_rule_set', message: 'no rule set' }];
  let ruleSet: RuleSet;
  try {
    ruleSet = compileRuleSetRow(row);
  } catch (error) {
    if (!(error instanceof SwitchError)) throw error;
    return [{ path: `rewrite_rule_set[${configuration.rewrite_rule_set.indexOf(row)}]`, message: error.message }];
  }
  return checkRuleSet(ruleSet, topology, configuration);
}
