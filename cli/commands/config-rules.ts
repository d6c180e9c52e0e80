import type { Command } from 'commander';

import type { Configuration } from '../../config-db/configuration.ts';
import { readRuleFile } from '../../config-db/rule-file.ts';
import { configurationTables, isConfigurationTable, parseConfigurationRow } from '../../config-db/rows.ts';
import { exitCode, formatTable, reachableNode, type CommandContext } from '../context.ts';
import type { RunCommand } from '../run-command.ts';
import { change, readText, withChangeFlags, type ChangeOptions } from './config-change.ts';
import { findRow, listRows, type ListedConfiguration } from './config-rows.ts';

export function registerRules(config: Command, run: RunCommand): void {
  const rules = config.command('rules').description('the rewrite rules: versions of a rule set');
  withChangeFlags(
    rules
      .command('load')
      .argument('<file>', 'YAML as in config-db/rewrite-rules.yaml, with its tests')
      .description('runs the tests of a rule set, enters it, and every node derives its rows anew'),
  ).action((file: string, options: ChangeOptions) =>
    run((context) =>
      change(context, options, (there) => {
        const { row, checkAgainst } = readRuleFile(readText(file), file);
        checkAgainst(configurationOf(there), context.topology());
        const version = findRow(there, 'rewrite_rule_set', String(row.version))?.version ?? 0;
        return [{ change: { table: 'rewrite_rule_set', operation: 'put', row }, replaces: version }];
      }),
    ),
  );
  rules
    .command('test')
    .argument('<file>', 'YAML as in config-db/rewrite-rules.yaml, with its tests')
    .description('runs the tests of a rule set, and holds it against the rows in force; enters nothing')
    .option('--node <id>', 'whose rows (default: the first that answers)')
    .option('--json', 'as JSON')
    .action((file: string, options: { readonly node?: string; readonly json?: boolean }) =>
      run(async (context) => {
        const { row, tests, checkAgainst } = readRuleFile(readText(file), file);
        const there = await context.withCluster(async (bus) => listRows(bus, await reachableNode(bus, options.node)));
        checkAgainst(configurationOf(there), context.topology());
        if (options.json === true) context.printJson({ version: row.version, tests, rows: there.length });
        else context.print(`Rule set ${row.version}: ${tests} tests pass, and it is total over the rows in force.`);
        return exitCode.good;
      }),
    );
  rules
    .command('list')
    .description('the rule sets that are entered, and by which each node has derived its rows')
    .option('--json', 'as JSON')
    .action((options: { readonly json?: boolean }) => run((context) => listRules(context, options)));
}

/** The canonical rows of a listing. Throws CONFIGURATION_ROW_INVALID. */
function configurationOf(there: ListedConfiguration): Configuration {
  return Object.fromEntries(
    configurationTables.map((table) => [
      table,
      there.flatMap((row) => (row.table === table ? [parseConfigurationRow(table, row.row)] : [])),
    ]),
  ) as unknown as Configuration;
}

async function listRules(context: CommandContext, options: { readonly json?: boolean }): Promise<number> {
  const { sets, nodes } = await context.withCluster(async (bus) => {
    const first = await listRows(bus, await reachableNode(bus, undefined));
    const atNodes = await Promise.all(
      bus.topology.nodes.map(async ({ id }) => {
        const rows = (await bus.status(id)) === undefined ? undefined : await listRows(bus, id);
        const versions = rows?.flatMap(({ table, derived }) =>
          isConfigurationTable(table) && derived !== undefined ? [Number(derived['rule_set_version'])] : [],
        );
        return { node: id, versions: versions === undefined ? undefined : [...new Set(versions)] };
      }),
    );
    return { sets: first.filter(({ table }) => table === 'rewrite_rule_set'), nodes: atNodes };
  });
  if (options.json === true) {
    context.printJson({
      ruleSets: sets.map(({ key, version, by, origin, at }) => ({ key, version, by, origin, at })),
      nodes,
    });
    return exitCode.good;
  }
  const inForce = Math.max(...sets.map(({ key }) => Number(key)));
  context.print(
    formatTable([
      ['rule set', 'entered at index', 'by', 'at', 'on', ''],
      ...sets.map(({ key, version, by, origin, at }) => [
        key,
        String(version),
        by,
        origin,
        new Date(at).toISOString(),
        Number(key) === inForce ? 'in force' : '',
      ]),
    ]),
  );
  context.print('');
  context.print(
    formatTable([
      ['node', 'derived by rule set'],
      ...nodes.map(({ node, versions }) => [node, versions === undefined ? 'does not answer' : versions.join(', ')]),
    ]),
  );
  return exitCode.good;
}
