import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { configGroup, nodeId, type NodeId } from '../base/identifiers.ts';
import type { ConfigurationEntry } from '../store/entry.ts';
import { chainEntry, encodeBody } from '../store/entry.ts';
import { GroupFile } from '../store/group-file.ts';
import { temporaryFolder } from '../store/testing.ts';
import { changesOf, loadConfigurationFile, type Configuration } from './configuration.ts';
import { configurationFold } from './configuration-fold.ts';
import type { RewriteTopology } from './rewrite.ts';
import { readRuleSetFile } from './rule-file.ts';
import { encodeConfigurationChange, type ConfigurationChange } from './rows.ts';

/** For tests of config.db as a file: a node's, with the sample configuration in it, and the real `sqlite3` shell. */

export const topology: RewriteTopology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, at) => ({ id: nodeId(id), site: at < 2 ? 'east' : 'west' })),
};

const read = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8');
export const sample: Configuration = {
  ...loadConfigurationFile(read('samples/configuration.yaml'), 'configuration.yaml'),
  rewrite_rule_set: [readRuleSetFile(read('rewrite-rules.yaml'), 'rewrite-rules.yaml')],
};

/** What the shell of Debian's package `sqlite3` says; throws with what it complained of. A machine without it fails. */
export function shell(path: string, sql: string): string {
  return execFileSync('sqlite3', ['-bail', path], { input: sql, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
}

export type ShellConnection = Database.Database;

/** A second connection, as a shell has one that stays open. It checkpoints nothing. */
export function openShell(path: string): ShellConnection {
  const shell = new Database(path, { fileMustExist: true, timeout: 0 });
  shell.pragma('wal_autocheckpoint = 0');
  return shell;
}

/** A node's config.db on disk, through the connection that writes it. */
export class ConfigFile {
  readonly path: string;
  file: GroupFile;

  readonly #self: NodeId;

  constructor(context: Pick<TestContext, 'after'>, self = nodeId('n1')) {
    this.#self = self;
    this.path = join(temporaryFolder(context), 'config.db');
    this.file = this.#open();
    context.after(() => {
      this.file.close();
    });
  }

  /** Enters changes through the log. */
  enter(changes: readonly ConfigurationChange[], more: Partial<ConfigurationEntry> = {}): number {
    return this.enterText(changes.map(encodeConfigurationChange), more);
  }

  /** The same with changes as their canonical JSON. */
  enterText(changes: readonly string[], more: Partial<ConfigurationEntry> = {}): number {
    const index = this.file.last.index + 1;
    const body = encodeBody({
      kind: 'configuration',
      id: `change-${index}`,
      checkedAt: index - 1,
      at: 1_772_000_000_000,
      by: 'operator',
      origin: 'n2',
      changes: changes.map((change) => JSON.parse(change) as ConfigurationEntry['changes'][number]),
      ...more,
    });
    const entry = chainEntry(this.file.last, 1, body);
    this.file.write({ entries: [entry], keepThrough: undefined, applyThrough: entry.index });
    return entry.index;
  }

  enterSample(): this {
    this.enter(changesOf(sample));
    return this;
  }

  restart(): void {
    this.file.close();
    this.file = this.#open();
  }

  #open(): GroupFile {
    return GroupFile.open(this.path, configGroup, 'test', configurationFold(this.#self, topology));
  }
}
