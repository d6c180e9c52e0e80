import { z } from 'zod';

import { SwitchError } from '../base/errors.ts';
import { identifierRule, isIdentifier, nodeId } from '../base/identifiers.ts';
import {
  checkRuleSet,
  compileRuleSet,
  derive,
  ruleSetSchema,
  type DerivableRows,
  type DerivationRows,
  type DerivedTable,
  type RewriteTopology,
  type RuleSet,
} from './rewrite.ts';
import type { RewriteRuleSetRow } from './rows.ts';
import { readYamlWithLines } from './yaml-document.ts';

/*
 * A file of rewrite rules with its tests. A test is a canonical row, the nodes with their sites, and for each node the
 * columns that the rules must come to; the rules' expressions and the whole rule set are checked as the file is read,
 * and every fault has its line.
 */

const node = z.string().refine(isIdentifier, `expected ${identifierRule}`);

const testSchema = z.strictObject({
  table: z.enum(['failover_map', 'pan_range', 'range_limit']),
  /** The columns that the rules read; of a pan_range its group's failover_order, too. */
  row: z.record(z.string(), z.union([z.string(), z.int(), z.boolean()])),
  sites: z.record(node, z.string()),
  maintenance: z.array(node).default([]),
  /** Where the row was entered; the first node when not given. */
  origin: node.optional(),
  expect: z.record(node, z.record(z.string(), z.union([z.string(), z.int()]))),
});

const fileSchema = ruleSetSchema.extend({ tests: z.array(testSchema).default([]) });

type RuleTest = z.infer<typeof testSchema>;

/** A rule set as a file gives it. */
export interface RuleFile {
  readonly row: RewriteRuleSetRow;
  /** Tests that were run; all have passed. */
  readonly tests: number;
  /** Throws REWRITE_RULES_INVALID with line and reason when the rules are not total over these rows and nodes. */
  readonly checkAgainst: (rows: DerivableRows, topology: RewriteTopology) => void;
}

/** The rule set as the row that is entered. Throws as `readRuleFile`. */
export function readRuleSetFile(text: string, fileName: string): RewriteRuleSetRow {
  return readRuleFile(text, fileName).row;
}

/** Reads rules and runs their tests. Throws REWRITE_RULES_INVALID with file and line of what is wrong. */
export function readRuleFile(text: string, fileName: string): RuleFile {
  const { content, lineOf } = readYamlWithLines(text, fileName, fileSchema, 'REWRITE_RULES_INVALID');
  const { tests, ...document } = content;
  const refused = (path: string, message: string): SwitchError =>
    new SwitchError('REWRITE_RULES_INVALID', `${fileName}:${lineOf(path)}: ${path}: ${message}`);
  let ruleSet: RuleSet;
  try {
    // Compiled before it is serialized: the compiler's depth limit is what refuses an alias that contains itself.
    ruleSet = compileRuleSet(document);
  } catch (error) {
    if (!(error instanceof SwitchError)) throw error;
    const [path = '', ...reason] = error.message.split(': ');
    throw refused(path, reason.join(': '));
  }
  tests.forEach((each, index) => {
    const fault = faultOf(ruleSet, each);
    if (fault !== undefined) throw refused(`tests[${index}].expect${fault.path}`, fault.message);
  });
  return {
    row: { version: document.version, rules: JSON.stringify(document.rules) },
    tests: tests.length,
    checkAgainst: (rows, topology) => {
      const [problem] = checkRuleSet(ruleSet, topology, rows);
      if (problem === undefined) return;
      const table = problem.path.replace(/\[.*/, '');
      const rule = document.rules.findLastIndex(
        (each) => each.tables.some((name) => name === table) && problem.column in each.set,
      );
      const path = rule < 0 ? 'rules' : `rules[${rule}].set.${problem.column}`;
      throw refused(path, `${problem.path}: ${problem.message}`);
    },
  };
}

function faultOf(ruleSet: RuleSet, test: RuleTest): { readonly path: string; readonly message: string } | undefined {
  const topology = { nodes: Object.entries(test.sites).map(([id, site]) => ({ id: nodeId(id), site })) };
  const origin = nodeId(test.origin ?? topology.nodes[0]?.id ?? 'n1');
  for (const [id, expected] of Object.entries(test.expect)) {
    if (!(id in test.sites)) return { path: `.${id}`, message: 'the node is not among `sites`' };
    // A test gives the columns that its rules read; those that it leaves out are null to them.
    const row = test.row as unknown as DerivationRows[DerivedTable];
    const context = { origin, target: nodeId(id), topology, maintenance: test.maintenance };
    const { columns } = derive(ruleSet, test.table, row as never, context);
    for (const [column, value] of Object.entries(expected)) {
      const got = columns[column];
      if (got === value) continue;
      const shown = got === undefined ? 'there is no such column' : `the rules come to ${JSON.stringify(got)}`;
      return { path: `.${id}.${column}`, message: `expected ${JSON.stringify(value)}, ${shown}` };
    }
  }
  return undefined;
}
